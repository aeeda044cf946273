"""What travels on a link beside the devices' own messages: topics, payloads, names. No IO.

The ends may be of different releases: unknown fields are ignored, and a change that would break the
other side takes another topic.
"""

from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Any, TypeVar

import msgspec

from agent.wire.messages import MAX_PAYLOAD
from broker import packets
from broker.denied import DenyList
from broker.errors import PeerError, Reason
from broker.lanes import ConnectionInfo

PORTAL = "portal"  # the client id, and the common name of its certificate
PORTAL_URI = "spiffe://patency/portal"
SERVER_URI = "spiffe://patency/access-server/"  # and the name

DEVICES = "pat/1/+/up/#"
OWN = "link/1/#"
# gate to portal
SNAPSHOT = "link/1/snapshot"
CONNECTED = "link/1/connected"
DISCONNECTED = "link/1/disconnected"
REFUSED = "link/1/refused"
TAKEN = "link/1/taken"
CERTIFICATES = "link/1/certificates"
# portal to gate
KICK = "link/1/kick"
DENY = "link/1/deny"

_PRESENCES = 500  # in one packet
_DENIED = 4000

_PUBLISH = MAX_PAYLOAD + packets.PUBLISH_OVERHEAD
BEFORE_LINK = packets.BEFORE_CONNECT
FROM_PORTAL = packets.table(
    {
        packets.PUBLISH: _PUBLISH,
        packets.PUBACK: 2,
        packets.SUBSCRIBE: 1024,
        packets.PINGREQ: 0,
        packets.DISCONNECT: 0,
    }
)
FROM_GATE = packets.table(
    {
        packets.CONNACK: 2,
        packets.SUBACK: 64,
        packets.PUBLISH: _PUBLISH,
        packets.PUBLISH_QOS1: _PUBLISH,
        packets.PUBLISH_QOS1_AGAIN: _PUBLISH,
        packets.PINGRESP: 0,
    }
)


class Trouble(StrEnum):
    """Why there is no link; the detail of a RemoteGate's health."""

    NOT_YET = "not_yet"  # the first attempt is under way
    UNREACHABLE = "unreachable"  # no TCP connection
    TLS = "tls"  # TLS failed, or it hung up before it answered: a certificate of another authority
    NAME = "name"  # the certificate of another access server
    REFUSED = "refused"
    SILENT = "silent"
    LOST = "lost"  # it was there and broke
    PROTOCOL = "protocol"  # the other side broke a rule


class Presence(msgspec.Struct, frozen=True):
    """A connected device: broker.lanes.ConnectionInfo, with an age in place of a time."""

    device: str
    peer: str
    tls: str
    cipher: str
    certificate: str
    not_after: float
    keepalive_s: int
    age_s: float

    @classmethod
    def of(cls, device: str, info: ConnectionInfo, now: float) -> "Presence":
        return cls(
            device=device,
            peer=info.peer,
            tls=info.tls,
            cipher=info.cipher,
            certificate=info.certificate,
            not_after=info.not_after,
            keepalive_s=info.keepalive_s,
            age_s=max(0.0, now - info.since),
        )

    def info(self, now: float) -> ConnectionInfo:
        return ConnectionInfo(
            peer=self.peer,
            tls=self.tls,
            cipher=self.cipher,
            certificate=self.certificate,
            not_after=self.not_after,
            keepalive_s=self.keepalive_s,
            since=now - self.age_s,
        )


class Snapshot(msgspec.Struct, frozen=True):
    devices: list[Presence]
    last: bool


class Gone(msgspec.Struct, frozen=True):
    device: str
    reason: str


class Refusal(msgspec.Struct, frozen=True):
    peer: str
    device: str | None
    reason: str


class Taken(msgspec.Struct, frozen=True):
    """Frames that the device's socket has taken, or that are over with the device."""

    device: str
    bytes: int


class Certificates(msgspec.Struct, frozen=True):
    """When the certificates end that the gate has loaded: seconds since 1970."""

    server: float  # what devices are shown
    link: float  # what the portal is shown


class Kick(msgspec.Struct, frozen=True):
    device: str
    reason: str


class Denied(msgspec.Struct, frozen=True):
    """A part of the deny-list; `first` begins a new one, `last` makes it the one in force."""

    devices: list[str]
    certificates: list[str]
    first: bool
    last: bool


S = TypeVar("S")
_decoders: dict[Any, msgspec.json.Decoder[Any]] = {
    kind: msgspec.json.Decoder(kind)
    for kind in (Snapshot, Presence, Gone, Refusal, Taken, Certificates, Kick, Denied)
}
encode = msgspec.json.Encoder().encode


def decode(kind: type[S], payload: bytes | memoryview) -> S:
    """Raises: PeerError(MALFORMED)."""
    try:
        found: S = _decoders[kind].decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise PeerError(Reason.MALFORMED) from None
    return found


def reason(text: str) -> Reason:
    """A reason that the other side gave; one that this release does not know is LOST."""
    try:
        return Reason(text)
    except ValueError:
        return Reason.LOST


def snapshot(devices: Mapping[str, ConnectionInfo], now: float) -> Iterator[Snapshot]:
    """Everybody who is connected, in parts; one at least."""
    presences = [Presence.of(device, info, now) for device, info in devices.items()]
    parts = [presences[at : at + _PRESENCES] for at in range(0, len(presences), _PRESENCES)] or [[]]
    for number, part in enumerate(parts, 1):
        yield Snapshot(devices=part, last=number == len(parts))


def denied(listed: DenyList) -> Iterator[Denied]:
    """The deny-list in parts; one at least."""
    entries = [(True, each) for each in sorted(listed.devices)]
    entries += [(False, each) for each in sorted(listed.certificates)]
    parts = [entries[at : at + _DENIED] for at in range(0, len(entries), _DENIED)] or [[]]
    for number, part in enumerate(parts, 1):
        yield Denied(
            devices=[name for device, name in part if device],
            certificates=[name for device, name in part if not device],
            first=number == 1,
            last=number == len(parts),
        )


def names(certificate: Mapping[str, Any] | None, wanted: str) -> bool:
    """Whether a certificate that TLS has verified is for the URI `wanted` and for nothing else."""
    found: Iterable[tuple[str, str]] = (certificate or {}).get("subjectAltName", ())
    return [value for kind, value in found if kind == "URI"] == [wanted]


def topic(body: memoryview) -> tuple[str, int]:
    """The topic name of a PUBLISH and where the rest begins. Raises: PeerError."""
    if len(body) < 2:
        raise PeerError(Reason.MALFORMED)
    at = 2 + (body[0] << 8 | body[1])
    if at > len(body):
        raise PeerError(Reason.MALFORMED)
    try:
        return bytes(body[2:at]).decode("ascii"), at
    except UnicodeDecodeError:
        raise PeerError(Reason.MALFORMED) from None
