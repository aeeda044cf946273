"""What the trust key signed for this injector, kept in `agent.db` (R-ACC-4, R-ACC-7, R-ACC-9).

The roster says whom to believe, the entitlement what may be done here. Both are signed by the trust
key of the provisioning bundle, which the portal does not have. Each is verified when it comes and
again when it is read back; its version never goes down, and two of one version are one too many.
An expired one stays: who asks is told that, and not that there never was one.
"""

import logging
import sqlite3
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from agent.errors import PeerError
from agent.i18n import _
from agent.store import Store
from agent.wire import entitlement as entitlements
from agent.wire import roster as rosters
from agent.wire.catalogue import ProductLineCode
from agent.wire.entitlement import Entitlement
from agent.wire.roster import Roster

_Row = tuple[int, bytes, bytes]  # version, data, signature


class Versioned(Protocol):
    @property
    def version(self) -> int: ...


Document = TypeVar("Document", bound=Versioned)
# data, signature, lowest version, milliseconds of the wall clock (0: whenever). Raises ValueError.
Verify = Callable[[bytes, bytes, int, int], Document]

log = logging.getLogger(__name__)


class Signed(Generic[Document]):
    """The newest document of one kind, which `table` names on disk."""

    def __init__(self, store: Store, table: str, verify: Verify[Document]) -> None:
        self.current: Document | None = None
        self._store = store
        self._table = table
        self._verify = verify
        self._version = 0  # the highest ever kept, whether or not it can be used
        self._data = b""

    @property
    def version(self) -> int:
        """What is in use; 0 when nothing is."""
        return self.current.version if self.current else 0

    async def open(self) -> None:
        """Raises StoreError."""
        row = await self._store.write(self._read)
        if row is None:
            return
        self._version, self._data, signature = row
        try:
            # Whether it has expired is asked at every request, by the clock of that moment.
            self.current = self._verify(self._data, signature, self._version, 0)
        except ValueError as error:
            log.error("the %s on disk cannot be believed: %s", self._table, error)

    def check(self, data: bytes, signature: bytes, wall_ms: int) -> Document | None:
        """The document in these bytes; None when it is the one in use. Raises PeerError."""
        if self.current is not None and data == self._data:
            return None
        try:
            new = self._verify(data, signature, self._version, wall_ms)
        except ValueError as error:
            raise PeerError(
                _("The {what} cannot be believed: {why}.").format(what=self._table, why=error)
            ) from error
        if new.version == self._version and data != self._data:
            raise PeerError(_("There are two of one version: {what}.").format(what=self._table))
        return new

    async def keep(self, data: bytes, signature: bytes, new: Document) -> None:
        """On disk when it returns. Raises StoreError."""
        self.current, self._version, self._data = new, new.version, data
        await self._store.write(lambda db: self._write(db, (new.version, data, signature)))

    def _read(self, connection: sqlite3.Connection) -> _Row | None:
        connection.execute(
            f"CREATE TABLE IF NOT EXISTS {self._table} ("
            " only INTEGER PRIMARY KEY CHECK (only = 1), version INTEGER NOT NULL,"
            " data BLOB NOT NULL, signature BLOB NOT NULL)"
        )
        row: _Row | None = connection.execute(
            f"SELECT version, CAST(data AS BLOB), CAST(signature AS BLOB) FROM {self._table}"  # noqa: S608  one of ours
        ).fetchone()
        return row

    def _write(self, connection: sqlite3.Connection, row: _Row) -> None:
        connection.execute(f"INSERT OR REPLACE INTO {self._table} VALUES (1, ?, ?, ?)", row)  # noqa: S608


def roster_store(store: Store, trust_key: Ed25519PublicKey) -> Signed[Roster]:
    def verify(data: bytes, signature: bytes, version: int, now: int) -> Roster:
        return rosters.verify(data, signature, trust_key=trust_key, version=version, now=now)

    return Signed(store, "roster", verify)


def entitlement_store(
    store: Store, trust_key: Ed25519PublicKey, product_line: ProductLineCode, serial: str
) -> Signed[Entitlement]:
    def verify(data: bytes, signature: bytes, version: int, now: int) -> Entitlement:
        new = entitlements.verify(data, signature, trust_key=trust_key, version=version)
        if (new.product_line, new.serial) != (product_line, serial):
            raise entitlements.EntitlementError("it is for another injector")
        return new

    return Signed(store, "entitlement", verify)
