"""Where the private key of the credential lives: the seam for a hardware key store (R-CON-6).

Theory. A credential has two slots: CURRENT, whose key the certificate in use is for, and NEXT, a
key that was born for a renewal and is not certified yet. A key is made in a slot, signs there, and
never leaves; nobody outside this module sees a private number. A swap is `promote`: NEXT takes the
place of CURRENT, at once or not at all.

`FileKeys` keeps each key as a PEM file in the state directory. A store on a TPM or a secure element
implements the same two protocols over its own handles, with `load_into` giving OpenSSL whatever its
provider reads (a TSS2 key file, for one), and is chosen in `of`; nothing else of the agent changes.
The audit key is not in here: it must outlive every credential, and it signs with Ed25519.
"""

import ssl
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from agent import advice, posix
from agent.errors import StateError
from agent.i18n import _

MAX_FILE = 64 * 1024  # bytes of a key file


class Slot(StrEnum):
    """The value names the file of `FileKeys`."""

    CURRENT = "device"
    NEXT = "device-next"


class Key(Protocol):
    """A P-256 private key, wherever it is."""

    def public_key(self) -> ec.EllipticCurvePublicKey: ...

    def sign(self, data: bytes) -> bytes:
        """ECDSA with SHA-256, DER."""

    def signing_request(self) -> x509.CertificateSigningRequest:
        """A CSR that proves the key and asks for no name: the portal decides."""

    def load_into(self, context: ssl.SSLContext, chain: Path) -> None:
        """Have the context show the certificates in `chain` (PEM) with this key.

        Raises: OSError, ssl.SSLError when they do not fit together."""


class KeyStore(Protocol):
    """The keys of one device. Every method may wait for a disk or a chip; all raise StateError."""

    def get(self, slot: Slot) -> Key | None: ...

    def make(self, slot: Slot) -> Key:
        """A new key in an empty slot, safely kept when this returns."""

    def promote(self) -> None:
        """NEXT becomes CURRENT, whose key is gone; after a crash it is the one or the other."""


def of(state: Path) -> KeyStore:
    """The key store of the device with this state directory."""
    return FileKeys(state)


class FileKey:
    def __init__(self, path: Path, key: ec.EllipticCurvePrivateKey) -> None:
        self._path = path
        self._key = key

    def public_key(self) -> ec.EllipticCurvePublicKey:
        return self._key.public_key()

    def sign(self, data: bytes) -> bytes:
        return self._key.sign(data, ec.ECDSA(SHA256()))

    def signing_request(self) -> x509.CertificateSigningRequest:
        builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        return builder.sign(self._key, SHA256())

    def load_into(self, context: ssl.SSLContext, chain: Path) -> None:
        context.load_cert_chain(chain, self._path)


class FileKeys:
    """PEM files, mode 0600. One that others may read is refused, as it may be a secret no more."""

    def __init__(self, state: Path) -> None:
        self._state = state

    def _path(self, slot: Slot) -> Path:
        return self._state / f"{slot.value}.key"

    def get(self, slot: Slot) -> FileKey | None:
        path = self._path(slot)
        if not path.exists():
            return None
        key = read_private(path)
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
            raise StateError(_("{path} is not a P-256 key.").format(path=path))
        return FileKey(path, key)

    def make(self, slot: Slot) -> FileKey:
        key = ec.generate_private_key(ec.SECP256R1())
        write_private(self._path(slot), key)
        return FileKey(self._path(slot), key)

    def promote(self) -> None:
        path = self._path(Slot.NEXT)
        try:
            path.replace(self._path(Slot.CURRENT))
            posix.sync_dir(self._state)
        except OSError as error:
            raise StateError(
                _("{path} cannot be put in its place: {error}.").format(
                    path=path, error=error.strerror
                )
            ) from error


class _Serialisable(Protocol):
    def private_bytes(
        self, encoding: Encoding, format: PrivateFormat, encryption: NoEncryption, /
    ) -> bytes: ...


def read_private(path: Path) -> object:
    """The private key in a PEM file that nobody else may read. Raises StateError."""
    posix.check_private_file(path)
    try:
        if path.stat().st_size > MAX_FILE:
            raise StateError(
                _("{path} is larger than {limit} bytes.").format(path=path, limit=MAX_FILE)
            )
        return load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise StateError(
            _("{path} cannot be read: {error}.").format(path=path, error=error.strerror)
        ) from error
    except (ValueError, TypeError) as error:  # its words are for programmers
        raise StateError(_damaged(path)) from error


def missing(state: Path) -> str:
    """That the key of the certificate is gone, and a way out. None is made in its place: the portal
    would take it for another machine's."""
    path = state / f"{Slot.CURRENT.value}.key"
    wrong = _(
        "{path} is missing: it is the key of this injector's certificate. Put a backup of it in its"
        " place."
    ).format(path=path)
    return f"{wrong} {_new_bundle(state)}"


def _new_bundle(state: Path) -> str:
    return _(
        "If there is none, ask device support for a new provisioning bundle, put it in the "
        "place of {bundle}, put the old identity aside: {command}  Then start the agent."
    ).format(bundle=state / "provision.json", command=advice.aside(state, "device.*"))


def _damaged(path: Path) -> str:
    """What is wrong, and a way out for each key."""
    state = path.parent
    wrong = _(
        "{path} is damaged: it holds no key that can be read. Put a backup of it in its place."
    ).format(path=path)
    if path.stem == Slot.CURRENT:
        remedy = _new_bundle(state)
    elif path.stem == Slot.NEXT:
        remedy = _("If there is none, let the renewal begin again: {command}").format(
            command=advice.aside(state, path.name)
        )
    else:
        remedy = _("If there is none, call device support.")
    return f"{wrong} {remedy}"


def write_private(path: Path, key: _Serialisable) -> None:
    """Raises StateError."""
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        posix.write_private(path, pem)
    except OSError as error:
        raise StateError(
            _("{path} cannot be written: {error}.").format(path=path, error=error.strerror)
        ) from error
