"""What a device asks a specialist to sign, and the code that both sides compute from it.

The exact bytes travel; nobody re-encodes them. The specialist signs
SHA-256(challenge bytes || the client's X25519 key) under SSHSIG, so that neither the terms nor
either end of the key exchange can be swapped. Source: R-ACC-4, R-ACC-5, R-ACC-6.
"""

import hashlib
from typing import Annotated, Literal

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from agent.wire.catalogue import Level
from agent.wire.chain import canonical
from agent.wire.messages import Count, DeviceId, Hex32, Hex64, Key32, Millis, PersonId, ServiceName

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford: no I, L, O, U
_ROUNDS = 100_000  # a portal in the middle would have to search for a matching code through this


class ChallengeError(ValueError):
    """The bytes are no challenge of this version, or not in canonical form."""


class Terms(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The inside of a challenge. `life_s` runs on the device's boot clock from approval."""

    v: Literal[1] = 1
    session: Hex32
    request: Hex64  # SHA-256 of the access request as the device received it
    device: DeviceId
    specialist: PersonId
    level: Level
    services: Annotated[list[ServiceName], msgspec.Meta(min_length=1, max_length=8)]
    life_s: Annotated[int, msgspec.Meta(ge=60, le=8 * 3600)]
    presence: bool  # whether a person at the injector will be asked
    boot: Hex32
    nonce: Hex64
    key: Key32  # the device's X25519 key, made for this session


class PresenceReceipt(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Signed by the device's audit key when a person approves. No name: a local number."""

    v: Literal[1] = 1
    session: Hex32
    challenge: Hex64  # SHA-256 of the challenge's bytes
    approver: Annotated[int, msgspec.Meta(ge=1, le=99)]
    at: Millis
    uptime_ms: Millis
    index: Count  # the audit entry that records the approval


def encode(terms: Terms) -> bytes:
    return canonical(terms)


_decoder = msgspec.json.Decoder(Terms)


def decode(challenge: bytes) -> Terms:
    """Read the terms. Raises ChallengeError unless the bytes are exactly canonical."""
    try:
        terms = _decoder.decode(challenge)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise ChallengeError(str(error)) from error
    if encode(terms) != challenge:
        raise ChallengeError("the challenge is not in canonical form")
    return terms


def digest(challenge: bytes) -> bytes:
    """SHA-256 of the exact bytes: the seal's binding and the receipt's reference."""
    return hashlib.sha256(challenge).digest()


def to_sign(challenge: bytes, client_key: bytes) -> bytes:
    return hashlib.sha256(challenge + client_key).digest()


def code(challenge: bytes) -> str:
    """The code a person compares, as `XXXX-XXXX`: 40 bits, slow to search for (about 50 ms)."""
    bits = int.from_bytes(
        hashlib.pbkdf2_hmac("sha256", challenge, b"patency code 1", _ROUNDS, 5), "big"
    )
    text = "".join(_ALPHABET[bits >> shift & 31] for shift in range(35, -1, -5))
    return f"{text[:4]}-{text[4:]}"


_RECEIPT_PURPOSE = b"patency receipt 1\n"
_receipt_decoder = msgspec.json.Decoder(PresenceReceipt)


def sign_receipt(key: Ed25519PrivateKey, receipt: PresenceReceipt) -> tuple[bytes, bytes]:
    """Canonical bytes and their signature by the device's audit key."""
    data = canonical(receipt)
    return data, key.sign(_RECEIPT_PURPOSE + data)


def verify_receipt(data: bytes, signature: bytes, key: Ed25519PublicKey) -> PresenceReceipt:
    """The receipt, if the audit key signed it and its bytes are exactly canonical. Raises
    ChallengeError."""
    try:
        key.verify(signature, _RECEIPT_PURPOSE + data)
    except InvalidSignature:
        raise ChallengeError("the receipt is not signed by this device") from None
    try:
        receipt = _receipt_decoder.decode(data)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise ChallengeError(str(error)) from error
    if canonical(receipt) != data:
        raise ChallengeError("the receipt is not in canonical form")
    return receipt
