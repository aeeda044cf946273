"""Who a certificate is, and what that device may do. Pure.

The rule itself is two lines in `agent.wire.topics`; the gate asks here on every new topic, and the
amqtt plugin asks again on its own.
"""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.wire import topics
from broker.errors import PeerError, Reason

SPIFFE = "spiffe://patency/device/"


@dataclass(frozen=True, slots=True)
class Identity:
    """A device as its verified certificate names it."""

    device: str
    serial: str  # of the certificate, hexadecimal
    not_after: float  # seconds since 1970


def identity(certificate: Mapping[str, Any] | None) -> Identity:
    """Read `SSLObject.getpeercert()` of a chain that TLS has already verified.

    Raises: PeerError(NO_IDENTITY) unless the one common name and the one SAN name the same device.
    """
    if not certificate:
        raise PeerError(Reason.NO_IDENTITY)
    names = [
        value for rdn in certificate.get("subject", ()) for key, value in rdn if key == "commonName"
    ]
    alternatives = tuple(certificate.get("subjectAltName", ()))
    if len(names) != 1 or not topics.is_device_id(names[0]):
        raise PeerError(Reason.NO_IDENTITY)
    device: str = names[0]
    if alternatives != (("URI", SPIFFE + device),):
        raise PeerError(Reason.NO_IDENTITY)
    return Identity(
        device=device,
        serial=str(certificate.get("serialNumber", "")),
        not_after=float(ssl.cert_time_to_seconds(str(certificate["notAfter"]))),
    )


def publication(device: str, name: bytes) -> topics.Topic | None:
    """The topic a device publishes on, or None when it may not."""
    try:
        text = name.decode("ascii")
    except UnicodeDecodeError:
        return None
    return topics.parse(text) if topics.may_publish(device, text) else None


def may_subscribe(device: str, topic_filter: str) -> bool:
    return topics.may_subscribe(device, topic_filter)


def may_receive(device: str, topic: str) -> bool:
    parsed = topics.parse(topic)
    return (
        parsed is not None and parsed.device == device and parsed.direction is topics.Direction.DOWN
    )
