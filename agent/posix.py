"""What works on POSIX alone, in one place; a port to Windows replaces this module.

Private files, one process per state directory, Unix sockets and who is at the other end of them,
the boot clock, the service manager, memory, room on the disk.
"""

import fcntl
import os
import secrets
import shlex
import socket
import stat
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from agent.errors import AlreadyRunning, StateError
from agent.i18n import _

PRIVATE_DIR = 0o700
PRIVATE_FILE = 0o600
_MARKS = ("provision.json", "driver.json")  # what manufacture leaves in a state directory
_SUN_PATH = 100  # bytes that every system takes in a Unix socket's address; Linux takes 107
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_MEMORY = Path("/proc/self/statm")


def boot_id() -> str:
    """32 hex digits that stay until the machine boots; random where the kernel offers none."""
    try:
        text = _BOOT_ID.read_text(encoding="ascii").strip().replace("-", "").lower()
    except OSError:
        return secrets.token_hex(16)
    return text if len(text) == 32 else secrets.token_hex(16)


def boot_seconds() -> float:
    """Seconds since boot, those asleep included where the system counts them."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)


def check_private_dir(path: Path) -> None:
    """Raises StateError unless `path` is a directory of ours that nobody else may open.

    One that others may open is shut to them, if it is an injector's at all: a slip of the pen must
    not take /tmp from everybody.
    """
    try:
        info = path.stat()
    except OSError as error:
        raise StateError(
            _("The state directory {path} cannot be read: {error}.").format(
                path=path, error=error.strerror
            )
        ) from error
    if not path.is_dir():
        raise StateError(_("{path} is not a directory.").format(path=path))
    if info.st_uid != os.getuid():
        raise StateError(_("{path} belongs to another user; run as its owner.").format(path=path))
    if info.st_mode & 0o077:
        if not any((path / name).exists() for name in _MARKS):
            raise StateError(
                _(
                    "{path} is no injector's state directory: others may open it, and there is no "
                    "provision.json in it. Give the injector's own with --state."
                ).format(path=path)
            )
        path.chmod(PRIVATE_DIR)


def check_private_file(path: Path) -> None:
    """Raises StateError unless `path` is a plain file of ours that nobody else may open.

    It is not put right here: whoever could read a key may have kept it.
    """
    try:
        info = path.lstat()
    except OSError as error:
        raise StateError(
            _("{path} cannot be read: {error}.").format(path=path, error=error.strerror)
        ) from error
    if not stat.S_ISREG(info.st_mode):
        raise StateError(_("{path} is not a plain file.").format(path=path))
    if info.st_uid != os.getuid():
        raise StateError(_("{path} belongs to another user; run as its owner.").format(path=path))
    if info.st_mode & 0o077:
        raise StateError(
            _(
                "{path} may be opened by other users (mode {mode:03o}). Put that right with: "
                "{command}  If one of them may have read it, ask the vendor to revoke this "
                "injector's credential."
            ).format(
                path=path,
                mode=stat.S_IMODE(info.st_mode),
                command=f"chmod 600 {shlex.quote(str(path))}",
            )
        )


def keep_private(folder: Path) -> list[Path]:
    """Take from other users what they may do with our files in `folder`; returns which they were.

    Keys are left as they are: one that others could read may be a secret no more, and is refused
    where it is read. Raises OSError.
    """
    found = []
    for path in sorted(folder.iterdir()):
        info = path.lstat()
        ours = stat.S_ISREG(info.st_mode) and info.st_uid == os.getuid()
        if ours and info.st_mode & 0o077 and path.suffix != ".key":
            path.chmod(PRIVATE_FILE)
            found.append(path)
    return found


def write_private(path: Path, data: bytes) -> None:
    """Put `data` at `path` so that after a crash the file is the old one or the new one, whole.

    Mode 0600 from its first byte. Raises OSError.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_dir(path.parent)


def remove(path: Path) -> None:
    """Take a name away, whether or not it is there. Raises OSError."""
    path.unlink(missing_ok=True)


def sync_dir(path: Path) -> None:
    """Make names created or replaced in this directory survive a crash."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def only_process(path: Path) -> Iterator[None]:
    """Hold the lock at `path` for as long as the block runs. Raises AlreadyRunning."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, PRIVATE_FILE)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AlreadyRunning(
                _("Another agent runs on {path}; stop it first.").format(path=path.parent)
            ) from error
        yield
    finally:
        os.close(handle)


@contextmanager
def socket_address(path: Path) -> Iterator[str]:
    """An address for the Unix socket at `path`, however long the path.

    A socket's address holds about a hundred bytes; a longer path is reached through the open
    directory, which Linux shows under /proc. Raises StateError where that cannot be.
    """
    if len(os.fsencode(path)) <= _SUN_PATH:
        yield str(path)
        return
    try:
        handle = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise StateError(
            _("The state directory {path} cannot be read: {error}.").format(
                path=path.parent, error=error.strerror
            )
        ) from error
    try:
        yield f"/proc/self/fd/{handle}/{path.name}"
    finally:
        os.close(handle)


def listen(path: Path) -> socket.socket:
    """A Unix socket at `path`, mode 0600, that replaces one left over by a crash.

    The caller holds `only_process`, so whatever is there is dead. Raises OSError, StateError.
    """
    path.unlink(missing_ok=True)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # The mode is set before anyone can connect: connecting needs a listener.
        with socket_address(path) as address:
            server.bind(address)
        path.chmod(PRIVATE_FILE)
        server.listen(16)
        server.setblocking(False)
    except BaseException:
        server.close()
        raise
    return server


def connect(path: Path, timeout_s: float) -> socket.socket:
    """Raises OSError."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        client.settimeout(timeout_s)
        with socket_address(path) as address:
            client.connect(address)
    except BaseException:
        client.close()
        raise
    return client


class _Options(Protocol):
    """A socket, or what asyncio shows of one."""

    def getsockopt(self, level: int, name: int, size: int, /) -> bytes: ...


def peer_is_us(connection: _Options) -> bool:
    """Whether the process at the other end runs as our user, or as root."""
    size = struct.calcsize("3i")
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    _pid, uid, _gid = struct.unpack("3i", credentials)
    return uid in (os.getuid(), 0)


def notify(address: str, text: str) -> None:
    """Send the service manager a datagram (sd_notify(3)); `@` begins an abstract address.

    Raises OSError.
    """
    target = "\0" + address[1:] if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.setblocking(False)  # a manager that does not read must not hold the loop
        sender.sendto(text.encode(), target)


def resident_bytes() -> int:
    """Memory that this process holds; 0 where the kernel does not say."""
    try:
        pages = int(_MEMORY.read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def free_bytes(folder: Path) -> int:
    """What the disk of this directory still takes from us. Raises OSError."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def allocate(path: Path, size: int) -> None:
    """A file that holds `size` bytes of the disk, really; nothing is left if it does not fit.

    Raises OSError.
    """
    handle = os.open(path, os.O_WRONLY | os.O_CREAT, PRIVATE_FILE)
    try:
        os.posix_fallocate(handle, 0, size)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(handle)
