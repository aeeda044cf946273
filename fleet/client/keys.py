"""The specialist's Ed25519 key: a file in OpenSSH's format, as ssh-keygen makes it."""

import base64
import hashlib
import os
import shlex
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)

from agent.wire.sshsig import public_blob
from fleet.client import advice
from fleet.client.errors import ClientError, Exit
from fleet.client.i18n import _


def fingerprint(raw: bytes) -> str:
    """As `ssh-keygen -l` shows it."""
    digest = hashlib.sha256(public_blob(raw)).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def public_line(key: Ed25519PublicKey) -> str:
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def create(path: Path) -> Ed25519PrivateKey:
    """Make a key, readable by its owner only. Raises ClientError rather than replace a file."""
    key = Ed25519PrivateKey.generate()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise ClientError(
            _(
                "{path} exists and is not replaced. Name another file, or move it away first."
            ).format(path=path)
        ) from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
        file.flush()
        os.fsync(file.fileno())
    path.with_name(path.name + ".pub").write_text(
        public_line(key.public_key()) + "\n", encoding="utf-8"
    )
    return key


def load(path: Path) -> Ed25519PrivateKey:
    """Raises ClientError with the remedy."""
    try:
        data = path.read_bytes()
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise ClientError(
            _("There is no key at {path}. Make one with: {command}").format(
                path=path, command=advice.command("key", "new", path)
            ),
            Exit.NOT_FOUND,
        ) from None
    except OSError as error:
        raise ClientError(
            _("{path} cannot be read: {error}.").format(path=path, error=error.strerror)
        ) from error
    if mode & 0o077:
        raise ClientError(
            _("Others may read {path}, so it is not used. Correct that with: {command}").format(
                path=path, command=advice.private(path)
            )
        )
    try:
        key = load_ssh_private_key(data, None)
    except (TypeError, UnsupportedAlgorithm):
        raise ClientError(
            _(
                "{path} is protected by a passphrase, which is not supported. "
                "Use a key without one, on an encrypted disk."
            ).format(path=path)
        ) from None
    except ValueError:
        raise _other(path, _("{path} is no OpenSSH private key.")) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise _other(path, _("{path} is not an Ed25519 key."))
    return key


def _other(path: Path, what: str) -> ClientError:
    """The file is kept: `key new` replaces none, so it is moved away first."""
    old = shlex.quote(f"{path}.old")
    make = f"mv {shlex.quote(str(path))} {old} && {advice.command('key', 'new', path)}"
    return ClientError(
        what.format(path=path) + " " + _("Make one with: {command}").format(command=make)
    )
