"""A security key and a passkey in software: what the hardware would sign, and a thief's tricks.

Layouts: W3C Web Authentication Level 3, 6.1 and 5.8.1; OpenSSH PROTOCOL.u2f.
"""

import base64
import hashlib
import json
import struct
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from fido2 import cbor

from agent.wire import roster, sshsig
from agent.wire.messages import PasskeyProof

ORIGIN = "https://access.example.org"
USER_PRESENT, USER_VERIFIED = 0x01, 0x04


@dataclass
class Authenticator:
    """A passkey of `origin`, ES256 or EdDSA."""

    origin: str = ORIGIN
    key: ec.EllipticCurvePrivateKey | Ed25519PrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )
    id: bytes = b"credential-0001!"
    counter: int = 0

    @property
    def public(self) -> bytes:
        """The COSE key (RFC 9053)."""
        if isinstance(self.key, Ed25519PrivateKey):
            raw = self.key.public_key().public_bytes_raw()
            return cbor.encode({1: 1, 3: -8, -1: 6, -2: raw})
        numbers = self.key.public_key().public_numbers()
        x, y = (n.to_bytes(32, "big") for n in (numbers.x, numbers.y))
        return cbor.encode({1: 2, 3: -7, -1: 1, -2: x, -3: y})

    @property
    def passkey(self) -> roster.Passkey:
        return roster.Passkey(id=self.id, key=self.public)

    def sign(
        self,
        challenge: bytes,
        *,
        origin: str | None = None,
        rp_id: str | None = None,
        type: str = "webauthn.get",
        flags: int = USER_PRESENT | USER_VERIFIED,
        framed: bool = False,
    ) -> PasskeyProof:
        origin = origin or self.origin
        host = rp_id or origin.split("//")[1].split(":")[0]
        self.counter += 1
        data = hashlib.sha256(host.encode()).digest() + struct.pack(">BI", flags, self.counter)
        client = json.dumps(
            {
                "type": type,
                "challenge": base64.urlsafe_b64encode(challenge).decode().rstrip("="),
                "origin": origin,
                "crossOrigin": framed,
            }
        ).encode()
        signed = data + hashlib.sha256(client).digest()
        if isinstance(self.key, Ed25519PrivateKey):
            signature = self.key.sign(signed)
        else:
            signature = self.key.sign(signed, ec.ECDSA(SHA256()))
        return PasskeyProof(
            id=self.id, authenticator_data=data, client_data=client, signature=signature
        )


def _string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


@dataclass
class SecurityKey:
    """An `sk-ssh-ed25519` key: signs while it is touched."""

    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    application: bytes = b"ssh:"
    counter: int = 0
    kind: bytes = b"sk-ssh-ed25519@openssh.com"

    @property
    def public(self) -> bytes:
        raw = self.key.public_key().public_bytes_raw()
        return _string(self.kind) + _string(raw) + _string(self.application)

    @property
    def line(self) -> str:
        return f"{self.kind.decode()} {base64.b64encode(self.public).decode()}"

    def sign(self, message: bytes, *, flags: int = USER_PRESENT) -> bytes:
        """SSHSIG in binary form."""
        self.counter += 1
        digest = hashlib.sha512(message).digest()
        inner = (
            sshsig.MAGIC
            + _string(sshsig.NAMESPACE.encode())
            + _string(b"")
            + _string(b"sha512")
            + _string(digest)
        )
        tail = struct.pack(">BI", flags, self.counter)
        signed = hashlib.sha256(self.application).digest() + tail + hashlib.sha256(inner).digest()
        made = _string(self.kind) + _string(self.key.sign(signed)) + tail
        return (
            sshsig.MAGIC
            + (1).to_bytes(4, "big")
            + _string(self.public)
            + _string(sshsig.NAMESPACE.encode())
            + _string(b"")
            + _string(b"sha512")
            + _string(made)
        )
