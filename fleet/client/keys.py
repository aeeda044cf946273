"""The specialist's key: Ed25519, in a file, in ssh-agent, or in a security key (R-ACC-4).

A plain file is read here. Whatever else holds a key, ssh-keygen knows how to ask it: an agent, a
file with a passphrase, a security key that wants a touch or its PIN. Then only the public half is
read here, from the `.pub` file beside it.
"""

import base64
import hashlib
import os
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)

from agent.wire import sshsig
from fleet.client import advice
from fleet.client.errors import ClientError, Exit
from fleet.client.i18n import _

SIGN_S = 60.0  # for somebody to touch a security key, or to type its PIN


class Signer(Protocol):
    """Something that signs for the specialist. `public` is its key in SSH's form."""

    @property
    def public(self) -> bytes: ...

    def sign(self, message: bytes) -> bytes:
        """SSHSIG in binary form, namespace access@patency. Raises ClientError."""


@dataclass(frozen=True, slots=True)
class FileKey:
    """A private key that lies in a file without a passphrase."""

    key: Ed25519PrivateKey

    @property
    def public(self) -> bytes:
        return sshsig.public_blob(self.key.public_key().public_bytes_raw())

    def sign(self, message: bytes) -> bytes:
        return sshsig.sign(self.key, message)


@dataclass(frozen=True, slots=True)
class HeldKey:
    """A key that ssh-keygen can use and nobody can read."""

    path: Path  # as ssh-keygen takes it: a private key's file, or a public key that an agent holds
    public: bytes

    def sign(self, message: bytes) -> bytes:
        program = shutil.which("ssh-keygen")
        if program is None:
            raise ClientError(
                _(
                    "This key is used through ssh-keygen, which is not installed. Install OpenSSH, "
                    "or make a key in a file with: {command}"
                ).format(command=advice.command("key", "new"))
            )
        command = [program, "-Y", "sign", "-f", str(self.path), "-n", sshsig.NAMESPACE]
        try:
            # Its standard error stays the person's: there it asks for a touch, or for a PIN.
            done = subprocess.run(
                command, input=message, stdout=subprocess.PIPE, timeout=SIGN_S, check=False
            )
        except subprocess.TimeoutExpired:
            raise ClientError(
                _("{path} signed nothing within a minute. Touch the key and try again.").format(
                    path=self.path
                ),
                Exit.TIMED_OUT,
            ) from None
        try:
            signature = sshsig.unarmour(done.stdout.decode("ascii"))
            signed_by = sshsig.verify(signature, message)
        except (sshsig.SignatureError, UnicodeDecodeError):
            signed_by = b""
        if signed_by != self.public:
            raise ClientError(
                _(
                    "ssh-keygen did not sign with {path}. Is the key in ssh-agent "
                    "(see: ssh-add -L), or plugged in?"
                ).format(path=self.path)
            )
        return signature


def fingerprint(blob: bytes) -> str:
    """Of a key in SSH's form, as `ssh-keygen -l` shows it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def public_line(blob: bytes) -> str:
    """As a `.pub` file has it."""
    kind = blob[4 : 4 + int.from_bytes(blob[:4], "big")]
    return f"{kind.decode('ascii')} {base64.b64encode(blob).decode()}"


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
        _openssh(key.public_key()) + "\n", encoding="utf-8"
    )
    return key


def _openssh(key: Ed25519PublicKey) -> str:
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def signer(path: Path) -> Signer:
    """What signs with the key at `path`: a private key's file, or the `.pub` of one elsewhere.

    Raises ClientError with the remedy.
    """
    if path.suffix == ".pub":
        return HeldKey(path, _public_beside(path, path))
    key = _private(path)
    if key is None:
        return HeldKey(path, _public_beside(path, path.with_name(path.name + ".pub")))
    return FileKey(key)


def load(path: Path) -> Ed25519PrivateKey:
    """The private key in a plain file. Raises ClientError with the remedy."""
    key = _private(path)
    if key is None:
        raise ClientError(
            _(
                "{path} has a passphrase or is a security key, which is of no use here. "
                "Use an Ed25519 key without a passphrase, on an encrypted disk."
            ).format(path=path)
        )
    return key


def _private(path: Path) -> Ed25519PrivateKey | None:
    """None for a key that cannot be read, only used: a passphrase, a security key."""
    data = _read(path)
    try:
        key = load_ssh_private_key(data, None)
    except (TypeError, UnsupportedAlgorithm):
        return None
    except ValueError:
        raise _other(path, _("{path} is no OpenSSH private key.")) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise _other(path, _("{path} is not an Ed25519 key."))
    return key


def _read(path: Path) -> bytes:
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
    return data


def _public_beside(path: Path, public: Path) -> bytes:
    try:
        return sshsig.public_line(public.read_text(encoding="ascii"))
    except (OSError, UnicodeDecodeError, sshsig.SignatureError):
        raise ClientError(
            _(
                "{path} is used through ssh-keygen, and {public} is no Ed25519 or security key's "
                "public half. Write it there with: {command}"
            ).format(
                path=path,
                public=public,
                command=f"ssh-keygen -y -f {shlex.quote(str(path))} > {shlex.quote(str(public))}",
            )
        ) from None


def _other(path: Path, what: str) -> ClientError:
    """The file is kept: `key new` replaces none, so it is moved away first."""
    old = shlex.quote(f"{path}.old")
    make = f"mv {shlex.quote(str(path))} {old} && {advice.command('key', 'new', path)}"
    return ClientError(
        what.format(path=path) + " " + _("Make one with: {command}").format(command=make)
    )
