"""Copying what was committed from the write-ahead log into the database file, at a time of ours.

SQLite does it inside whichever commit fills the log past its mark, with an fsync of the database
file: several milliseconds that one request in fifty would wait for. The portal's writer thread does
it every 15 seconds instead, beside readers and writers; the mark stays as a backstop, far off
(`wal_autocheckpoint` in the settings), for processes that have no such thread.
"""

from datetime import datetime

from django.db import connection


def checkpoint(_now: datetime) -> None:
    """Copy what no reader still needs. Waits for nobody; other databases do this themselves."""
    if connection.vendor != "sqlite":
        return
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA wal_checkpoint(PASSIVE)")
