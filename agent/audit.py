"""The device's audit chain: who did what, with what outcome, each entry holding the hash before it.

An entry and the `audit` message that carries it to the portal are written in one transaction, so
neither exists without the other. Remote access is refused when an entry cannot be written: wait
for `record` before acting on it (R-ACC-10). The server's signed heads are kept as well, so a server
that rewrites its own past is found out.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from agent.clock import Clock
from agent.errors import AuditUnwritable, OutboxFull, StateError, StoreError
from agent.i18n import _
from agent.outbox import Entry, Outbox
from agent.store import Store
from agent.wire import chain
from agent.wire.catalogue import Outcome
from agent.wire.messages import Audit, AuditEntry, SignedHead

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS audit ("
    " idx INTEGER PRIMARY KEY, hash TEXT NOT NULL, entry BLOB NOT NULL)",
    "CREATE TABLE IF NOT EXISTS server_head ("
    " chain TEXT NOT NULL, idx INTEGER NOT NULL, hash TEXT NOT NULL, head BLOB NOT NULL,"
    " PRIMARY KEY (chain, idx)) WITHOUT ROWID",
)
KEEP_HEADS = 10_000

log = logging.getLogger(__name__)


class AuditLog:
    """Open after the store and the outbox, and after enrolment: the chain has the device's name."""

    def __init__(
        self, store: Store, outbox: Outbox, clock: Clock, *, device: str, key: Ed25519PrivateKey
    ) -> None:
        self.head: SignedHead | None = None  # newest on disk
        self._store = store
        self._outbox = outbox
        self._clock = clock
        self._device = device
        self._key = key
        # Touched in the writer thread only.
        self._next = 0
        self._previous = chain.GENESIS

    async def open(self) -> None:
        """Make or read the chain. Raises StoreError."""
        last = await self._store.write(self._create)
        self._store.on_rollback(self._reread)
        if last is not None:
            self.head = self._sign(last)

    def record(
        self,
        action: str,
        *,
        actor: str,
        outcome: Outcome,
        session: str | None = None,
        execution: str | None = None,
        reason: str | None = None,
        digest: str | None = None,
    ) -> asyncio.Future[AuditEntry]:
        """Append an entry as of now. The future gives it once it is on disk.

        `action` is `subject:verb`, `actor` a specialist's id, "approver-N", "portal" or "agent".
        Raises, through the future, AuditUnwritable.
        """
        fields: dict[str, Any] = {
            "at": self._clock.wall_ms(),
            "boot": self._clock.boot,
            "uptime_ms": self._clock.uptime_ms(),
        }
        named = {
            "action": action,
            "actor": actor,
            "outcome": outcome,
            "session": session,
            "execution": execution,
            "reason": reason,
            "digest": digest,
        }

        def work(connection: sqlite3.Connection) -> tuple[tuple[AuditEntry, SignedHead], Entry]:
            made = self._link({**fields, **named})
            head = self._sign(made)
            connection.execute(
                "INSERT INTO audit (idx, hash, entry) VALUES (?, ?, ?)",
                (made.index, made.hash, chain.canonical(made)),
            )
            _built, entry = self._outbox.insert(
                connection, Audit, {**fields, "entries": [made], "head": head}
            )
            self._next, self._previous = made.index + 1, made.hash
            return (made, head), entry

        return self._recorded(self._outbox.committing(work))

    def _recorded(
        self, written: asyncio.Future[tuple[AuditEntry, SignedHead]]
    ) -> asyncio.Future[AuditEntry]:
        result: asyncio.Future[AuditEntry] = written.get_loop().create_future()

        def done(future: asyncio.Future[tuple[AuditEntry, SignedHead]]) -> None:
            if future.cancelled():
                result.cancel()
                return
            error = future.exception()
            if error is None:
                made, self.head = future.result()
                if not result.cancelled():
                    result.set_result(made)
            elif not result.cancelled():
                result.set_exception(_unwritable(error))
                result.exception()  # the store has logged it

        written.add_done_callback(done)
        return result

    def keep_server_head(self, head: SignedHead, key: Ed25519PublicKey) -> asyncio.Future[str]:
        """Check and keep a head of the server's chain; gives what was found.

        "kept", "known", "unsigned", or "fork" when the server signed two histories.
        """

        def work(connection: sqlite3.Connection) -> str:
            (newest,) = connection.execute(
                "SELECT MAX(idx) FROM server_head WHERE chain = ?", (head.chain,)
            ).fetchone()
            # The server tells its newest head: an older one, known or not, means that its chain
            # became shorter, as after a restore from a backup.
            if newest is not None and newest > head.index:
                return "fork"
            known = connection.execute(
                "SELECT hash FROM server_head WHERE chain = ? AND idx = ?", (head.chain, head.index)
            ).fetchone()
            if known is not None:
                return "known" if known[0] == head.hash else "fork"
            connection.execute(
                "INSERT INTO server_head VALUES (?, ?, ?, ?)",
                (head.chain, head.index, head.hash, msgspec.json.encode(head)),
            )
            connection.execute(
                "DELETE FROM server_head WHERE chain = ? AND idx IN (SELECT idx FROM server_head"
                " WHERE chain = ? ORDER BY idx DESC LIMIT -1 OFFSET ?)",
                (head.chain, head.chain, KEEP_HEADS),
            )
            return "kept"

        if not chain.head_is_signed_by(head, key):
            unsigned: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            unsigned.set_result("unsigned")
            return unsigned
        return self._store.write(work)

    # --- in the writer thread ------------------------------------------------------------------

    def _create(self, connection: sqlite3.Connection) -> AuditEntry | None:
        for statement in _SCHEMA:
            connection.execute(statement)
        return self._read(connection)

    def _read(self, connection: sqlite3.Connection) -> AuditEntry | None:
        row = connection.execute("SELECT entry FROM audit ORDER BY idx DESC LIMIT 1").fetchone()
        if row is None:
            self._next, self._previous = 0, chain.GENESIS
            return None
        last = msgspec.json.decode(row[0], type=AuditEntry)
        self._next, self._previous = last.index + 1, last.hash
        return last

    def _reread(self, connection: sqlite3.Connection) -> None:
        self._read(connection)

    def _link(self, fields: dict[str, Any]) -> AuditEntry:
        made = AuditEntry(index=self._next, previous=self._previous, hash=chain.GENESIS, **fields)
        return msgspec.structs.replace(made, hash=chain.entry_hash(msgspec.to_builtins(made)))

    def _sign(self, entry: AuditEntry) -> SignedHead:
        return chain.sign_head(
            self._key, chain=self._device, index=entry.index, hash=entry.hash, at=entry.at
        )


def _unwritable(error: BaseException) -> BaseException:
    if isinstance(error, OutboxFull | StoreError):
        failure = AuditUnwritable(
            _("The audit log cannot be written, so remote access is refused. {detail}").format(
                detail=error
            )
        )
        failure.__cause__ = error
        return failure
    return error


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `verify` found. `bad` is the index of the first entry that does not fit."""

    entries: int
    bad: int | None
    head: str | None  # hash of the newest entry

    @property
    def good(self) -> bool:
        return self.bad is None


def verify(path: Path, *, head: SignedHead | None = None) -> Verdict:
    """Walk the whole chain of an `agent.db`, running or not; `head`, as the server holds it, also
    finds entries cut off the end. Raises StateError when the file cannot be read."""
    try:
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=5)
        try:
            rows = _Rows(connection, wanted=None if head is None else head.index)
            count, bad = chain.verify(rows)
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise StateError(
            _("{path} holds no audit log that can be read: {error}.").format(path=path, error=error)
        ) from error
    if bad is None and head is not None and rows.at_wanted != head.hash:
        bad = min(head.index, count)
    return Verdict(entries=count, bad=bad, head=rows.newest)


class _Rows:
    """Entries in order, as they stand in the file; remembers the newest hash and the wanted one."""

    def __init__(self, connection: sqlite3.Connection, wanted: int | None) -> None:
        self.newest: str | None = None
        self.at_wanted: str | None = None
        self._wanted = wanted
        self._cursor = connection.execute("SELECT entry FROM audit ORDER BY idx")

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for (data,) in self._cursor:
            try:
                entry = msgspec.to_builtins(msgspec.json.decode(data, type=AuditEntry))
            except (msgspec.DecodeError, UnicodeDecodeError):
                entry = {}  # no entry at all: it fits nowhere
            self.newest = entry.get("hash")
            if entry.get("index") == self._wanted:
                self.at_wanted = self.newest
            yield entry
