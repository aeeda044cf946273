"""Files that must be whole or absent, and readable by the portal's user alone."""

import fcntl
import logging
import os
from pathlib import Path

from django.utils.translation import gettext as _

from fleet.core.errors import Conflict

log = logging.getLogger(__name__)


def write_private(path: Path, data: bytes) -> None:
    """Write `data` under `path` (0600, folder 0700 when made here), safely on disk on return."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    _sync(path.parent)


def write_new(path: Path, data: bytes) -> None:
    """As `write_private`, for a file of the person's choice: what is there is not written over.
    Raises Conflict."""
    if path.exists():
        raise Conflict(
            _("%(file)s is there already. Choose another name, or move it away first.")
            % {"file": path}
        )
    write_private(path, data)


def put_in_place(draft: Path, folder: Path) -> None:
    """Make `draft` the folder of that name, which is not there or empty; all of it or nothing, and
    safely on disk on return. Raises OSError."""
    draft.replace(folder)
    _sync(folder.parent)


def _sync(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def hold(path: Path) -> int | None:
    """Take the lock of this file, until the handle is closed or the process is gone, however it
    goes. None when another process has it. Raises OSError."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle


def read_private(path: Path) -> bytes:
    """Read a secret. One that others can read is taken away from them, and that is said.

    Raises OSError.
    """
    close_to_others(path)
    return path.read_bytes()


def close_to_others(path: Path) -> None:
    """Make a file readable by its owner alone. Raises OSError: it is somebody else's."""
    if path.stat().st_mode & 0o077:
        path.chmod(0o600)
        log.warning(
            "%s was open to other users and is 0600 now. If others can sign in on this machine, "
            "replace it.",
            path,
        )
