"""Writers of one process take turns (R-CON-4: a request does not lose to a flood of events)."""

import os
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from django.db import OperationalError, connection, transaction

from fleet.accounts.models import Organisation
from fleet.core.sqlite import base
from fleet.core.sqlite.checkpoint import checkpoint
from fleet.core.sqlite.turnstile import Turnstile
from fleet.mqtt.models import Decision


def test_turns_come_in_order() -> None:
    turnstile = Turnstile()
    assert turnstile.enter(0)
    order: list[int] = []

    def wait(number: int) -> None:
        assert turnstile.enter(5)
        order.append(number)
        turnstile.leave()

    threads = []
    for number in range(5):
        thread = threading.Thread(target=wait, args=(number,))
        thread.start()
        threads.append(thread)
        while len(turnstile._waiting) <= number:
            time.sleep(0.001)
    assert not turnstile.enter(0.01)  # gives up, and is not called later
    turnstile.leave()
    for thread in threads:
        thread.join()
    assert order == [0, 1, 2, 3, 4]
    assert turnstile.enter(0)


@pytest.mark.django_db(transaction=True)
def test_a_writer_that_never_pauses_keeps_nobody_out() -> None:
    stop = threading.Event()
    rounds = [0]

    def flood() -> None:
        while not stop.is_set():
            with transaction.atomic():
                Decision.objects.filter(pk=0).update(length=1)
                time.sleep(0.02)
            rounds[0] += 1
        connection.close()

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        waits = []
        for _ in range(10):
            started = time.monotonic()
            with transaction.atomic():
                waits.append(time.monotonic() - started)
            time.sleep(0.005)  # the flood begins its next transaction
    finally:
        stop.set()
        thread.join()
    assert sorted(waits)[-3] < 0.5  # a busy machine may stand still now and then
    assert rounds[0] >= 5


@pytest.mark.django_db(transaction=True)
def test_a_turn_ends_with_its_transaction_however_that_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def free() -> bool:
        if base._turnstile.enter(0):
            base._turnstile.leave()
            return True
        return False

    with transaction.atomic():
        assert not free()
        with transaction.atomic():
            assert not free()
        assert not free()
    assert free()
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        _ = 1 / 0
    assert free()
    with pytest.raises(OperationalError), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELEC")
    assert free()
    with transaction.atomic():
        assert connection.connection is not None
    connection.close()
    assert free()
    with monkeypatch.context() as patch:
        patch.setitem(connection.settings_dict["OPTIONS"], "timeout", 0.01)
        assert base._turnstile.enter(0)
        with pytest.raises(OperationalError, match="no turn"), transaction.atomic():
            pass
        base._turnstile.leave()
    with transaction.atomic():
        pass
    assert free()


@pytest.mark.django_db(transaction=True)
def test_a_checkpoint_moves_what_was_committed_into_the_file_and_waits_for_no_writer(
    tmp_path: Path,
) -> None:
    def in_file() -> int:
        """Organisations in the database file by itself, without its log."""
        alone = tmp_path / "alone.db"
        # Not in this process: closing the file would take away its connections' locks.
        subprocess.run(["cp", str(connection.settings_dict["NAME"]), str(alone)], check=True)
        with closing(sqlite3.connect(f"file:{alone}?immutable=1", uri=True)) as copied:
            [(count,)] = copied.execute("SELECT count(*) FROM accounts_organisation")
        return int(count)

    now = datetime.now(UTC)
    checkpoint(now)
    before = in_file()
    Organisation.objects.create(name="North", kind="hospital")
    assert in_file() == before  # SQLite's own mark is far off
    checkpoint(now)
    assert in_file() == before + 1

    writing, done = threading.Event(), threading.Event()

    def write() -> None:
        with transaction.atomic():
            writing.set()
            done.wait(10)
        connection.close()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        assert writing.wait(10)
        started = time.monotonic()
        checkpoint(now)
        assert time.monotonic() - started < 2
    finally:
        done.set()
        thread.join()


@pytest.mark.django_db(transaction=True)
def test_the_databases_files_are_the_owners_alone() -> None:
    """R-PRV-1: also those that an earlier version made."""
    path = Path(str(connection.settings_dict["NAME"]))
    files = [path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")]
    Organisation.objects.create(name="x", kind="vendor")
    for file in files:
        file.chmod(0o644)
    connection.close()
    assert Organisation.objects.count() == 1
    assert [file.stat().st_mode & 0o777 for file in files] == [0o600] * 3


_ASK = """
import fcntl, os, struct, sys
asked = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
file = os.open(sys.argv[1], os.O_RDWR)
sys.exit(struct.unpack("hhqqi", fcntl.fcntl(file, fcntl.F_GETLK, asked))[0] == fcntl.F_UNLCK)
"""
_CONNECT = """
import subprocess, sys, threading, django
django.setup()
from django.db import connection

def look():
    with connection.cursor() as cursor:
        cursor.execute("SELECT COUNT(*) FROM sqlite_master")

def other():
    look()
    connection.close()

def locked():
    command = [sys.executable, "-c", sys.argv[1], str(connection.settings_dict["NAME"])]
    return subprocess.run(command, timeout=20).returncode == 0

look()  # this connection holds its lock as long as it lives
print(locked())
for _ in range(2):
    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
print(locked())
"""


def test_another_connection_takes_no_lock_away(tmp_path: Path) -> None:
    """Without its locks a database is damaged by the next process that looks into it. In a process
    of its own: whatever opens and closes the file beside SQLite takes away the locks as well."""
    settings = {"DJANGO_SETTINGS_MODULE": "fleet.settings", "PATENCY_DATA": str(tmp_path)}
    said = subprocess.run(
        [sys.executable, "-c", _CONNECT, _ASK],
        env={**os.environ, **settings}, cwd=Path(__file__).parents[3],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (said.stdout.split(), said.returncode) == (["True", "True"], 0), said.stderr


def test_a_new_database_is_made_for_its_owner(tmp_path: Path) -> None:
    base._close_to_others(tmp_path / "new.db")
    assert (tmp_path / "new.db").stat().st_mode & 0o777 == 0o600
    base._close_to_others(Path("/proc/x/new.db"))  # opening it says what is wrong
