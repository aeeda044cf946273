"""Which sessions there were, in `agent.db`: so that a restart can report what it ended, and so
that no session's id is used twice."""

import sqlite3

from agent.access.desk import Kept
from agent.access.effects import Keep
from agent.wire.catalogue import SessionState

KEPT = 4096  # sessions
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS access_session ("
    " number INTEGER PRIMARY KEY, session TEXT NOT NULL UNIQUE, request TEXT NOT NULL,"
    " specialist TEXT NOT NULL, state TEXT NOT NULL)"
)


def open_ledger(connection: sqlite3.Connection) -> list[Kept]:
    """Every session kept, oldest first."""
    connection.execute(_SCHEMA)
    rows = connection.execute(
        "SELECT session, request, specialist, state FROM access_session ORDER BY number"
    )
    return [Kept(s, request, who, SessionState(state)) for s, request, who, state in rows]


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
