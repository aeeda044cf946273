"""Audit chains: RFC 8785 canonical JSON, SHA-256, each entry holding the hash of the one before.

Pure. The device keeps one chain, the server one per organisation; both verify with `verify`.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from agent.wire.messages import SignedHead

GENESIS = "0" * 64


def canonical(value: Any) -> bytes:
    """RFC 8785 bytes of a struct or of plain JSON values."""
    return rfc8785.dumps(msgspec.to_builtins(value))


def entry_hash(entry: Mapping[str, Any]) -> str:
    """SHA-256 (hex) over the entry without its own `hash`; it includes `previous`."""
    return hashlib.sha256(canonical({k: v for k, v in entry.items() if k != "hash"})).hexdigest()


def _is_hashed(entry: Mapping[str, Any]) -> bool:
    try:
        return bool(entry.get("hash") == entry_hash(entry))
    except (ValueError, TypeError, RecursionError):  # a value that canonical JSON cannot hold
        return False


def verify(
    entries: Iterable[Mapping[str, Any]], *, start: int = 0, previous: str = GENESIS
) -> tuple[int, int | None]:
    """Walk entries in order. Returns (count, index of the first bad entry or None).

    `start` and `previous` continue from an entry verified before.
    """
    count = 0
    for expected, entry in enumerate(entries, start):
        if (
            entry.get("index") != expected
            or entry.get("previous") != previous
            or not _is_hashed(entry)
        ):
            return count, expected
        previous = entry["hash"]
        count += 1
    return count, None


def _head_bytes(chain: str, index: int, hash: str, at: int) -> bytes:
    return b"patency audit head 1\n" + canonical(
        {"chain": chain, "index": index, "hash": hash, "at": at}
    )


def sign_head(key: Ed25519PrivateKey, *, chain: str, index: int, hash: str, at: int) -> SignedHead:
    signature = key.sign(_head_bytes(chain, index, hash, at))
    return SignedHead(chain=chain, index=index, hash=hash, at=at, signature=signature)


def head_is_signed_by(head: SignedHead, key: Ed25519PublicKey) -> bool:
    try:
        key.verify(head.signature, _head_bytes(head.chain, head.index, head.hash, head.at))
    except InvalidSignature:
        return False
    return True
