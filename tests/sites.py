"""Hospitals' policies for tests: signed in earnest by a hospital's key."""

from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.access.site import Document
from agent.wire import site_policy as wire
from agent.wire.site_policy import SitePolicy

HOSPITAL = Ed25519PrivateKey.from_private_bytes(b"\x09" * 32)
STRANGER = Ed25519PrivateKey.from_private_bytes(b"\x0a" * 32)


def document(version: int = 1, *, key: Ed25519PrivateKey = HOSPITAL, **fields: Any) -> Document:
    data, signature = wire.sign(key, SitePolicy(version=version, **fields))
    return Document(policy=data, key=key.public_key().public_bytes_raw(), signature=signature)
