"""Whether the files of the authorities can be used: asked before anything is served with them."""

from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from django.utils.translation import gettext as _

from fleet.audit import keys as audit_keys
from fleet.core.errors import Conflict
from fleet.core.files import close_to_others, read_private
from fleet.enrolment import ca

_NEEDED = ("device-ca", "server")  # with their keys, whenever the portal runs


def check() -> None:
    """Certificates and keys are whole and belong together; keys are closed to other users.

    Raises Conflict, naming the first file that is not so. Does nothing before `ca init`.
    """
    if not ca.exists():
        return
    folder = ca.folder()
    if not (folder / "device-ca.pem").exists():
        ca.pem("device-ca")  # says what to do when the root has yet to sign it
    _settle()
    certificates = {path: _certificate(path) for path in sorted(folder.glob("*.pem"))}
    for name in _NEEDED:
        if not (folder / f"{name}.key").exists():
            raise _unusable(folder / f"{name}.key")
    for path in sorted(folder.glob("*.key")):
        if path == audit_keys.key_path():
            continue
        certificate = certificates.get(path.with_suffix(".pem"))
        if certificate is not None and _key(path) != certificate.public_key():
            raise _unusable(path)
    _check_audit_key(audit_keys.key_path())


def _settle() -> None:
    """Finish what a crash cut short when the intermediate was replaced."""
    try:
        ca.settle("device-ca")
    except (OSError, TypeError, ValueError) as error:
        raise _unusable(ca.folder() / "device-ca.pem") from error


def _certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise _unusable(path) from error


def _key(path: Path) -> ec.EllipticCurvePublicKey:
    try:
        key = load_pem_private_key(read_private(path), password=None)
    except (OSError, TypeError, ValueError) as error:
        raise _unusable(path) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise _unusable(path)
    return key.public_key()


def _check_audit_key(path: Path) -> None:
    try:
        if audit_keys.server_key() is None:
            raise _unusable(path)
        close_to_others(path)
    except (OSError, TypeError, ValueError) as error:
        raise _unusable(path) from error


def _unusable(path: Path) -> Conflict:
    return Conflict(
        _("%(file)s is missing or damaged. Restore it from a backup: injectors trust no other.")
        % {"file": path}
    )
