"""Who this injector is: provisioning bundle, keys, certificate, and enrolment on first contact.

State directory (0700), every file 0600:

    provision.json   placed at manufacture: serial, claim, where to enrol, trust anchors
    device.key       P-256, born here, never leaves (agent.keystore)
    device-next.key  the same for a renewal that is under way (agent.renewal)
    audit.key        Ed25519, signs the audit chain; outlives the certificate
    servers.json     access servers, in order of preference
    device.pem       leaf and intermediate; its presence means "enrolled"

Enrolment survives a crash at every step because each step leaves a file that the next start finds:
the keys are on disk before the claim is shown to anyone, the same claim with the same key gives the
same identity again, and `device.pem` comes last (R-CON-2). So does a renewal: `device.pem` names
its key, so that replacing this one file swaps the pair, and the next start finds the key in
whichever slot a crash left it (R-CON-8).
"""

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from agent import advice, keystore, posix
from agent.errors import EnrolmentRefused, StateError
from agent.i18n import _
from agent.keystore import Key, Slot
from agent.wire.catalogue import ProductLineCode
from agent.wire.messages import Key32
from agent.wire.topics import is_device_id

MAX_FILE = 64 * 1024  # bytes of any file read here
SERVERS = "servers.json"
SPIFFE = "spiffe://patency/device/"

Host = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9.:-]{1,253}$")]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Pem = Annotated[str, msgspec.Meta(min_length=64, max_length=32 * 1024)]
S = TypeVar("S")


# As a browser writes it: no path, no default port. Plain http for a machine's own name alone.
Origin = Annotated[
    str,
    msgspec.Meta(
        max_length=300,
        pattern=r"^(https://[a-z0-9.-]+|http://localhost)(:[0-9]{1,5})?\Z",
    ),
]


class Server(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    host: Host
    port: Port

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Anchors(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What this injector trusts. Nothing from the network replaces one."""

    server_ca: Pem
    device_root: Pem
    trust_key: Key32  # raw Ed25519; signs the roster
    server_audit_key: Key32  # raw Ed25519; signs the heads of the server's chain
    access_origin: Origin | None = None  # where access passkeys belong; None: they are not taken


class Provision(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    v: Literal[1]
    serial: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
    product_line: ProductLineCode
    claim: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]{8,256}$")]
    enrol: Server
    anchors: Anchors


class Granted(msgspec.Struct, frozen=True, kw_only=True):
    """The portal's answer to a claim. Later fields are ignored, so a newer portal may add some."""

    v: Literal[1]
    device: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{8,64}$")]
    certificates: Annotated[list[Pem], msgspec.Meta(min_length=1, max_length=4)]  # leaf first
    access_servers: Annotated[list[Server], msgspec.Meta(min_length=1, max_length=16)]


@dataclass(frozen=True, slots=True)
class Identity:
    """An enrolled injector."""

    state: Path
    device: str
    provision: Provision
    key: Key
    audit_key: Ed25519PrivateKey
    certificates: tuple[x509.Certificate, ...]  # leaf first
    servers: tuple[Server, ...]
    servers_lost: bool = False  # `servers.json` cannot be read: they are those of the bundle

    @property
    def expires_at(self) -> datetime:
        """End of the certificate."""
        return self.certificates[0].not_valid_after_utc

    @property
    def signed_ms(self) -> int:
        """Start of the certificate: a date that the portal signed."""
        return int(self.certificates[0].not_valid_before_utc.timestamp() * 1000)

    @property
    def trust_key(self) -> Ed25519PublicKey:
        return Ed25519PublicKey.from_public_bytes(self.provision.anchors.trust_key)

    @property
    def server_audit_key(self) -> Ed25519PublicKey:
        return Ed25519PublicKey.from_public_bytes(self.provision.anchors.server_audit_key)

    def certificates_der(self) -> list[bytes]:
        return [certificate.public_bytes(Encoding.DER) for certificate in self.certificates]

    def sign(self, data: bytes) -> bytes:
        """ECDSA P-256 with SHA-256, DER, by the credential's key."""
        return self.key.sign(data)

    def tls_context(self) -> ssl.SSLContext:
        """For MQTT: our certificate, and no server but those of the pinned authority (R-CON-6)."""
        context = pinned_context(self.provision.anchors)
        context.set_alpn_protocols(["mqtt"])
        try:
            self.key.load_into(context, self.state / "device.pem")
        except (OSError, ssl.SSLError) as error:
            raise StateError(
                _("The certificate and key of this injector do not fit together: {error}.").format(
                    error=error
                )
            ) from error
        return context


def pinned_context(anchors: Anchors) -> ssl.SSLContext:
    """TLS 1.2 or later that believes the anchors' server authority alone: no system store, no
    environment. Raises StateError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks host names, wants a certificate
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(cadata=anchors.server_ca)
    except (ssl.SSLError, ValueError) as error:
        raise StateError(
            _("provision.json: anchors.server_ca is no certificate: {error}.").format(error=error)
        ) from error
    return context


# --- reading the state directory ----------------------------------------------------------------


def load_provision(state: Path) -> Provision:
    """Raises StateError naming the file, the field and the remedy."""
    path = state / "provision.json"
    if not path.exists():
        raise StateError(
            _("{path} is missing: place the provisioning bundle of this injector there.").format(
                path=path
            )
        )
    provision = _decode(path, Provision)
    try:
        root = x509.load_pem_x509_certificate(provision.anchors.device_root.encode())
        Ed25519PublicKey.from_public_bytes(provision.anchors.trust_key)
        Ed25519PublicKey.from_public_bytes(provision.anchors.server_audit_key)
    except ValueError as error:
        raise StateError(
            _("{path} holds an anchor that cannot be read: {error}.").format(path=path, error=error)
        ) from error
    if not isinstance(root.public_key(), ec.EllipticCurvePublicKey):
        raise StateError(_("{path}: anchors.device_root must hold a P-256 key.").format(path=path))
    pinned_context(provision.anchors)
    return provision


def load(state: Path) -> Identity | None:
    """The identity, or None before enrolment. Raises StateError."""
    provision = load_provision(state)
    path = state / "device.pem"
    if not path.exists():
        return None
    try:
        certificates = tuple(x509.load_pem_x509_certificates(_read(path)))
    except ValueError as error:
        raise StateError(
            _(
                "{path} holds no certificate. Put it aside, and the injector asks for it again with"
                " its claim and its key: {command}"
            ).format(path=path, command=advice.aside(state, path.name))
        ) from error
    key = _key_of(certificates, state)
    device = check_certificates(certificates, key.public_key(), provision.anchors)
    servers, lost = _servers(state, provision)
    return Identity(
        state=state,
        device=device,
        provision=provision,
        key=key,
        audit_key=audit_key(state),
        certificates=certificates,
        servers=servers,
        servers_lost=lost,
    )


def _servers(state: Path, provision: Provision) -> tuple[tuple[Server, ...], bool]:
    """The access servers, and whether their list is lost. Then they are the host that the bundle
    names, from which a new list comes: an injector that stayed away instead would need a person to
    come (R-CON-8)."""
    try:
        servers = _decode(state / SERVERS, list[Server])
    except StateError:
        servers = []
    return (tuple(servers), False) if servers else ((provision.enrol,), True)


def servers_lost(provision: Provision) -> str:
    """That the list is lost, for people."""
    return _(
        "The list of access servers ({file}) is missing or damaged: the injector goes to {server},"
        " which its provisioning bundle names, and takes a new list from there."
    ).format(file=SERVERS, server=provision.enrol)


def device_key(state: Path) -> Key:
    """The device's key; before enrolment, made and safely on disk if there was none. Raises
    StateError."""
    keys = keystore.of(state)
    key = keys.get(Slot.CURRENT)
    if key is None and (state / "device.pem").exists():
        raise StateError(keystore.missing(state))
    return key or keys.make(Slot.CURRENT)


def _key_of(certificates: tuple[x509.Certificate, ...], state: Path) -> Key:
    """The key in use. A crash may have come between the two steps of a renewal's swap: then the
    certificate is for the next key, which takes its place here."""
    keys = keystore.of(state)
    following = keys.get(Slot.NEXT)
    if following is not None and _public(following.public_key()) == _public(
        certificates[0].public_key()
    ):
        keys.promote()
    return device_key(state)


def audit_key(state: Path) -> Ed25519PrivateKey:
    """The key that signs the audit chain, made if there was none. Raises StateError."""
    path = state / "audit.key"
    if not path.exists():
        made = Ed25519PrivateKey.generate()
        keystore.write_private(path, made)
        return made
    key = keystore.read_private(path)
    if not isinstance(key, Ed25519PrivateKey):
        raise StateError(_("{path} is not an Ed25519 key.").format(path=path))
    return key


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_FILE:
            raise StateError(
                _("{path} is larger than {limit} bytes.").format(path=path, limit=MAX_FILE)
            )
        return path.read_bytes()
    except OSError as error:
        raise StateError(
            _("{path} cannot be read: {error}.").format(path=path, error=error.strerror)
        ) from error


def _write(path: Path, data: bytes) -> None:
    try:
        posix.write_private(path, data)
    except OSError as error:
        raise StateError(
            _("{path} cannot be written: {error}.").format(path=path, error=error.strerror)
        ) from error


def _decode(path: Path, kind: type[S]) -> S:
    try:
        return msgspec.json.decode(_read(path), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StateError(
            _("{path} cannot be used: {error}. Put it right, or place it again.").format(
                path=path, error=error
            )
        ) from error


# --- certificates -------------------------------------------------------------------------------


def signing_request(key: Key) -> str:
    """A CSR (PEM) that proves the key and asks for no name: the claim decides."""
    return key.signing_request().public_bytes(Encoding.PEM).decode()


def check_certificates(
    certificates: tuple[x509.Certificate, ...],
    key: ec.EllipticCurvePublicKey,
    anchors: Anchors,
) -> str:
    """The device id of a chain that is for our key and ends at the anchored root.

    Times are not looked at: an injector with a wrong clock must still load. Raises StateError.
    """
    leaf = certificates[0]
    if _public(leaf.public_key()) != _public(key):
        raise StateError(_("The certificate is for another key than this injector's."))
    root = x509.load_pem_x509_certificate(anchors.device_root.encode())
    try:
        for issued, issuer in zip(certificates, (*certificates[1:], root), strict=True):
            issued.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise StateError(
            _("The certificate does not come from the authority in provision.json.")
        ) from error
    names = leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    device = str(names[0].value) if len(names) == 1 else ""
    if not is_device_id(device) or _uris(leaf) != [SPIFFE + device]:
        raise StateError(_("The certificate does not name a device."))
    return device


def _public(key: Any) -> bytes:
    return cast(bytes, key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def _uris(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    return names.get_values_for_type(x509.UniformResourceIdentifier)


# --- enrolment: the steps that touch the disk; agent.enrolment talks to the portal ---------------


def claim(state: Path, provision: Provision, key: Key | None = None) -> bytes:
    """The body of the enrolment request, for the device's key unless another is given. The keys are
    on disk before it exists."""
    key, audit = key or device_key(state), audit_key(state)
    public = audit.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return msgspec.json.encode(
        {
            "v": 1,
            "claim": provision.claim,
            "serial": provision.serial,
            "product_line": provision.product_line,
            "csr": signing_request(key),
            "audit_key": public,
        }
    )


def accept(state: Path, provision: Provision, body: bytes, key: Key | None = None) -> Identity:
    """Check the portal's answer for this key and keep it, the certificate last.

    Raises EnrolmentRefused when the answer is not for this injector, StateError for the disk.
    """
    try:
        granted = msgspec.json.decode(body, type=Granted)
        certificates = tuple(
            x509.load_pem_x509_certificate(pem.encode()) for pem in granted.certificates
        )
        public = (key or device_key(state)).public_key()
        device = check_certificates(certificates, public, provision.anchors)
    except (msgspec.DecodeError, UnicodeError, ValueError, StateError) as error:
        raise EnrolmentRefused(
            _("The server's answer cannot be used: {error}").format(error=error)
        ) from error
    if device != granted.device:
        raise EnrolmentRefused(_("The server's answer names two devices."))
    _write(state / SERVERS, msgspec.json.encode(granted.access_servers))
    return keep_certificates(state, certificates)


def keep_certificates(state: Path, certificates: tuple[x509.Certificate, ...]) -> Identity:
    """Put certificates that were checked in the place of those in use. Raises StateError."""
    chain = b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)
    _write(state / "device.pem", chain)
    identity = load(state)
    if identity is None:  # removed by someone between the last line and this
        raise StateError(_("{path} is missing.").format(path=state / "device.pem"))
    return identity


def days_left(identity: Identity, now_ms: int) -> float:
    now = datetime.fromtimestamp(now_ms / 1000, UTC)
    return (identity.expires_at - now).total_seconds() / 86400
