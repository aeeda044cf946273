"""The authority of the portal's links to access servers, and what an access server is given.

    link-ca.pem .key   in $PATENCY_DATA/ca; neither devices nor browsers know it
    link.pem .key      the portal's own, shown to access servers

A bundle holds what one access server needs to stand between devices and the portal: its
certificate for devices, its certificate for the link, and the authorities to believe. No
authority's key is ever in it: whoever takes an access server over can make no certificate.
"""

import json
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from broker.link import wire
from fleet.core.addresses import Address, parse_address
from fleet.core.files import write_private
from fleet.enrolment import ca
from fleet.servers.models import AccessServer

FILE = "access-server.json"
_EVERYWHERE = "0.0.0.0"  # noqa: S104  (a server that devices must reach)


def ensure(now: datetime) -> None:
    """The authority, and the portal's own certificate with more than half of its life left.

    Raises Conflict before `ca init`."""
    ca.pem("device-root")
    if not (ca.folder() / "link-ca.pem").exists():
        ca.write("link-ca", ca.authority("Patency link CA", None, now, ca.ROOT_LIFE))
    own = ca.folder() / "link.pem"
    if own.exists():
        held = x509.load_pem_x509_certificate(own.read_bytes())
        if held.not_valid_after_utc - now > ca.SERVER_LIFE / 2:
            return
    purpose = ExtendedKeyUsageOID.CLIENT_AUTH
    ca.write("link", _leaf(wire.PORTAL, wire.PORTAL_URI, purpose, now))


def _leaf(name: str, uri: str, purpose: ObjectIdentifier, now: datetime) -> ca.Pair:
    issuer = ca.load("link-ca")
    key = ec.generate_private_key(ec.SECP256R1())
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])
    builder = ca.leaf_builder(name, issuer, key.public_key(), now, ca.SERVER_LIFE)
    certificate = (
        builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(names, critical=False)
        .sign(issuer.key, SHA256())
    )
    return ca.Pair(certificate, key)


def write_bundle(server: AccessServer, folder: Path, *, now: datetime) -> None:
    """Everything that `up --only gate --name …` needs, into `folder`; existing files are replaced,
    which is how the certificates are renewed. Raises Conflict, OSError."""
    ensure(now)
    hosts = list(dict.fromkeys((server.host, server.address)))
    _put(folder, "server", ca.server_pair(hosts=hosts, now=now))
    uri = wire.SERVER_URI + server.name
    _put(folder, "link", _leaf(server.name, uri, ExtendedKeyUsageOID.SERVER_AUTH, now))
    for path in (ca.folder() / "link-ca.pem", *device_authorities()):
        write_private(folder / path.name, path.read_bytes())
    settings = {
        "v": 1,
        "name": server.name,
        "mqtt": str(Address(_EVERYWHERE, server.port)),
        "link": str(Address(_EVERYWHERE, parse_address(server.link).port)),
    }
    write_private(folder / FILE, json.dumps(settings, indent=1).encode() + b"\n")


def device_authorities() -> list[Path]:
    """The device root, and every intermediate whose credentials may still be in use."""
    return [ca.folder() / "device-root.pem", *sorted(ca.folder().glob("device-ca*.pem"))]


def _put(folder: Path, name: str, pair: ca.Pair) -> None:
    key = pair.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_private(folder / f"{name}.key", key)
    write_private(folder / f"{name}.pem", pair.certificate.public_bytes(Encoding.PEM))
