"""The portal's certificate authorities, as files under $PATENCY_DATA/ca (0700, keys 0600).

    device-root.pem          anchored in every device and in every client; its key is kept offline
    device-ca.pem .key       the intermediate that issues devices' credentials
    device-ca-<serial>.pem   earlier ones, while what they issued may be good
    device-ca-next.key       of the one that was asked for (fleet.enrolment.ceremony)
    server-ca.pem .key       anchored in every device
    server.pem .key          the gate's and the web's certificate
    audit.key                signs audit heads (fleet.audit.keys)

The device root's key goes to a folder of its own ($PATENCY_DATA/trust in the demo), to be taken
away from this machine. A leaf is made of what the claim says; a CSR gives its public key and
nothing else.

Injectors believe these files and no others, so new ones are made beside the folder (`.ca-draft`)
and take its place whole, once, when there is nothing in it. A file that is missing later is lost,
and is never a reason to make new authorities: `lost` says what brings it back.
"""

import ipaddress
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from django.conf import settings
from django.utils.translation import gettext as _

from fleet.audit import keys as audit_keys
from fleet.core.errors import Conflict, Invalid
from fleet.core.files import put_in_place, write_private

SPIFFE = "spiffe://patency/device/"
LEAF_LIFE = timedelta(days=30)
SERVER_LIFE = timedelta(days=397)
INTERMEDIATE_LIFE = timedelta(days=5 * 365)
ROOT_LIFE = timedelta(days=25 * 365)  # longer than an injector
_SKEW = timedelta(hours=1)  # a device's clock may be a little behind
DEFAULT_HOSTS = ("localhost", "127.0.0.1")
NEXT_KEY = "device-ca-next.key"
NEEDED = (
    "audit.key", "device-root.pem", "device-ca.pem", "device-ca.key", "server-ca.pem",
    "server-ca.key", "server.pem", "server.key",
)  # fmt: skip


def folder() -> Path:
    return Path(settings.PATENCY_DATA) / "ca"


def offline_folder() -> Path:
    """Where `ca init` leaves the root's key, unless told otherwise."""
    return Path(settings.PATENCY_DATA) / "trust"


@dataclass(frozen=True, slots=True)
class Pair:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def exists() -> bool:
    """Whether `init` has been run here, even if some of what it made is lost since."""
    return any(path.suffix in (".pem", ".key") for path in _kept())


def _kept() -> list[Path]:
    return sorted(folder().iterdir()) if folder().is_dir() else []


def missing() -> list[Path]:
    """The files that must be there and are not; none before `init`, and not those of a device CA
    that the root has yet to sign."""
    if not exists():
        return []
    awaited = ("device-ca.pem", "device-ca.key") if (folder() / NEXT_KEY).exists() else ()
    return [
        folder() / name for name in NEEDED if name not in awaited and not (folder() / name).exists()
    ]


def lost(path: Path) -> Conflict:
    """What to do about a file that is missing or damaged."""
    if path.stem == "server":
        return Conflict(
            _(
                "%(file)s is missing or damaged. No injector trusts it by itself, so make another,"
                " with every name and address that injectors use:"
                " manage.py ca renew-server --host NAME"
            )
            % {"file": path}
        )
    return Conflict(
        _(
            "%(file)s is missing or damaged. Restore it from a backup: injectors trust no other."
            " Move %(folder)s away, then: manage.py ca restore FILE --passphrase-file WORDS"
        )
        % {"file": path, "folder": path.parent}
    )


def begin(root: x509.Certificate, *, now: datetime, hosts: Sequence[str] = DEFAULT_HOSTS) -> None:
    """Make what the portal makes by itself when the device root is made elsewhere. Raises Conflict
    when there are authorities: devices believe only those."""
    _must_be_first()
    with _drafted() as draft:
        _make_own(draft, root, hosts=hosts, now=now)


def init(
    *, now: datetime, hosts: Sequence[str] = DEFAULT_HOSTS, offline: Path | None = None
) -> None:
    """Make every authority, the root too. Raises Conflict when there are some: devices believe only
    those."""
    _must_be_first()
    apart = offline or offline_folder()
    _must_be_no_root(apart)
    with _drafted() as draft:
        root = authority("Patency device root", None, now, ROOT_LIFE)
        _make_own(draft, root.certificate, hosts=hosts, now=now)
        write("device-ca", authority("Patency device CA", root, now, INTERMEDIATE_LIFE), into=draft)
        write("device-root", root, into=apart)


def _make_own(draft: Path, root: x509.Certificate, *, hosts: Sequence[str], now: datetime) -> None:
    audit_keys.create(draft)
    write_private(draft / "device-root.pem", root.public_bytes(Encoding.PEM))
    server_ca = authority("Patency server CA", None, now, ROOT_LIFE)
    write("server-ca", server_ca, into=draft)
    write("server", server_pair(hosts=hosts, now=now, issuer=server_ca), into=draft)


def _draft() -> Path:
    return Path(settings.PATENCY_DATA) / ".ca-draft"


@contextmanager
def _drafted() -> Iterator[Path]:
    """A folder that becomes ours when everything in it was made; what an earlier one left that did
    not come so far was never believed by anybody."""
    shutil.rmtree(_draft(), ignore_errors=True)
    yield _draft()
    put_in_place(_draft(), folder())


def _must_be_first() -> None:
    if exists():
        told = _(
            "There are certificate authorities in %(folder)s already. "
            "Keep them: devices trust them."
        ) % {"folder": folder()}
        raise Conflict(" ".join([told, *(lost(path).message for path in missing())]))
    if _kept():
        raise Conflict(_("%(folder)s is not empty. Move it away first.") % {"folder": folder()})


def _must_be_no_root(apart: Path) -> None:
    """A root that lies there has its authorities, elsewhere or in a backup; unless it was made a
    moment ago, by an `init` that did not come to its end."""
    path = apart / "device-root.key"
    if not path.exists():
        return
    drafted = _draft() / "device-root.pem"
    try:
        ours = x509.load_pem_x509_certificate(drafted.read_bytes()).public_key()
        if _key(path).public_key() == ours:
            return
    except (OSError, TypeError, ValueError):
        pass  # nothing that was begun, or another's key
    raise Conflict(
        _(
            "%(file)s is the key of a root, and its authorities are not in %(folder)s. Restore"
            " them: manage.py ca restore FILE --passphrase-file WORDS. If no injector trusts that"
            " root, move the file away first."
        )
        % {"file": path, "folder": folder()}
    )


def issue_server(*, hosts: Sequence[str], now: datetime) -> None:
    """A new certificate for the gate and the web; the files are replaced together or not at all."""
    write("server", server_pair(hosts=hosts, now=now))


def server_hosts() -> list[str]:
    """The names and addresses in the server's certificate. Raises Invalid when there is none that
    can be read: then they must be said."""
    try:
        data = (folder() / "server.pem").read_bytes()
        return hosts_of(x509.load_pem_x509_certificate(data))
    except (OSError, ValueError) as error:
        raise Invalid(
            _(
                "There is no certificate to take the names from. Say every name and address that"
                " injectors use: manage.py ca renew-server --host NAME"
            )
        ) from error


def hosts_of(certificate: x509.Certificate) -> list[str]:
    """The names and addresses of a server's certificate, in its order."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(name.value) for name in names if isinstance(name, x509.DNSName | x509.IPAddress)]


def server_pair(*, hosts: Sequence[str], now: datetime, issuer: Pair | None = None) -> Pair:
    """A key and its certificate for a server that devices reach by these names and addresses."""
    issuer = issuer or load("server-ca")
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        leaf_builder(hosts[0], issuer, key.public_key(), now, SERVER_LIFE)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False)
        .sign(issuer.key, SHA256())
    )
    return Pair(certificate, key)


def issue_device(
    device: str, public_key: ec.EllipticCurvePublicKey, *, now: datetime
) -> x509.Certificate:
    """A credential for `device`: names, life and uses are ours to say, the key is the device's."""
    issuer = load("device-ca")
    return (
        _builder(_name(device), issuer.certificate.subject, public_key, now, LEAF_LIFE)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(SPIFFE + device)]),
            critical=False,
        )
        .add_extension(_issuer_id(issuer), critical=False)
        .sign(issuer.key, SHA256())
    )


def pem(name: str) -> str:
    """The certificate `name` of the list above. Raises Conflict before `ca init`, and for a file
    that is lost."""
    path = folder() / f"{name}.pem"
    if path.exists():
        return path.read_text()
    if not exists():
        raise Conflict(
            _("There are no certificate authorities yet. Make them with: manage.py ca init")
        )
    if name == "device-ca" and (folder() / NEXT_KEY).exists():
        raise Conflict(
            _("%(file)s is missing. Have the root sign it, then run: manage.py ca import")
            % {"file": path}
        )
    raise lost(path)


def issuer_of(leaf: x509.Certificate) -> x509.Certificate:
    """The intermediate that issued a device's certificate: the one in use, or an earlier one.

    Raises Conflict when it is not kept here."""
    for certificate in intermediates():
        if certificate.subject == leaf.issuer:
            return certificate
    raise Conflict(
        _("The authority of this certificate is missing in %(folder)s. Restore it from a backup.")
        % {"folder": folder()}
    )


def intermediates() -> list[x509.Certificate]:
    """Those that issue or issued credentials, the one in use first."""
    return [
        x509.load_pem_x509_certificate(path.read_bytes())
        for path in sorted(folder().glob("device-ca*.pem"), key=lambda path: path.stem)
    ]


def public_digest(key: ec.EllipticCurvePublicKey) -> bytes:
    """The DER SubjectPublicKeyInfo, which names a key whatever certificate it is in."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


# --- making and keeping -----------------------------------------------------------------------


def authority(name: str, issuer: Pair | None, now: datetime, life: timedelta) -> Pair:
    """A certificate authority, self-signed without an issuer; a random tail makes its name
    unique."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name(f"{name} {secrets.token_hex(4)}")
    signer = issuer.key if issuer else key
    builder = _authority_builder(name, subject, key.public_key(), issuer, now, life)
    return Pair(builder.sign(signer, SHA256()), key)


def intermediate(
    key: ec.EllipticCurvePublicKey, *, issuer: Pair, now: datetime
) -> x509.Certificate:
    """A device CA for a key that is elsewhere."""
    name = "Patency device CA"
    subject = _name(f"{name} {secrets.token_hex(4)}")
    builder = _authority_builder(name, subject, key, issuer, now, INTERMEDIATE_LIFE)
    return builder.sign(issuer.key, SHA256())


def _authority_builder(
    name: str,
    subject: x509.Name,
    key: ec.EllipticCurvePublicKey,
    issuer: Pair | None,
    now: datetime,
    life: timedelta,
) -> x509.CertificateBuilder:
    builder = (
        _builder(subject, issuer.certificate.subject if issuer else subject, key, now, life)
        # No authority below the intermediate, nor below the server CA, ever.
        .add_extension(
            x509.BasicConstraints(ca=True, path_length=1 if name.endswith("root") else 0),
            critical=True,
        )
        .add_extension(_usage(ca=True), critical=True)
    )
    if issuer is not None:
        builder = builder.add_extension(_issuer_id(issuer), critical=False)
    return builder


def leaf_builder(
    name: str, issuer: Pair, key: ec.EllipticCurvePublicKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    """What every certificate that is no authority has; uses and names are the caller's."""
    return (
        _builder(_name(name), issuer.certificate.subject, key, now, life)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(ca=False), critical=True)
        .add_extension(_issuer_id(issuer), critical=False)
    )


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: datetime,
    life: timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _issuer_id(issuer: Pair) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def write(name: str, pair: Pair, *, into: Path | None = None) -> None:
    key = pair.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_private((into or folder()) / f"{name}.key", key)
    write_private((into or folder()) / f"{name}.pem", pair.certificate.public_bytes(Encoding.PEM))


def load(name: str) -> Pair:
    """An authority with its key. Raises Conflict."""
    settle(name)
    certificate = x509.load_pem_x509_certificate(pem(name).encode())
    key = folder() / f"{name}.key"
    if not key.exists():
        raise lost(key)
    return Pair(certificate, _key(key))


def settle(name: str) -> None:
    """A certificate that was replaced names its key: one that is still `-next` takes its place, so
    that a crash between the two does no harm."""
    following, certificate = folder() / f"{name}-next.key", folder() / f"{name}.pem"
    if not following.exists() or not certificate.exists():
        return
    wanted = x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()
    if _key(following).public_key() == wanted:
        following.replace(folder() / f"{name}.key")


def _key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError(f"{path.name} is not an elliptic-curve key")
    return key
