"""What must not be lost, until the portal has decided on it.

Every entry has a key, (device, outbox, seq): `outbox` is 128 random bits made with the table, `seq`
counts up from 1 and is never used twice. An entry is written before it is sent; PUBACK means that
the portal decided, so the entry is acknowledged. Acknowledged entries stay seven days within a
bound, because a portal restored from a backup says in its `hello` how far it remembers and gets
the rest again. Should *this* file come back from a backup, the portal remembers more than
the file: then the outbox takes a new name, so that no key can ever mean two things.

Bounds. Waiting entries may take `MAX_BYTES` and `MAX_ROWS`: telemetry gives way first, at 70 %,
then events, at 85 %, then sessions and jobs, at 95 %; the rest is for audit. The same order holds
when the disk runs out of room (`agent.room`). At its bound a new entry is refused with OutboxFull
and has no number, so the sequence has no holes; what has a number is never given up (ADR 0012).
"""

import asyncio
import hashlib
import logging
import secrets
import sqlite3
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from agent.clock import Clock
from agent.errors import OutboxFull
from agent.i18n import _
from agent.store import Store, get_meta, set_meta
from agent.wire import messages
from agent.wire.messages import Durable

MAX_ROWS = 200_000
MAX_BYTES = 128 * 1024 * 1024
KEEP_ROWS = 50_000  # acknowledged
KEEP_BYTES = 32 * 1024 * 1024
KEEP_MS = 7 * 24 * 3600 * 1000
TRIM_EVERY = 2_000  # acknowledgements
FLUSH_S = 0.2
RETRY_S = 2.0  # after a failed write
# What may fill so much of the outbox, and how pressed for room the disk may be (`agent.room`).
_SHARE = {messages.Telemetry.TYPE: 0.70, messages.Event.TYPE: 0.85, messages.Audit.TYPE: 1.0}
_PATIENCE = {messages.Telemetry.TYPE: 0.0, messages.Event.TYPE: 0.5, messages.Audit.TYPE: 1.0}
_SHARE_OF_OTHERS, _PATIENCE_OF_OTHERS = 0.95, 0.75

_SCHEMA = """
CREATE TABLE IF NOT EXISTS outbox (
    seq INTEGER PRIMARY KEY,
    type TEXT NOT NULL,
    version INTEGER NOT NULL,
    payload BLOB NOT NULL,
    at INTEGER NOT NULL,
    acknowledged_at INTEGER,
    refused TEXT
)
"""
_WAITING = "CREATE INDEX IF NOT EXISTS outbox_waiting ON outbox (seq) WHERE acknowledged_at IS NULL"

log = logging.getLogger(__name__)

_Figures = tuple[str, int, int]  # name, highest number, entries that wait


@dataclass(frozen=True, slots=True)
class Entry:
    """One message as it goes on the wire."""

    seq: int
    type: str
    version: int
    payload: bytes

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.payload).hexdigest()


class Outbox:
    """The methods with a connection run in the store's writer thread; the others in the loop."""

    def __init__(self, store: Store, clock: Clock, *, max_rows: int = MAX_ROWS) -> None:
        self.id = ""
        self.high = 0  # highest number assigned and committed
        self.depth = 0  # entries that wait
        self.shed: Counter[str] = Counter()  # messages given up since this start, by type
        self.pressure = 0.0  # of the disk: 0 room enough, 1 none
        self.on_committed: Callable[[Entry], None] = lambda entry: None
        self._store = store
        self._clock = clock
        self._max_rows = max_rows
        self._acknowledged: set[int] = set()
        self._flushing: asyncio.TimerHandle | None = None
        self._since_trim = 0
        # Touched in the writer thread only.
        self._name = ""
        self._next = 1
        self._rows = 0
        self._bytes = 0

    async def open(self) -> None:
        """Make or read the table. Raises StoreError."""
        self._show(await self._store.write(self._create))
        self._store.on_rollback(self._read)

    def add(self, message: type[Durable], fields: dict[str, Any]) -> asyncio.Future[Durable]:
        """Store a message under the next number, as of now. The future gives it once it is on disk.

        Raises, through the future, OutboxFull or StoreError; msgspec.ValidationError for fields
        outside the schema.
        """
        at, boot, uptime_ms = self._clock.wall_ms(), self._clock.boot, self._clock.uptime_ms()

        def work(connection: sqlite3.Connection) -> tuple[Durable, Entry]:
            return self.insert(
                connection, message, {"at": at, "boot": boot, "uptime_ms": uptime_ms, **fields}
            )

        return self.committing(work)

    def committing(
        self, work: Callable[[sqlite3.Connection], tuple[Any, Entry]]
    ) -> asyncio.Future[Any]:
        """Run a write that inserts one entry beside other rows; sends it once it is on disk."""

        def measured(connection: sqlite3.Connection) -> tuple[Any, Entry, _Figures]:
            return *work(connection), self._figures()

        written = self._store.write(measured)
        result: asyncio.Future[Any] = written.get_loop().create_future()

        def done(future: asyncio.Future[tuple[Any, Entry, _Figures]]) -> None:
            if future.cancelled():
                result.cancel()
            elif (error := future.exception()) is not None:
                if isinstance(error, OutboxFull):
                    self.shed[error.kind] += 1
                if not result.cancelled():
                    result.set_exception(error)
                    result.exception()  # the store has logged it
            else:
                value, entry, figures = future.result()
                self._show(figures)
                self.on_committed(entry)
                if not result.cancelled():
                    result.set_result(value)

        written.add_done_callback(done)
        return result

    def insert(
        self, connection: sqlite3.Connection, message: type[Durable], fields: dict[str, Any]
    ) -> tuple[Durable, Entry]:
        """In the writer thread: build the message with its number and keep it.

        The last step of its write: should something after it fail, the number would be lost.
        """
        self._check_room(message.TYPE)
        built = message(outbox=self._name, seq=self._next, **fields)
        payload = messages.encode(built)
        entry = Entry(self._next, message.TYPE, message.VERSION, payload)
        connection.execute(
            "INSERT INTO outbox (seq, type, version, payload, at) VALUES (?, ?, ?, ?, ?)",
            (entry.seq, entry.type, entry.version, payload, built.at),
        )
        set_meta(connection, "outbox_high", entry.seq)
        self._next += 1
        self._rows += 1
        self._bytes += len(payload)
        return built, entry

    def waiting(self, after: int, limit: int) -> asyncio.Future[tuple[list[Entry], int]]:
        """The next entries to send, in order, and the highest number that was looked at."""

        def work(connection: sqlite3.Connection) -> tuple[list[Entry], int]:
            rows = connection.execute(
                "SELECT seq, type, version, payload FROM outbox"
                " WHERE acknowledged_at IS NULL AND seq > ? ORDER BY seq LIMIT ?",
                (after, limit),
            )
            return [Entry(*row) for row in rows], self._next - 1

        return self._store.write(work)

    def acknowledge(self, seq: int) -> None:
        """The portal decided on this entry. Soon, not at once: a repeat does no harm."""
        self._acknowledged.add(seq)
        self._flush_in(FLUSH_S)

    def _flush_in(self, seconds: float) -> None:
        if self._flushing is None:
            self._flushing = asyncio.get_running_loop().call_later(seconds, self.flush)

    def flush(self) -> None:
        """Write the acknowledgements that are only in memory."""
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        if not self._acknowledged:
            return
        numbers, self._acknowledged = sorted(self._acknowledged), set()
        at = self._clock.wall_ms()
        self._since_trim += len(numbers)
        trim = self._since_trim >= TRIM_EVERY
        if trim:
            self._since_trim = 0

        def work(connection: sqlite3.Connection) -> _Figures:
            for seq in numbers:
                self._forget(
                    connection.execute(
                        "UPDATE outbox SET acknowledged_at = ? WHERE seq = ?"
                        " AND acknowledged_at IS NULL RETURNING LENGTH(payload)",
                        (at, seq),
                    )
                )
            if trim:
                _trim(connection, at)
            return self._figures()

        def done(written: asyncio.Future[_Figures]) -> None:
            if written.cancelled():
                return
            if written.exception() is None:
                self._show(written.result())
            else:  # the disk took nothing: try again, or the entry goes out again for nothing
                self._acknowledged.update(numbers)
                self._flush_in(RETRY_S)

        self._store.write(work).add_done_callback(done)

    def refuse(self, seq: int, reason: str) -> asyncio.Future[Entry | None]:
        """The portal told that it decided against this entry; gives the entry, if it is kept."""

        def work(connection: sqlite3.Connection) -> Entry | None:
            connection.execute("UPDATE outbox SET refused = ? WHERE seq = ?", (reason, seq))
            row = connection.execute(
                "SELECT seq, type, version, payload FROM outbox WHERE seq = ?", (seq,)
            ).fetchone()
            return Entry(*row) if row else None

        return self._store.write(work)

    def rewind(self, high: int) -> asyncio.Future[bool]:
        """Bring the outbox to the portal's high-water mark: decided up to there, wanted from there.

        Gives True when the portal remembers more than this file, which then took a new name.
        """
        at = self._clock.wall_ms()

        def work(connection: sqlite3.Connection) -> tuple[bool, _Figures]:
            renamed = high >= self._next
            if renamed:
                self._rename(connection)
            else:
                connection.execute(
                    "UPDATE outbox SET acknowledged_at = ?"
                    " WHERE seq <= ? AND acknowledged_at IS NULL",
                    (at, high),
                )
                connection.execute(
                    "UPDATE outbox SET acknowledged_at = NULL WHERE seq > ?", (high,)
                )
            self._read(connection)
            return renamed, self._figures()

        written = self._store.write(work)
        result: asyncio.Future[bool] = written.get_loop().create_future()

        def done(future: asyncio.Future[tuple[bool, _Figures]]) -> None:
            if future.cancelled() or future.exception() is not None:
                result.cancel()  # the store has logged it; the next connection asks again
                return
            renamed, figures = future.result()
            self._show(figures)
            result.set_result(renamed)

        written.add_done_callback(done)
        return result

    # --- in the writer thread ------------------------------------------------------------------

    def _create(self, connection: sqlite3.Connection) -> _Figures:
        connection.execute(_SCHEMA)
        connection.execute(_WAITING)
        if get_meta(connection, "outbox") is None:
            set_meta(connection, "outbox", secrets.token_hex(16))
        _trim(connection, self._clock.wall_ms())
        self._read(connection)
        return self._figures()

    def _read(self, connection: sqlite3.Connection) -> None:
        self._name = str(get_meta(connection, "outbox"))
        (newest,) = connection.execute("SELECT MAX(seq) FROM outbox").fetchone()
        # The mark outlives entries that were trimmed.
        self._next = max(int(get_meta(connection, "outbox_high") or 0), newest or 0) + 1
        self._rows, size = connection.execute(
            "SELECT COUNT(*), SUM(LENGTH(payload)) FROM outbox WHERE acknowledged_at IS NULL"
        ).fetchone()
        self._bytes = size or 0

    def _check_room(self, kind: str) -> None:
        """Raises OutboxFull."""
        share = _SHARE.get(kind, _SHARE_OF_OTHERS)
        if self._rows >= self._max_rows * share or self._bytes >= MAX_BYTES * share:
            raise OutboxFull(
                _("The outbox is full: {rows} messages wait for the portal.").format(
                    rows=self._rows
                ),
                kind,
            )
        if self.pressure > _PATIENCE.get(kind, _PATIENCE_OF_OTHERS):
            raise OutboxFull(_("The disk is nearly full; free space on it."), kind)

    def _forget(self, cursor: sqlite3.Cursor) -> None:
        for (size,) in cursor.fetchall():
            self._rows -= 1
            self._bytes -= size

    def _figures(self) -> _Figures:
        return self._name, self._next - 1, self._rows

    def _rename(self, connection: sqlite3.Connection) -> None:
        """A new name; what waits gets new numbers under it, in the same order."""
        waiting = connection.execute(
            "SELECT type, version, payload, at FROM outbox WHERE acknowledged_at IS NULL"
            " ORDER BY seq"
        ).fetchall()
        connection.execute("DELETE FROM outbox")
        self._name = secrets.token_hex(16)
        set_meta(connection, "outbox", self._name)
        for seq, (type, version, payload, at) in enumerate(waiting, 1):
            fields = msgspec.json.decode(payload)
            fields |= {"outbox": self._name, "seq": seq}
            connection.execute(
                "INSERT INTO outbox (seq, type, version, payload, at) VALUES (?, ?, ?, ?, ?)",
                (seq, type, version, msgspec.json.encode(fields, order="deterministic"), at),
            )
        set_meta(connection, "outbox_high", len(waiting))

    # --- in the loop ---------------------------------------------------------------------------

    def _show(self, figures: _Figures) -> None:
        self.id, self.high, self.depth = figures


def _trim(connection: sqlite3.Connection, now_ms: int) -> None:
    """Forget acknowledged entries that are old, or too many."""
    connection.execute("DELETE FROM outbox WHERE acknowledged_at < ?", (now_ms - KEEP_MS,))
    connection.execute(
        "DELETE FROM outbox WHERE acknowledged_at IS NOT NULL AND seq <= ("
        " SELECT seq FROM ("
        "  SELECT seq, ROW_NUMBER() OVER (ORDER BY seq DESC) AS n,"
        "  SUM(LENGTH(payload)) OVER (ORDER BY seq DESC) AS size"
        "  FROM outbox WHERE acknowledged_at IS NOT NULL)"
        " WHERE n > ? OR size > ? ORDER BY seq DESC LIMIT 1)",
        (KEEP_ROWS, KEEP_BYTES),
    )
