"""SSH signatures (OpenSSH PROTOCOL.sshsig), Ed25519 only: what `ssh-keygen -Y sign` makes."""

import base64
import hashlib

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

MAGIC = b"SSHSIG"
NAMESPACE = "access@patency"
_TYPE = b"ssh-ed25519"
_HASHES = {b"sha256": hashlib.sha256, b"sha512": hashlib.sha512}


class SignatureError(ValueError):
    """Not a signature, not for this namespace, or not of this message."""


def _string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def _take(blob: memoryview, at: int) -> tuple[bytes, int]:
    end = at + 4 + int.from_bytes(blob[at : at + 4], "big")
    if at + 4 > len(blob) or end > len(blob):
        raise SignatureError("the signature is cut short")
    return bytes(blob[at + 4 : end]), end


def _signed_data(namespace: str, algorithm: bytes, message: bytes) -> bytes:
    digest = _HASHES[algorithm](message).digest()
    return MAGIC + _string(namespace.encode()) + _string(b"") + _string(algorithm) + _string(digest)


def public_blob(key: bytes) -> bytes:
    """The SSH wire form of a raw 32-byte Ed25519 public key."""
    return _string(_TYPE) + _string(key)


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
    """The raw Ed25519 public key that signed `message`. Raises SignatureError.

    Says who signed, not whether to believe them: that is the roster's answer.
    """
    view = memoryview(blob)
    if bytes(view[:6]) != MAGIC or int.from_bytes(view[6:10], "big") != 1:
        raise SignatureError("not an SSH signature, version 1")
    fields, at = [], 10
    for _ in range(5):
        field, at = _take(view, at)
        fields.append(field)
    public, spoken, reserved, algorithm, signature = fields
    if at != len(view) or reserved:
        raise SignatureError("the signature has bytes that mean nothing")
    if spoken != namespace.encode():
        raise SignatureError("the signature is for another purpose")
    if algorithm not in _HASHES:
        raise SignatureError("the signature's hash is neither sha256 nor sha512")
    if len(public) != len(public_blob(bytes(32))) or public[:-32] != public_blob(bytes(32))[:-32]:
        raise SignatureError("not an Ed25519 key")
    prefix = _string(_TYPE) + (64).to_bytes(4, "big")
    if len(signature) != len(prefix) + 64 or not signature.startswith(prefix):
        raise SignatureError("not an Ed25519 signature")
    key = public[-32:]
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(
            signature[-64:], _signed_data(namespace, algorithm, message)
        )
    except InvalidSignature:
        raise SignatureError("the signature does not match") from None
    return key


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
