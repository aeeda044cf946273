"""What a restart must not forget of access, in `agent.db`: which sessions there were, so that it
can report what it ended and no session's id is used twice; and how often each passkey was used."""

import sqlite3

from agent.access.desk import Kept
from agent.access.effects import Count, Keep
from agent.wire.catalogue import SessionState

KEPT = 4096  # sessions
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS access_session ("
    " number INTEGER PRIMARY KEY, session TEXT NOT NULL UNIQUE, request TEXT NOT NULL,"
    " specialist TEXT NOT NULL, state TEXT NOT NULL)"
)

_USES = "CREATE TABLE IF NOT EXISTS passkey_use (id BLOB PRIMARY KEY, uses INTEGER NOT NULL)"


def open_ledger(connection: sqlite3.Connection) -> list[Kept]:
    """Every session kept, oldest first."""
    connection.execute(_SCHEMA)
    rows = connection.execute(
        "SELECT session, request, specialist, state FROM access_session ORDER BY number"
    )
    return [Kept(s, request, who, SessionState(state)) for s, request, who, state in rows]


def open_uses(connection: sqlite3.Connection) -> dict[bytes, int]:
    """The counter of each passkey's last use. As many rows as the rosters ever had passkeys."""
    connection.execute(_USES)
    return dict(connection.execute("SELECT id, uses FROM passkey_use"))


def count(connection: sqlite3.Connection, effect: Count) -> None:
    connection.execute(
        "INSERT INTO passkey_use VALUES (?, ?)"
        " ON CONFLICT (id) DO UPDATE SET uses = MAX(uses, excluded.uses)",
        (effect.passkey, effect.uses),
    )


def keep(connection: sqlite3.Connection, effect: Keep) -> None:
    connection.execute(
        "INSERT INTO access_session (session, request, specialist, state) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (session) DO UPDATE SET state = excluded.state",
        (effect.session, effect.request, effect.specialist, effect.state.value),
    )
    connection.execute(
        "DELETE FROM access_session WHERE number <= (SELECT MAX(number) FROM access_session) - ?",
        (KEPT,),
    )
