"""kill -9 of the server while the demo's own injectors make 500 events a second (R-CON-5).

Nothing here stands in for a part: `manage.py up` on the demo's data, whole agents with their
outboxes in a process of their own, the product lines' simulators. What each outbox kept on disk is
compared with the portal's database, event by event.
"""

import contextlib
import json
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.demo import ROOT, Demo, until
from tests.scale import SCALE

RATE = 500
KILLS = 20 if SCALE >= 1 else 3
START_S = 30.0
DRAIN_S = 90.0


@contextlib.contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _serve(demo: Demo) -> subprocess.Popen[bytes]:
    """The server without the demo's children, on the same data and ports; serving."""
    process = demo.begin_server()
    until(lambda: _listens(demo), START_S)
    return process


def _listens(demo: Demo) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", demo.mqtt)) == 0


def _made(state: Path) -> set[tuple[str, int]]:
    """The keys of all events that this injector has put into its outbox."""
    with contextlib.closing(sqlite3.connect(state / "agent.db")) as database:
        rows = database.execute("SELECT payload FROM outbox WHERE type = 'event'").fetchall()
    found = [json.loads(payload) for (payload,) in rows]
    return {(each["outbox"], each["seq"]) for each in found}


def _waiting(state: Path) -> int:
    with contextlib.closing(sqlite3.connect(state / "agent.db", timeout=10)) as database:
        [(count,)] = database.execute("SELECT COUNT(*) FROM outbox WHERE acknowledged_at IS NULL")
    return int(count)


def _none(found: dict[str, list[tuple[str, int]]]) -> dict[str, list[tuple[str, int]]]:
    """Without the devices that have none: what a failure shows."""
    return {device: keys for device, keys in found.items() if keys}


@pytest.mark.timeout(600)
def test_every_event_the_simulators_made_is_in_the_database_once(tmp_path: Path) -> None:
    demo = Demo(tmp_path / "demo")
    demo.start()  # enrols all twelve
    demo.stop()
    states = {str(each["device"]): Path(each["state_dir"]) for each in demo.devices}
    began = {state: len(_made(state)) for state in states.values()}
    chance = random.Random(7)
    command = [sys.executable, "-m", "tests.storm", str(RATE), *map(str, states.values())]
    log = (tmp_path / "storm.log").open("wb")
    with log, _ended(subprocess.Popen(command, cwd=ROOT, stderr=log)) as storm:
        started = time.monotonic()
        for _ in range(KILLS):
            with _ended(_serve(demo)):
                time.sleep(2 + 2 * chance.random())
        with _ended(_serve(demo)):
            time.sleep(2)
            storm.send_signal(signal.SIGUSR1)
            lasted = time.monotonic() - started
            until(lambda: not any(map(_waiting, states.values())), DRAIN_S, 0.5)
            storm.terminate()
            assert storm.wait(15) == 0

    made = {device: _made(state) for device, state in states.items()}
    with contextlib.closing(sqlite3.connect(demo.data / "portal.db")) as portal:
        rows = portal.execute("SELECT device_id, outbox, seq FROM telemetry_event").fetchall()
        [(refused,)] = portal.execute("SELECT COUNT(*) FROM mqtt_decision WHERE reason <> ''")
    kept = {device: {(o, s) for d, o, s in rows if d == device} for device in states}
    lost = {device: sorted(made[device] - kept[device]) for device in states}
    extra = {device: sorted(kept[device] - made[device]) for device in states}
    assert (_none(lost), _none(extra)) == ({}, {})
    assert len(rows) == sum(map(len, made.values()))
    assert refused == 0
    stormed = len(rows) - sum(began.values())
    assert stormed > RATE * lasted * 0.5, f"{stormed} events in {lasted:.0f} s are no storm"
