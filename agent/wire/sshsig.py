"""SSH signatures (OpenSSH PROTOCOL.sshsig), as `ssh-keygen -Y sign` makes them.

Two kinds of key: Ed25519 in a file or an agent, and Ed25519 in a security key (`sk-ssh-ed25519`,
OpenSSH PROTOCOL.u2f), which signs only while somebody touches it.
"""

import base64
import hashlib
import struct
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

MAGIC = b"SSHSIG"
NAMESPACE = "access@patency"
MAX_PUBLIC = 160  # bytes of a public key's SSH form
_TYPE = b"ssh-ed25519"
_SK_TYPE = b"sk-ssh-ed25519@openssh.com"
_HASHES = {b"sha256": hashlib.sha256, b"sha512": hashlib.sha512}
_SK_TAIL = struct.Struct(">BI")  # flags, counter
_TOUCHED = 0x01


class SignatureError(ValueError):
    """Not a signature, not for this namespace, or not of this message."""


@dataclass(frozen=True, slots=True)
class Public:
    """A public key by its SSH form; `application` of a security key, empty otherwise."""

    key: Ed25519PublicKey
    application: bytes = b""

    @property
    def is_hardware(self) -> bool:
        return bool(self.application)


def _string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def _take(blob: memoryview, at: int) -> tuple[bytes, int]:
    end = at + 4 + int.from_bytes(blob[at : at + 4], "big")
    if at + 4 > len(blob) or end > len(blob):
        raise SignatureError("the signature is cut short")
    return bytes(blob[at + 4 : end]), end


def _fields(blob: bytes, count: int, at: int = 0) -> tuple[list[bytes], int]:
    view, fields = memoryview(blob), []
    for _ in range(count):
        field, at = _take(view, at)
        fields.append(field)
    return fields, at


def _signed_data(namespace: str, algorithm: bytes, message: bytes) -> bytes:
    digest = _HASHES[algorithm](message).digest()
    return MAGIC + _string(namespace.encode()) + _string(b"") + _string(algorithm) + _string(digest)


def public_blob(key: bytes) -> bytes:
    """The SSH wire form of a raw 32-byte Ed25519 public key."""
    return _string(_TYPE) + _string(key)


def public(blob: bytes) -> Public:
    """The key in this SSH form, which is one of the two kinds. Raises SignatureError."""
    fields, at = _fields(blob, 2)
    application = b""
    if fields[0] == _SK_TYPE:
        (application,), at = _fields(blob, 1, at)
        if not application.startswith(b"ssh:") or len(application) > 64:
            raise SignatureError("the security key was made for something else than SSH")
    elif fields[0] != _TYPE:
        raise SignatureError("not an Ed25519 key")
    if at != len(blob) or len(fields[1]) != 32:
        raise SignatureError("not an Ed25519 key")
    return Public(Ed25519PublicKey.from_public_bytes(fields[1]), application)


def sign(key: Ed25519PrivateKey, message: bytes, namespace: str = NAMESPACE) -> bytes:
    """The binary signature (no armour)."""
    signature = key.sign(_signed_data(namespace, b"sha512", message))
    return (
        MAGIC
        + (1).to_bytes(4, "big")
        + _string(public_blob(key.public_key().public_bytes_raw()))
        + _string(namespace.encode())
        + _string(b"")
        + _string(b"sha512")
        + _string(_string(_TYPE) + _string(signature))
    )


def verify(blob: bytes, message: bytes, namespace: str = NAMESPACE) -> bytes:
    """The SSH form of the public key that signed `message`. Raises SignatureError.

    Says who signed, not whether to believe them: that is the roster's answer.
    """
    view = memoryview(blob)
    if bytes(view[:6]) != MAGIC or int.from_bytes(view[6:10], "big") != 1:
        raise SignatureError("not an SSH signature, version 1")
    (signer, spoken, reserved, algorithm, signature), at = _fields(blob, 5, 10)
    if at != len(view) or reserved:
        raise SignatureError("the signature has bytes that mean nothing")
    if spoken != namespace.encode():
        raise SignatureError("the signature is for another purpose")
    if algorithm not in _HASHES:
        raise SignatureError("the signature's hash is neither sha256 nor sha512")
    _check(public(signer), signature, _signed_data(namespace, algorithm, message))
    return signer


def _check(signer: Public, signature: bytes, signed: bytes) -> None:
    """Raises SignatureError."""
    (kind, made), at = _fields(signature, 2)
    tail = signature[at:]
    if kind != (_SK_TYPE if signer.is_hardware else _TYPE) or len(made) != 64:
        raise SignatureError("not an Ed25519 signature of this key's kind")
    if signer.is_hardware:
        if len(tail) != _SK_TAIL.size:
            raise SignatureError("the security key's signature is cut short")
        if not tail[0] & _TOUCHED:
            raise SignatureError("nobody touched the security key")
        application = hashlib.sha256(signer.application).digest()
        signed = application + tail + hashlib.sha256(signed).digest()
    elif tail:
        raise SignatureError("the signature has bytes that mean nothing")
    try:
        signer.key.verify(made, signed)
    except InvalidSignature:
        raise SignatureError("the signature does not match") from None


def public_line(text: str) -> bytes:
    """The SSH form in a line of a `.pub` file: type, base64, and a comment that says nothing.
    Raises SignatureError."""
    words = text.split()
    try:
        blob = base64.b64decode(words[1] if len(words) > 1 else words[0], validate=True)
    except (IndexError, ValueError):
        raise SignatureError("not a public key as a .pub file has it") from None
    public(blob)
    return blob


_BEGIN = "-----BEGIN SSH SIGNATURE-----"
_END = "-----END SSH SIGNATURE-----"


def armour(blob: bytes) -> str:
    """The text form that `ssh-keygen -Y` writes and reads."""
    text = base64.b64encode(blob).decode()
    lines = [text[at : at + 70] for at in range(0, len(text), 70)]
    return "\n".join([_BEGIN, *lines, _END, ""])


def unarmour(text: str) -> bytes:
    """The binary signature in the text form. Raises SignatureError."""
    lines = text.strip().splitlines()
    if len(lines) < 3 or lines[0] != _BEGIN or lines[-1] != _END:
        raise SignatureError("not an SSH signature in text form")
    try:
        return base64.b64decode("".join(lines[1:-1]), validate=True)
    except ValueError:
        raise SignatureError("not an SSH signature in text form") from None
