"""Files that must be whole or absent, and readable by the portal's user alone."""

import fcntl
import logging
import os
from pathlib import Path

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
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


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
