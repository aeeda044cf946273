"""PINs of the people who may approve at this injector, and the lock after five wrong tries.

An approver is a local number, 1 to 99; no name is kept (R-PRV-1). A PIN is six to twelve digits,
stored as scrypt with its own salt. Every stored PIN is tried, in full, whichever it is, so time
tells nothing; and no two approvers may have the same PIN, or a receipt would name the wrong one.

Tries are counted on disk before a PIN is looked at, so killing the agent forgets none. The lock
runs 15 minutes on the boot clock; after a boot it begins again, since the wall clock may be set.
"""

import asyncio
import hashlib
import hmac
import re
import secrets
import sqlite3
from dataclasses import dataclass

from agent.clock import Clock
from agent.errors import ControlError
from agent.i18n import _
from agent.store import Store

TRIES = 5
LOCK_S = 15 * 60.0
MAX_APPROVERS = 16  # each costs a try about 50 ms
# About 50 ms and 16 MiB: six digits do not stand up to a stolen disk whatever the cost.
_N, _R, _P, _LENGTH = 2**14, 8, 1, 32
_PIN = re.compile(r"[0-9]{6,12}")
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS pin ("
    " approver INTEGER PRIMARY KEY CHECK (approver BETWEEN 1 AND 99),"
    " salt BLOB NOT NULL, hash BLOB NOT NULL)",
    "CREATE TABLE IF NOT EXISTS pin_tries ("
    " only INTEGER PRIMARY KEY CHECK (only = 1), wrong INTEGER NOT NULL,"
    " boot TEXT, locked_until REAL)",
    "INSERT OR IGNORE INTO pin_tries (only, wrong) VALUES (1, 0)",
    "CREATE TABLE IF NOT EXISTS pin_specialist ("
    " approver INTEGER PRIMARY KEY CHECK (approver BETWEEN 1 AND 99), specialist TEXT NOT NULL)",
)
_Stored = list[tuple[int, bytes, bytes]]  # approver, salt, hash


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whose PIN it was; or nobody's, and whether no more are looked at for now."""

    approver: int | None
    locked: bool = False
    left: int = 0  # tries left, when it was wrong
    specialist: str | None = None  # whom the site knows this approver to be, on the roster


class Pins:
    """In `agent.db`. One check at a time."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._one = asyncio.Lock()

    async def open(self) -> None:
        """Raises StoreError."""
        await self._store.write(_create)

    async def approvers(self) -> list[int]:
        """Numbers that have a PIN."""
        return [number for number, _salt, _hash in await self._store.write(_stored)]

    async def set(self, approver: int, pin: str, specialist: str | None = None) -> None:
        """`specialist` is who this approver is on the roster, where they are on it: nobody approves
        their own session. Raises ControlError when it may not be, StoreError."""
        if not 1 <= approver <= 99:
            raise ControlError("bad_approver", _("An approver's number is 1 to 99."))
        if not _PIN.fullmatch(pin):
            raise ControlError("bad_pin", _("A PIN has 6 to 12 digits."))
        async with self._one:
            stored = await self._store.write(_stored)
            others = [row for row in stored if row[0] != approver]
            if len(others) >= MAX_APPROVERS:
                raise ControlError(
                    "too_many",
                    _("At most {count} approvers have a PIN.").format(count=MAX_APPROVERS),
                )
            if await asyncio.to_thread(_whose, others, pin) is not None:
                raise ControlError("bad_pin", _("Choose another PIN."))
            salt = secrets.token_bytes(16)
            hash = await asyncio.to_thread(_hash, pin, salt)
            await self._store.write(lambda c: _put(c, approver, salt, hash, specialist))

    async def check(self, pin: str) -> Verdict:
        """Whose PIN this is. Raises StoreError: then the try was not looked at."""
        async with self._one:
            stored, left = await self._store.write(self._begin)
            if left is None:
                return Verdict(None, locked=True)
            # Anything that is no PIN costs the same.
            approver = await asyncio.to_thread(_whose, stored, pin if _PIN.fullmatch(pin) else "")
            if approver is not None:
                specialist = await self._store.write(lambda c: _forgive(c, approver))
                return Verdict(approver, specialist=specialist)
            return Verdict(None, locked=left == 0, left=left)

    def _begin(self, connection: sqlite3.Connection) -> tuple[_Stored, int | None]:
        """Count the try before it is made. Gives what is stored and how many are left after it,
        None when locked. Runs in the store's thread."""
        wrong, boot, until = connection.execute(
            "SELECT wrong, boot, locked_until FROM pin_tries"
        ).fetchone()
        now = self._clock.now()
        if until is not None:
            if boot != self._clock.boot:
                until = now + LOCK_S
                _lock(connection, wrong, self._clock.boot, until)
            if now < until:
                return [], None
            wrong = 0
        wrong += 1
        until = now + LOCK_S if wrong >= TRIES else None
        _lock(connection, wrong, self._clock.boot, until)
        return _stored(connection), TRIES - wrong


def _create(connection: sqlite3.Connection) -> None:
    for statement in _SCHEMA:
        connection.execute(statement)


def _stored(connection: sqlite3.Connection) -> _Stored:
    return connection.execute("SELECT approver, salt, hash FROM pin ORDER BY approver").fetchall()


def _put(
    connection: sqlite3.Connection, approver: int, salt: bytes, hash: bytes, specialist: str | None
) -> None:
    """A new PIN without a specialist keeps the one that is bound."""
    connection.execute("INSERT OR REPLACE INTO pin VALUES (?, ?, ?)", (approver, salt, hash))
    if specialist is not None:
        connection.execute(
            "INSERT OR REPLACE INTO pin_specialist VALUES (?, ?)", (approver, specialist)
        )


def _lock(connection: sqlite3.Connection, wrong: int, boot: str, until: float | None) -> None:
    connection.execute(
        "UPDATE pin_tries SET wrong = ?, boot = ?, locked_until = ?", (wrong, boot, until)
    )


def _forgive(connection: sqlite3.Connection, approver: int) -> str | None:
    """Forget the wrong tries; gives whom the site knows this approver to be."""
    connection.execute("UPDATE pin_tries SET wrong = 0, boot = NULL, locked_until = NULL")
    row = connection.execute(
        "SELECT specialist FROM pin_specialist WHERE approver = ?", (approver,)
    ).fetchone()
    return row[0] if row else None


def _hash(pin: str, salt: bytes) -> bytes:
    return hashlib.scrypt(pin.encode(), salt=salt, n=_N, r=_R, p=_P, dklen=_LENGTH)


def _whose(stored: _Stored, pin: str) -> int | None:
    found = None
    for approver, salt, hash in stored:
        if hmac.compare_digest(_hash(pin, salt), hash):
            found = approver
    return found
