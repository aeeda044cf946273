"""The durable table of executions. Functions with a connection run in the store's writer thread.

A row outlives its execution, so that a job which comes again finds that it was here. While it
names a bundle, the bundle's file is kept.
"""

import sqlite3
from typing import Any

import msgspec

from agent.wire.catalogue import ExecutionState, JobReason

KEEP_OVER = 2_000  # rows of executions that are over; the oldest go

_COLUMNS = (
    "id TEXT PRIMARY KEY",
    "kind TEXT NOT NULL",
    "hours INTEGER NOT NULL",
    "not_after INTEGER NOT NULL",  # ms, wall clock
    "portal_key BLOB NOT NULL",
    "digest TEXT NOT NULL",  # SHA-256 of the job message as received; binds the seal
    "state TEXT NOT NULL",
    "reason TEXT",
    "received_at INTEGER NOT NULL",
    "bundle_digest TEXT",
    "bundle_size INTEGER",
)
_NAMES = tuple(column.split()[0] for column in _COLUMNS)
_OPEN = tuple(state.value for state in ExecutionState if not state.over)


class Row(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    kind: str
    hours: int
    not_after: int
    portal_key: bytes
    digest: str
    state: ExecutionState
    reason: JobReason | None = None
    received_at: int
    bundle_digest: str | None = None
    bundle_size: int | None = None

    @property
    def has_bundle(self) -> bool:
        return self.bundle_digest is not None


def create(connection: sqlite3.Connection) -> list[Row]:
    """Make the table. Returns the executions that still have something to do or to send."""
    connection.execute(f"CREATE TABLE IF NOT EXISTS execution ({', '.join(_COLUMNS)})")
    connection.execute(
        "DELETE FROM execution WHERE id IN (SELECT id FROM execution WHERE bundle_digest IS NULL"
        " AND state NOT IN (?, ?, ?) ORDER BY received_at DESC LIMIT -1 OFFSET ?)",
        (*_OPEN, KEEP_OVER),
    )
    rows = connection.execute(
        f"SELECT {', '.join(_NAMES)} FROM execution"  # noqa: S608 - constants
        " WHERE state IN (?, ?, ?) OR bundle_digest IS NOT NULL ORDER BY received_at, rowid",
        _OPEN,
    )
    return [_row(values) for values in rows]


def find(connection: sqlite3.Connection, id: str) -> Row | None:
    values = connection.execute(
        f"SELECT {', '.join(_NAMES)} FROM execution WHERE id = ?",  # noqa: S608 - constants
        (id,),
    ).fetchone()
    return _row(values) if values else None


def insert(connection: sqlite3.Connection, row: Row) -> None:
    values = msgspec.structs.asdict(row)
    connection.execute(
        f"INSERT INTO execution ({', '.join(_NAMES)})"  # noqa: S608 - constants
        f" VALUES ({', '.join('?' * len(_NAMES))})",
        [_plain(values[name]) for name in _NAMES],
    )


def bury(connection: sqlite3.Connection, row: Row) -> None:
    """Insert a row that is over, unless there is one of this id."""
    if find(connection, row.id) is None:
        insert(connection, row)


def update(connection: sqlite3.Connection, row: Row) -> None:
    connection.execute(
        "UPDATE execution SET state = ?, reason = ?, bundle_digest = ?,"
        " bundle_size = ? WHERE id = ?",
        (
            row.state.value,
            row.reason and row.reason.value,
            row.bundle_digest,
            row.bundle_size,
            row.id,
        ),
    )


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, ExecutionState | JobReason) else value


def _row(values: tuple[Any, ...]) -> Row:
    return msgspec.convert(dict(zip(_NAMES, values, strict=True)), Row, builtin_types=(bytes,))
