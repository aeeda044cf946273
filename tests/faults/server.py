"""What happens to the server and to the agent's process: killed, without a database, restored."""

import contextlib
import json
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

from tests.demo import until
from tests.faults import experiment
from tests.faults._fleet import Fleet, ended
from tests.relay import relaying
from tests.scale import scaled

DRAIN_S = 300.0
HOUR = 70  # messages that one injector makes in an hour: 1,584 in a day (`link-away`)


@experiment(
    "kill-server",
    fault="`kill -9` the server, 100 times, at 500 events/s",
    must="0 lost, 0 duplicate rows",
)
def kill_server(folder: Path) -> str:
    rate, kills = 500, scaled(100, at_least=3)
    fleet, chance = Fleet(folder), random.Random(7)
    before = fleet.compare().rows
    with fleet.storming(rate) as storm:
        began = time.monotonic()
        for _ in range(kills):
            with fleet.serving():
                time.sleep(2 + 2 * chance.random())
        with fleet.serving():
            time.sleep(2)
            lasted = time.monotonic() - began
            calmed = time.monotonic()
            fleet.calm(storm, DRAIN_S)
            drained = time.monotonic() - calmed
    found = fleet.compare()
    found.demand_all_once()
    stormed = found.rows - before
    assert stormed > rate * lasted * 0.5, f"{stormed} events in {lasted:.0f} s are no storm"
    return (
        f"{kills} kills in {lasted:.0f} s; {stormed:,} events of {len(fleet.states)} injectors"
        f" ({stormed / lasted:.0f}/s): 0 lost, 0 twice; drained {drained:.0f} s after the last"
    )


@experiment(
    "kill-agent",
    fault="`kill -9` the agent, 200 times",
    must="0 lost, 0 duplicate rows; back ≤ 10 s",
)
def kill_agent(folder: Path) -> str:
    rate, kills = 100, scaled(200, at_least=3)
    fleet, chance, back = Fleet(folder, 3), random.Random(7), []
    with fleet.serving():
        for _ in range(kills):
            began = time.monotonic()
            with fleet.storming(rate):
                until(fleet.all_online, 30)
                back.append(time.monotonic() - began)
                time.sleep(chance.random())
        with fleet.storming(rate) as storm:
            until(fleet.all_online, 30)
            fleet.calm(storm, DRAIN_S)
    assert max(back) <= 10
    found = fleet.compare()
    found.demand_all_once()
    assert found.rows > kills * 5, "there was hardly an event to lose"
    return (
        f"{kills} kills of a process with {len(fleet.states)} injectors; {found.rows:,} events:"
        f" 0 lost, 0 twice; back after {sorted(back)[len(back) // 2]:.1f} s (median),"
        f" {max(back):.1f} s (longest)"
    )


# Waits for a line, so that its lock lasts as long as the experiment says.
LOCK = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
database.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.readline()
database.execute("ROLLBACK")
"""


@contextlib.contextmanager
def _locked(database: Path) -> "contextlib.Generator[None]":
    process = subprocess.Popen(
        [sys.executable, "-c", LOCK, str(database)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with ended(process):
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"locked\n"
        yield
        process.stdin.write(b"\n")
        process.stdin.close()
        assert process.wait(60) == 0
        process.stdout.close()


@experiment(
    "database-away",
    fault="database away 10 minutes",
    must="0 lost, no reconnect storm, drained ≤ 5 minutes after",
)
def database_away(folder: Path) -> str:
    rate, away_s = 100, max(45.0, scaled(600))
    fleet = Fleet(folder)
    before = fleet.compare().rows
    with relaying(fleet.demo.mqtt) as relay:
        fleet.connect_through(relay.port)
        with fleet.serving(), fleet.storming(rate) as storm:
            until(fleet.all_online, 60)
            opened = relay.opened
            with _locked(fleet.database):
                time.sleep(away_s)
                online = fleet.online()
            ended_at = time.monotonic()
            fleet.calm(storm, DRAIN_S)
            drained = time.monotonic() - ended_at
            again = relay.opened - opened
    found = fleet.compare()
    found.demand_all_once()
    assert online == len(fleet.states)
    assert again == 0, f"{again} connections were made again"
    assert found.rows - before > rate * away_s * 0.5
    return (
        f"locked by another process for {away_s:.0f} s at {rate} events/s: {found.rows - before:,}"
        f" events, 0 lost, 0 twice; {again} reconnects; drained {drained:.0f} s after"
    )


@experiment(
    "restored",
    fault="restored from a backup an hour old",
    must="devices resend, the audit fork is flagged",
)
def restored(folder: Path) -> str:
    rate, kept = 50, folder / "backup.db"
    fleet = Fleet(folder, 4)
    with fleet.storming(rate) as storm:
        with fleet.serving():
            until(fleet.all_online, 60)
            with (
                contextlib.closing(sqlite3.connect(fleet.database)) as live,
                contextlib.closing(sqlite3.connect(kept)) as copy,
            ):
                live.backup(copy)
            _ask_everyone(fleet)  # makes entries in the server's own chains
            time.sleep(max(8, scaled(60)))  # and the newest heads are told every five seconds
        at_backup, at_loss = _rows(kept), _rows(fleet.database)
        for name in ("portal.db", "portal.db-wal", "portal.db-shm"):
            (fleet.demo.data / name).unlink(missing_ok=True)
        shutil.copy(kept, fleet.database)
        with fleet.serving():
            until(fleet.all_online, 60)
            until(lambda: _rows(fleet.database) >= at_loss, 60)
            until(lambda: len(_forks(fleet.database)) == len(fleet.states), 60)
            fleet.calm(storm, DRAIN_S)
            flagged = len(_forks(fleet.database))
    found = fleet.compare()
    found.demand_all_once(refused=True)  # what is about sessions that the backup does not know
    assert at_loss - at_backup > HOUR * len(fleet.states), "that is no hour's worth"
    assert flagged == len(fleet.states)
    return (
        f"{at_loss - at_backup:,} events were younger than the backup, those of"
        f" {(at_loss - at_backup) / HOUR / len(fleet.states):.1f} hours: all sent again, 0 lost,"
        f" 0 twice; {flagged} of {len(fleet.states)} devices flagged the server's shorter chain;"
        f" {found.refused} messages about sessions younger than the backup refused and told"
    )


def _ask_everyone(fleet: Fleet) -> None:
    with fleet.demo.api() as api:
        for device in fleet.states:
            body = {"device": device, "level": "os", "services": ["ssh"], "reason": "repair"}
            answer = api.post("access/sessions/", json=body)
            assert answer.status_code == 201, answer.text


def _rows(database: Path) -> int:
    with contextlib.closing(sqlite3.connect(database, timeout=10)) as portal:
        [(count,)] = portal.execute("SELECT COUNT(*) FROM telemetry_event")
    return int(count)


def _forks(database: Path) -> set[str]:
    """Devices in whose record the portal's audit chain has two versions."""
    with contextlib.closing(sqlite3.connect(database, timeout=10)) as portal:
        rows = portal.execute(
            "SELECT device_id, entry FROM audit_deviceentry WHERE action = 'audit:server_head'"
        ).fetchall()
    return {device for device, entry in rows if json.loads(entry)["reason"] == "fork"}
