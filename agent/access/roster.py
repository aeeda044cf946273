"""The roster that this injector believes, kept in `agent.db` (R-ACC-4, R-ACC-9).

Signed by the trust key of the provisioning bundle, which the portal does not have. It is verified
when it comes and again when it is read back; its version never goes down, and two rosters of one
version are one too many. An expired roster stays: who asks is told that, and not that nobody knows
them.
"""

import logging
import sqlite3

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from agent.errors import PeerError
from agent.i18n import _
from agent.store import Store
from agent.wire import roster as rosters
from agent.wire.messages import RosterUpdate
from agent.wire.roster import Roster, RosterError

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS roster ("
    " only INTEGER PRIMARY KEY CHECK (only = 1), version INTEGER NOT NULL,"
    " data BLOB NOT NULL, signature BLOB NOT NULL)"
)
_Row = tuple[int, bytes, bytes]  # version, data, signature

log = logging.getLogger(__name__)


class RosterStore:
    def __init__(self, store: Store, trust_key: Ed25519PublicKey) -> None:
        self.current: Roster | None = None
        self._store = store
        self._trust_key = trust_key
        self._version = 0  # the highest ever kept, whether or not it can be used
        self._data = b""

    @property
    def version(self) -> int:
        """What is in use; 0 when nothing is."""
        return self.current.version if self.current else 0

    async def open(self) -> None:
        """Raises StoreError."""
        row = await self._store.write(_read)
        if row is None:
            return
        self._version, self._data, signature = row
        try:
            # Whether it has expired is asked at every request, by the clock of that moment.
            self.current = rosters.verify(
                self._data, signature, trust_key=self._trust_key, version=self._version, now=0
            )
        except RosterError as error:
            log.error("the roster on disk cannot be believed: %s", error)

    def check(self, update: RosterUpdate, wall_ms: int) -> Roster | None:
        """The roster of this update; None when it is the one in use. Raises PeerError."""
        if self.current is not None and update.roster == self._data:
            return None
        try:
            new = rosters.verify(
                update.roster,
                update.signature,
                trust_key=self._trust_key,
                version=self._version,
                now=wall_ms,
            )
        except RosterError as error:
            raise PeerError(_("The roster cannot be believed: {why}.").format(why=error)) from error
        if new.version == self._version and update.roster != self._data:
            raise PeerError(_("There are two rosters of one version."))
        return new

    async def keep(self, update: RosterUpdate, new: Roster) -> None:
        """On disk when it returns. Raises StoreError."""
        self.current, self._version, self._data = new, new.version, update.roster
        await self._store.write(
            lambda db: _write(db, (new.version, update.roster, update.signature))
        )


def _read(connection: sqlite3.Connection) -> _Row | None:
    connection.execute(_SCHEMA)
    row: _Row | None = connection.execute(
        "SELECT version, CAST(data AS BLOB), CAST(signature AS BLOB) FROM roster"
    ).fetchone()
    return row


def _write(connection: sqlite3.Connection, row: _Row) -> None:
    connection.execute("INSERT OR REPLACE INTO roster VALUES (1, ?, ?, ?)", row)
