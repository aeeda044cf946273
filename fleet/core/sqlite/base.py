"""The database wrapper.

SQLite lets one connection write and has the others sleep and try again, a little longer each time;
who comes back to a free lock has it. Beside ingest, which takes the lock again a moment after it
gave it back, a person's request could lose that race until it fails. So the writers of this process
queue before they begin: a transaction (all of ours are IMMEDIATE) starts when its turn comes. Other
processes are left to SQLite.

The database's files are made for their owner alone, as every file of the portal is; SQLite itself
would leave them readable for the whole machine.
"""

import contextlib
import os
from pathlib import Path
from typing import Any

from django.db.backends.sqlite3 import base
from django.db.utils import OperationalError

from fleet.core import files
from fleet.core.sqlite.turnstile import Turnstile

_turnstile = Turnstile()


class DatabaseWrapper(base.DatabaseWrapper):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._has_turn = False

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        name = str(self.settings_dict["NAME"])
        if not name.startswith(("file:", ":memory:")):
            _close_to_others(Path(name))
        return super().get_new_connection(conn_params)

    def _start_transaction_under_autocommit(self) -> None:
        if not self._has_turn:
            timeout = float(self.settings_dict["OPTIONS"].get("timeout", 5))
            if not _turnstile.enter(timeout):
                raise OperationalError("database is locked: no turn to write within its timeout")
            self._has_turn = True
        try:
            super()._start_transaction_under_autocommit()  # type: ignore[misc]  # not in the stubs
        except BaseException:
            self._end_turn()
            raise

    def _commit(self) -> None:
        try:
            super()._commit()  # type: ignore[misc]  # not in the stubs
        finally:
            self._end_turn()

    def _rollback(self) -> None:
        try:
            super()._rollback()  # type: ignore[misc]  # not in the stubs
        finally:
            self._end_turn()

    def _close(self) -> None:
        try:
            super()._close()  # type: ignore[misc]  # not in the stubs
        finally:
            self._end_turn()

    def _end_turn(self) -> None:
        if self._has_turn:
            self._has_turn = False
            _turnstile.leave()


def _close_to_others(path: Path) -> None:
    """What cannot be made or changed here, opening the database says better."""
    with contextlib.suppress(OSError):
        # The log and its index take over the mode of the database.
        # A file that is there must not be opened here: closing it again would take away the locks
        # that every other connection of this process has on it (POSIX), and with the next process
        # that looks into the database it would be damaged.
        if not path.exists():
            with contextlib.suppress(FileExistsError):
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        for one in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
            if one.exists():
                files.close_to_others(one)
