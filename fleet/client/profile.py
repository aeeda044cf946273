"""The profile folder: where the portal is, who signs, and the keys of open sessions.

`profile.json` and `sessions/<id>.json`, all 0600 in folders of 0700. A session's file is changed
under a lock and written before what it says is used: its stream epoch is half of a nonce, and
must not be taken twice by two processes, nor again after a crash.
"""

import fcntl
import json
import os
import re
import shlex
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fleet.client import advice, output
from fleet.client.errors import ClientError, Exit
from fleet.client.i18n import _

MAX_EPOCH = 2**16 - 1
_SESSION = re.compile(r"[0-9a-f]{32}")


@dataclass
class Profile:
    """`key` and `device_root` may be relative to the folder. `ca`: a CA of the portal's own."""

    folder: Path
    url: str
    token: str
    specialist: str
    key: str = "id_ed25519"
    device_root: str = "device-root.pem"
    ca: str | None = None

    @property
    def key_path(self) -> Path:
        return self.folder / Path(self.key).expanduser()

    @property
    def device_root_path(self) -> Path:
        return self.folder / Path(self.device_root).expanduser()

    @property
    def ca_path(self) -> Path | None:
        return self.folder / Path(self.ca).expanduser() if self.ca else None

    def save(self) -> None:
        values = {name: value for name, value in asdict(self).items() if name != "folder"}
        make_private(self.folder)
        write_private(self.folder / "profile.json", values)


def default_folder() -> Path:
    named = os.environ.get("PATENCY_PROFILE")
    return Path(named) if named else Path.home() / ".config" / "patency"


def load(folder: Path) -> Profile:
    """Raises ClientError with the remedy."""
    path = folder / "profile.json"
    login = advice.command("login")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        loaded = msgspec.convert({**values, "folder": folder}, Profile)
        keep_private(path)
    except FileNotFoundError:
        raise ClientError(
            _("There is no profile in {folder}. Sign in with: {command}").format(
                folder=folder, command=login
            ),
            Exit.NOT_ALLOWED,
        ) from None
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise ClientError(
            _("{path} cannot be read ({error}). Sign in again with: {command}").format(
                path=path, error=error, command=login
            )
        ) from error
    return loaded


def keep_private(path: Path) -> None:
    """Take from others what they could read of a file with a secret, and say so.

    Raises OSError when the file is not ours to change.
    """
    if path.stat().st_mode & 0o077:
        path.chmod(0o600)
        output.note(
            _(
                "Others could read {path}; now only you can. If somebody may have read it, make a "
                "new token on the portal's page “Account and tokens” and sign in with: {command}"
            ).format(path=path, command=advice.command("login"))
        )


def make_private(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def write_private(path: Path, value: Any) -> None:
    """Replace a file whole, or not at all: 0600, on disk before it is named."""
    data = json.dumps(value, indent=1).encode() + b"\n"
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What the specialist asked for, in their own words: what a challenge is compared with."""

    device: str
    serial: str
    specialist: str
    level: str
    services: list[str]
    reason: str
    ticket: str | None
    note: str
    life_s: int


@dataclass
class SessionFile:
    """What this side must remember of a session. `private_key` is its X25519 key, hex."""

    session: str
    asked: Asked
    private_key: str | None = None
    challenge: str | None = None  # hex of the exact bytes that were believed and answered
    epoch: int = 0  # the last one taken
    v: int = field(default=1)

    def key(self) -> X25519PrivateKey:
        """Raises ClientError when the session was not answered from this profile."""
        if self.private_key is None:
            raise ClientError(
                _(
                    "This profile holds no key for the session. It was answered elsewhere, or is "
                    "over: make a new request."
                ),
                Exit.NOT_FOUND,
            )
        return X25519PrivateKey.from_private_bytes(bytes.fromhex(self.private_key))


class Sessions:
    """The files of the sessions that were asked for or answered from this profile."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "sessions"

    def _path(self, session: str) -> Path:
        if not _SESSION.fullmatch(session):
            raise ClientError(_("A session's id is 32 hexadecimal digits."), Exit.USAGE)
        return self._folder / f"{session}.json"

    def get(self, session: str) -> SessionFile | None:
        """Raises ClientError when the file is damaged."""
        path = self._path(session)
        try:
            made = msgspec.convert(json.loads(path.read_text(encoding="utf-8")), SessionFile)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            raise ClientError(
                _(
                    "{path} is damaged ({error}). Remove it and end the session, then ask again: "
                    "{command}"
                ).format(
                    path=path,
                    error=error,
                    command=f"rm {shlex.quote(str(path))} && {advice.command('end', session)}",
                )
            ) from error
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
        return made

    def check(self) -> None:
        """That a session can be remembered here. Raises ClientError."""
        try:
            make_private(self._folder)
            with tempfile.TemporaryFile(dir=self._folder):
                pass
        except OSError as error:
            raise ClientError(
                _("{path} cannot be written ({error}). Free space there, or make it yours.").format(
                    path=self._folder, error=error.strerror
                )
            ) from error

    def ages(self) -> list[tuple[str, float]]:
        """The ids of all sessions on file, with the seconds since each was written."""
        now = time.time()
        files = [p for p in self._folder.glob("*.json") if _SESSION.fullmatch(p.stem)]
        return [(p.stem, now - p.stat().st_mtime) for p in files]

    def save(self, file: SessionFile) -> None:
        make_private(self._folder.parent)
        make_private(self._folder)
        write_private(self._path(file.session), msgspec.to_builtins(file))

    def forget(self, session: str) -> None:
        """Remove the key of a session that is over."""
        self._path(session).unlink(missing_ok=True)
        self._lock_path(session).unlink(missing_ok=True)

    def _lock_path(self, session: str) -> Path:
        return self._path(session).with_suffix(".lock")

    @contextmanager
    def locked(self, session: str) -> Iterator[None]:
        """One process at a time, for as long as it takes to change a file."""
        make_private(self._folder)
        descriptor = os.open(self._lock_path(session), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def take_epoch(self, session: str) -> int:
        """A number for this process's streams that no process had in this session.

        On disk before it is returned. Raises ClientError when there is none left.
        """
        with self.locked(session):
            file = self.get(session)
            if file is None:
                raise ClientError(
                    _("Session {session} was not asked for from this profile.").format(
                        session=session
                    ),
                    Exit.NOT_FOUND,
                )
            if file.epoch >= MAX_EPOCH:
                raise ClientError(
                    _("The session was used too often. Make a new request."), Exit.OVER
                )
            file.epoch += 1
            self.save(file)
            return file.epoch
