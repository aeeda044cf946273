"""End-to-end sealing of stream frames: X25519, HKDF-SHA256, AES-256-GCM.

Each frame is sealed once, kept until acknowledged and sent again byte-identical, so no nonce
is used for two plaintexts: nonce = stream (4 bytes) || number (8 bytes); the additional data bind
session, direction, type, stream and offset. One key per direction.
"""

import struct
from enum import StrEnum

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from agent.wire.frames import HEADER, Header, parse


class SealError(ValueError):
    """A frame that was not sealed by the other end of this session, or was altered."""


class Role(StrEnum):
    """Which end this is. The client is who answered the challenge; the portal, for a bundle."""

    CLIENT = "client"
    DEVICE = "device"

    @property
    def peer(self) -> "Role":
        return Role.DEVICE if self is Role.CLIENT else Role.CLIENT


_NONCE = struct.Struct(">IQ")
_AAD = struct.Struct(">22sBIQ")  # session and sender, type, stream, offset
_SMALL = 1024  # bytes; below, a copy costs less than a view


class Seal:
    """Seals what `role` sends and opens what its peer sent. Holds two keys and no counters."""

    def __init__(self, *, session: bytes, role: Role, send: bytes, receive: bytes) -> None:
        self.session = session
        self.role = role
        self._send = AESGCM(send)
        self._receive = AESGCM(receive)
        self._outward = session + role.value.encode()
        self._inward = session + role.peer.value.encode()

    def close(self, header: Header, plaintext: bytes | bytearray | memoryview) -> bytes:
        """Header and sealed payload, ready for the wire."""
        nonce = _NONCE.pack(header.stream, header.number)
        bound = _AAD.pack(self._outward, header.type, header.stream, header.offset)
        return header.pack() + self._send.encrypt(nonce, plaintext, bound)

    def open(self, frame: bytes | memoryview) -> tuple[Header, bytes]:
        """Header and plaintext. Raises FrameError or SealError."""
        header = parse(frame)
        return header, self.unseal(header, frame)

    def unseal(self, header: Header, frame: bytes | memoryview) -> bytes:
        """The plaintext of a frame whose header was parsed. Raises SealError."""
        if header.session != self.session:
            raise SealError("the frame belongs to another session")
        nonce = _NONCE.pack(header.stream, header.number)
        bound = _AAD.pack(self._inward, header.type, header.stream, header.offset)
        sealed = frame if len(frame) < _SMALL else memoryview(frame)
        try:
            return self._receive.decrypt(nonce, sealed[HEADER.size :], bound)
        except InvalidTag:
            raise SealError("the frame was not sealed for this session") from None


def derive(
    *, private: X25519PrivateKey, peer: bytes, binding: bytes, session: bytes, role: Role
) -> Seal:
    """The seal of a session. `binding` is the SHA-256 of what both ends agreed on: the challenge's
    bytes, or the job message's. Raises SealError when `peer` is no usable public key."""
    try:
        shared = private.exchange(X25519PublicKey.from_public_bytes(peer))
    except ValueError as error:  # wrong length, or an all-zero result
        raise SealError(str(error)) from error
    keys = {
        sender: HKDF(
            algorithm=SHA256(),
            length=32,
            salt=binding,
            info=b"patency seal 1 " + sender.value.encode() + session,
        ).derive(shared)
        for sender in Role
    }
    return Seal(session=session, role=role, send=keys[role], receive=keys[role.peer])
