"""Whether the files of the authorities can be used: asked before anything is served with them."""

from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from fleet.audit import keys as audit_keys
from fleet.core.files import close_to_others, read_private
from fleet.enrolment import ca


def check() -> None:
    """Certificates and keys are whole and belong together; keys are closed to other users.

    Raises Conflict, naming the first file that is not so. Does nothing before `ca init`.
    """
    if not ca.exists():
        return
    folder = ca.folder()
    _settle()
    for path in ca.missing():
        raise ca.lost(path)
    if not (folder / "device-ca.pem").exists():
        ca.pem("device-ca")  # says what to do when the root has yet to sign it
    certificates = {path: _certificate(path) for path in sorted(folder.glob("*.pem"))}
    if not (folder / "device-ca.key").exists():
        raise ca.lost(folder / "device-ca.key")  # while the next one is asked for
    for path in sorted(folder.glob("*.key")):
        if path == audit_keys.key_path():
            continue
        certificate = certificates.get(path.with_suffix(".pem"))
        if certificate is not None and _key(path) != certificate.public_key():
            raise ca.lost(path)
    _check_audit_key(audit_keys.key_path())


def _settle() -> None:
    """Finish what a crash cut short when the intermediate was replaced."""
    try:
        ca.settle("device-ca")
    except (OSError, TypeError, ValueError) as error:
        raise ca.lost(ca.folder() / "device-ca.pem") from error


def _certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ca.lost(path) from error


def _key(path: Path) -> ec.EllipticCurvePublicKey:
    try:
        key = load_pem_private_key(read_private(path), password=None)
    except (OSError, TypeError, ValueError) as error:
        raise ca.lost(path) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ca.lost(path)
    return key.public_key()


def _check_audit_key(path: Path) -> None:
    try:
        if audit_keys.server_key() is None:
            raise ca.lost(path)
        close_to_others(path)
    except (OSError, TypeError, ValueError) as error:
        raise ca.lost(path) from error
