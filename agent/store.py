"""`agent.db`: one SQLite file, one thread that writes it, many small writes in one commit.

Theory. Every write is a function of the connection, queued from the loop and run by the writer
thread inside its own savepoint. The thread takes whatever waits, runs it in one transaction and
commits with `synchronous=FULL`, at most once per `GATHER_S` under load and at once when idle; only
then do the callers learn of it. So the loop never waits for a disk, and what a caller was told is
on it. A write that raises fails alone; when SQLite itself fails (disk full, disk gone), the whole
batch is rolled back and each of its callers is told: nothing of it happened.

Caches that mirror the file (a counter, the end of a chain) live inside the writer thread and
register with `on_rollback` to read themselves again after a batch failed.
"""

import asyncio
import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from agent import advice
from agent.errors import StoreDamaged, StoreError
from agent.i18n import _
from agent.posix import PRIVATE_FILE

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

GATHER_S = 0.010  # a group commit waits at most this long for company
MAX_WAITING = 10_000
MAX_BATCH = 1_000
CLOSE_S = 1.0
FORMAT = 1  # of the file; a later agent upgrades, an earlier one refuses

log = logging.getLogger(__name__)


class Store:
    """Open in a running loop; `close` before the loop ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.healthy = True  # whether the last commit worked
        self._loop = asyncio.get_running_loop()
        self._queue: deque[tuple[Work[Any], asyncio.Future[Any]]] = deque()
        self._ready = threading.Condition()
        self._closing = False
        self._closed = asyncio.Event()
        self._rollback: list[Work[None]] = []
        self._connection = _open(path)
        self._thread = threading.Thread(target=self._run, name=f"store {path.parent.name}")
        self._thread.daemon = True  # a dead disk must not keep a dying process alive
        self._thread.start()

    def write(self, work: Work[T]) -> asyncio.Future[T]:
        """Queue a write. The future resolves after the commit, or raises StoreError when it failed,
        or whatever `work` raised; it may be left alone: a failure is then logged."""
        future: asyncio.Future[T] = self._loop.create_future()
        future.add_done_callback(_note_failure)
        with self._ready:
            if self._closing or len(self._queue) >= MAX_WAITING:
                future.set_exception(
                    StoreError(
                        _("The disk does not keep up; {count} writes wait.").format(
                            count=len(self._queue)
                        )
                    )
                )
                return future
            self._queue.append((work, future))
            self._ready.notify()
        return future

    def on_rollback(self, work: Work[None]) -> None:
        """Run in the writer thread after each batch that failed, before the next."""
        self._rollback.append(work)

    async def close(self) -> None:
        """Write what waits, then close the file. Waits at most `CLOSE_S`."""
        with self._ready:
            self._closing = True
            self._ready.notify()
        try:
            await asyncio.wait_for(self._closed.wait(), CLOSE_S)
        except TimeoutError:
            log.error("the disk does not answer; leaving with writes undone")

    # --- in the writer thread ------------------------------------------------------------------

    def _run(self) -> None:
        last = 0.0
        try:
            while True:
                with self._ready:
                    while not self._queue and not self._closing:
                        self._ready.wait()
                    pause = last + GATHER_S - time.monotonic()
                    if not self._queue:
                        return
                if pause > 0 and not self._closing:
                    time.sleep(min(pause, GATHER_S))
                with self._ready:
                    count = min(len(self._queue), MAX_BATCH)
                    batch = [self._queue.popleft() for _each in range(count)]
                self._commit(batch)
                last = time.monotonic()
        finally:
            self._connection.close()
            self._tell(self._closed.set)

    def _tell(self, what: Callable[..., None], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(what, *arguments)
        except RuntimeError:  # the loop has closed: nobody is left to tell
            log.warning("the store of %s finished after its loop", self.path.parent.name)

    def _commit(self, batch: list[tuple[Work[Any], asyncio.Future[Any]]]) -> None:
        results: list[tuple[asyncio.Future[Any], Any, BaseException | None]] = []
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            for work, future in batch:
                results.append((future, *_run_alone(self._connection, work)))
            self._connection.execute("COMMIT")
            healthy = True
        except sqlite3.Error as error:
            healthy = False
            failure = _disk_error(self.path, error)
            results = [(future, None, failure) for _work, future in batch]
            self._undo()
        self._tell(self._report, healthy, results)

    def _undo(self) -> None:
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            for work in self._rollback:
                work(self._connection)
        except sqlite3.Error:
            log.exception("the store could not be read again after a failed write")

    # --- in the loop ---------------------------------------------------------------------------

    def _report(
        self,
        healthy: bool,
        results: list[tuple[asyncio.Future[Any], Any, BaseException | None]],
    ) -> None:
        self.healthy = healthy
        for future, value, error in results:
            if future.cancelled():
                continue
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)


def _open(path: Path) -> sqlite3.Connection:
    """Raises StoreError, StoreDamaged."""
    try:
        path.touch(mode=PRIVATE_FILE)
        path.chmod(PRIVATE_FILE)
        # WAL and its index take their mode from the file, so they are private as well.
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5)
    except (OSError, sqlite3.Error) as error:
        raise _disk_error(path, error) from error
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA journal_size_limit=4194304")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > FORMAT:
            raise StoreError(
                _(
                    "{path} was written by a newer agent (format {version}). Install that agent "
                    "again."
                ).format(path=path, version=version)
            )
        connection.execute(f"PRAGMA user_version={FORMAT}")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID"
        )
    except sqlite3.Error as error:
        connection.close()
        if _damaged(error):  # starting anew would not help: only a person can
            raise StoreDamaged(_damage(path, error)) from error
        raise _disk_error(path, error) from error
    except StoreError:
        connection.close()
        raise
    return connection


def _run_alone(connection: sqlite3.Connection, work: Work[Any]) -> tuple[Any, BaseException | None]:
    """One write inside its savepoint. SQLite's trouble is the batch's; other errors are its own, as
    is a constraint that the write breaks."""
    connection.execute("SAVEPOINT one")
    try:
        value = work(connection)
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError) as error:
        connection.execute("ROLLBACK TO one")
        connection.execute("RELEASE one")
        return None, error
    except sqlite3.Error:
        raise
    except Exception as error:
        connection.execute("ROLLBACK TO one")
        connection.execute("RELEASE one")
        return None, error
    connection.execute("RELEASE one")
    return value, None


def _disk_error(path: Path, error: Exception) -> StoreError:
    if _damaged(error):
        text = _damage(path, error)
    else:
        text = _("The agent's store cannot be written ({error}); free space on its disk.").format(
            error=error
        )
    failure = StoreError(text)
    failure.__cause__ = error
    return failure


def _damaged(error: Exception) -> bool:
    code = getattr(error, "sqlite_errorcode", None)  # its low byte: the rest says where
    return code is not None and code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _damage(path: Path, error: Exception) -> str:
    return _(
        "{path} is damaged ({error}). Stop the agent, put a backup of it in its place, or put it "
        "aside: {command}  Then start the agent. Without a backup PINs must be set again, and the "
        "portal raises an alarm, as the audit record begins anew."
    ).format(path=path, error=error, command=advice.aside(path.parent, f"{path.name}*"))


def _note_failure(future: asyncio.Future[Any]) -> None:
    # Also marks the error as seen, for callers who do not wait for their write.
    if not future.cancelled() and (error := future.exception()) is not None:
        log.warning("a write failed: %s", error)


def get_meta(connection: sqlite3.Connection, key: str) -> Any:
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return row[0] if row else None


def set_meta(connection: sqlite3.Connection, key: str, value: str | int) -> None:
    connection.execute(
        "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        (key, value),
    )
