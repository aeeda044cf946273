"""The server's audit key (Ed25519): signs heads of chains, and is anchored in every device."""

from functools import lru_cache
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from django.conf import settings

from fleet.core.files import write_private


def key_path() -> Path:
    return Path(settings.PATENCY_DATA) / "ca" / "audit.key"


def create(folder: Path | None = None) -> None:
    """Make the key, unless there is one: replacing it would orphan every device."""
    path = folder / key_path().name if folder is not None else key_path()
    if path.exists():
        return
    key = Ed25519PrivateKey.generate()
    write_private(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def server_key() -> Ed25519PrivateKey | None:
    """The key, or None before `manage.py ca init`."""
    path = key_path()
    return _load(path, path.stat().st_mtime_ns) if path.exists() else None


def server_public_key() -> Ed25519PublicKey | None:
    key = server_key()
    return key.public_key() if key is not None else None


@lru_cache(maxsize=4)
def _load(path: Path, _changed: int) -> Ed25519PrivateKey:
    key = load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise TypeError(f"{path} is not an Ed25519 key")
    return key
