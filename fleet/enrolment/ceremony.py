"""The offline root's ceremony, rotating the intermediate, and a backup (docs/ca.md).

Theory of operation. Devices anchor the root and nothing below it, and send their whole chain, so an
intermediate can be replaced without touching one of them:

    offline machine                      portal
    make_root ── device-root.pem ──────▶ ca.begin: everything but the intermediate, its request
    sign      ◀──── request ──────────── ask: device-ca-next.key stays here
       └─────────── certificate ───────▶ take_in: new credentials come from it from now on

What the earlier intermediate issued stays good until it ends; its certificate is kept beside the
new one for as long. `take_in` replaces the certificate, which names its key; a crash before the key
has its place is put right when the pair is next looked at (`ca.settle`).
"""

import io
import os
import tarfile
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from django.utils.translation import gettext as _

from fleet.core.errors import Conflict, Invalid
from fleet.core.files import write_private
from fleet.enrolment import ca, requests

ROOT = "device-root"
LEAST_PASSPHRASE = 12  # characters
MAX_BACKUP = 4 * 1024 * 1024  # bytes
_MAGIC = b"patency ca backup 1\n"


# --- on the offline machine -------------------------------------------------------------------


def make_root(folder: Path, *, now: datetime, passphrase: str | None = None) -> x509.Certificate:
    """A device root in `folder`: device-root.pem to give away, device-root.key to lock away.

    Raises Conflict when there is one, Invalid for a passphrase that is too short.
    """
    if (folder / f"{ROOT}.key").exists():
        raise Conflict(
            _("There is a root in %(folder)s already. Devices trust it: keep it.")
            % {"folder": folder}
        )
    root = ca.authority("Patency device root", None, now, ca.ROOT_LIFE)
    sealed = BestAvailableEncryption(_strong(passphrase)) if passphrase else NoEncryption()
    key = root.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, sealed)
    write_private(folder / f"{ROOT}.key", key)
    write_private(folder / f"{ROOT}.pem", root.certificate.public_bytes(Encoding.PEM))
    return root.certificate


def sign(
    request: bytes, *, root: Path, now: datetime, passphrase: str | None = None
) -> x509.Certificate:
    """An intermediate for the key of a request; name, life and powers are the root's to say.

    Raises Invalid for the request or the passphrase, Conflict without a root in `root`.
    """
    key = requests.read_pem(request.decode(errors="replace"))
    return ca.intermediate(key, issuer=_load_root(root, passphrase), now=now)


def _load_root(folder: Path, passphrase: str | None) -> ca.Pair:
    try:
        certificate = x509.load_pem_x509_certificate((folder / f"{ROOT}.pem").read_bytes())
        sealed = (folder / f"{ROOT}.key").read_bytes()
    except (OSError, ValueError) as error:
        raise Conflict(
            _("%(folder)s holds no root: device-root.pem and device-root.key must be there.")
            % {"folder": folder}
        ) from error
    try:
        key = load_pem_private_key(sealed, passphrase.encode() if passphrase else None)
    except (ValueError, TypeError) as error:
        raise Invalid(_("The root's key does not open with this passphrase.")) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != (
        certificate.public_key()
    ):
        raise Conflict(_("The root's key and its certificate do not belong together."))
    return ca.Pair(certificate, key)


# --- at the portal ----------------------------------------------------------------------------


def ask() -> bytes:
    """A request (PEM) for the next intermediate. Its key is made here and stays; asking again
    before the answer is in gives a request for the same key."""
    path = ca.folder() / ca.NEXT_KEY
    if not path.exists():
        made = ec.generate_private_key(ec.SECP256R1())
        pem = made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        write_private(path, pem)
    key = load_pem_private_key(path.read_bytes(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise Conflict(_("%(path)s holds another kind of key. Remove it.") % {"path": path})
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, SHA256()).public_bytes(Encoding.PEM)


def take_in(pem: bytes, *, now: datetime) -> x509.Certificate:
    """Issue credentials with this intermediate from now on. Raises Invalid for one that is not for
    the key asked for, not from the root that devices trust, or no authority for devices alone."""
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        key = certificate.public_key()
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except (ValueError, x509.ExtensionNotFound) as error:
        raise Invalid(_("This is no certificate of an authority.")) from error
    path = ca.folder() / ca.NEXT_KEY
    asked = load_pem_private_key(path.read_bytes(), None) if path.exists() else None
    if not isinstance(asked, ec.EllipticCurvePrivateKey) or asked.public_key() != key:
        raise Invalid(_("This certificate is not for the key asked for: manage.py ca request"))
    _check(certificate, basic, now)
    current = ca.folder() / "device-ca.pem"
    if current.exists():
        before = x509.load_pem_x509_certificate(current.read_bytes())
        kept = ca.folder() / f"device-ca-{before.serial_number:x}.pem"
        write_private(kept, current.read_bytes())
    write_private(current, certificate.public_bytes(Encoding.PEM))
    ca.settle("device-ca")
    return certificate


def _check(certificate: x509.Certificate, basic: x509.BasicConstraints, now: datetime) -> None:
    root = x509.load_pem_x509_certificate(ca.pem(ROOT).encode())
    try:
        certificate.verify_directly_issued_by(root)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise Invalid(
            _("This certificate does not come from the root that devices trust.")
        ) from error
    if not basic.ca or basic.path_length != 0:
        raise Invalid(_("An intermediate must be an authority for devices and nothing below it."))
    if not certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc:
        raise Invalid(_("This certificate is not valid now. Check the date of both machines."))


# --- backup -----------------------------------------------------------------------------------


def backup(passphrase: str) -> bytes:
    """Everything under the portal's ca folder, sealed (scrypt, AES-256-GCM). Raises Invalid,
    Conflict."""
    secret = _strong(passphrase)
    if not ca.exists():
        raise Conflict(_("There is nothing to back up yet. Make it with: manage.py ca init"))
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for path in sorted(ca.folder().iterdir()):
            if path.is_file() and not path.name.startswith("."):
                info = tarfile.TarInfo(path.name)
                data = path.read_bytes()
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    salt, nonce = os.urandom(16), os.urandom(12)
    sealed = AESGCM(_stretch(secret, salt)).encrypt(nonce, packed.getvalue(), _MAGIC)
    return _MAGIC + salt + nonce + sealed


def restore(sealed: bytes, passphrase: str) -> list[str]:
    """Put a backup in place of nothing. Returns the names of the files. Raises Conflict when there
    are authorities already, Invalid for what does not open."""
    folder = ca.folder()
    if folder.exists() and any(folder.iterdir()):
        raise Conflict(_("%(folder)s is not empty. Move it away first.") % {"folder": folder})
    at = len(_MAGIC)
    if not sealed.startswith(_MAGIC) or len(sealed) > MAX_BACKUP:
        raise Invalid(_("This is no backup of the authorities."))
    salt, nonce, body = sealed[at : at + 16], sealed[at + 16 : at + 28], sealed[at + 28 :]
    try:
        packed = AESGCM(_stretch(passphrase.encode(), salt)).decrypt(nonce, body, _MAGIC)
    except (InvalidTag, ValueError) as error:
        raise Invalid(
            _(
                "The backup does not open: this is not its passphrase, or the file is damaged. Try"
                " the passphrase again, then another copy."
            )
        ) from error
    names = []
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        for info in tar:
            file = tar.extractfile(info) if info.isreg() else None
            if file is not None and Path(info.name).name == info.name:
                write_private(folder / info.name, file.read())
                names.append(info.name)
    return names


def _stretch(secret: bytes, salt: bytes) -> bytes:
    return Scrypt(salt=salt, length=32, n=2**15, r=8, p=1).derive(secret)


def _strong(passphrase: str) -> bytes:
    if len(passphrase) < LEAST_PASSPHRASE:
        raise Invalid(
            _("A passphrase has at least %(least)d characters.") % {"least": LEAST_PASSPHRASE}
        )
    return passphrase.encode()
