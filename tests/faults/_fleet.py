"""The demo's injectors and server on disk, for experiments that start, kill and compare them.

Nothing here stands in for a part: `manage.py up` on the demo's data, whole agents with their
outboxes in a process of their own, the product lines' simulators. What each outbox kept on disk is
compared with the portal's database, event by event.
"""

import atexit
import contextlib
import functools
import json
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agent import control
from agent.errors import AgentError
from tests.demo import ROOT, Demo, until

START_S = 30.0
Key = tuple[str, int]


@functools.cache
def _enrolled() -> Demo:
    """The demo with all twelve enrolled, made once for all experiments of a run."""
    folder = tempfile.mkdtemp(prefix="patency-faults-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    demo = Demo(Path(folder) / "demo")
    demo.start()
    demo.stop()
    return demo


@contextlib.contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Killed at the end, if it did not end before."""
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the outboxes hold against what the portal holds. Events only."""

    lost: dict[str, list[Key]]
    extra: dict[str, list[Key]]
    rows: int
    made: int
    refused: int

    def demand_all_once(self, *, refused: bool = False) -> None:
        """Raises AssertionError. `refused`: whether some other messages may have been."""
        assert (self.lost, self.extra) == ({}, {})
        assert self.rows == self.made
        assert refused or self.refused == 0


class Fleet:
    """A copy of the enrolled demo in `folder`, with some of its injectors."""

    def __init__(self, folder: Path, count: int = 12) -> None:
        first = _enrolled()
        shutil.copytree(first.data, folder / "demo", symlinks=True)
        self.folder = folder
        self.demo = Demo(folder / "demo", http=first.http, mqtt=first.mqtt, info=first.info)
        self.states = {
            str(each["device"]): self.demo.data / "devices" / Path(each["state_dir"]).name
            for each in first.devices[:count]
        }
        self.database = self.demo.data / "portal.db"

    # --- processes -------------------------------------------------------------------------------

    @contextlib.contextmanager
    def serving(self) -> Iterator[subprocess.Popen[bytes]]:
        """The server, killed with SIGKILL at the end of the block."""
        with ended(self.demo.begin_server()) as process:
            until(lambda: listens(self.demo.mqtt), START_S)
            yield process

    @contextlib.contextmanager
    def storming(self, rate: float) -> Iterator[subprocess.Popen[bytes]]:
        """The agents, whose simulators make `rate` events a second together; killed likewise."""
        command = [sys.executable, "-m", "tests.storm", str(rate), *map(str, self.states.values())]
        with (self.folder / "storm.log").open("ab") as log:
            process = subprocess.Popen(command, cwd=ROOT, stderr=log)
        with ended(process):
            yield process

    def calm(self, storm: subprocess.Popen[bytes], within_s: float) -> None:
        """No more events; wait until all that there are have been decided on; stop the agents."""
        storm.send_signal(signal.SIGUSR1)
        until(lambda: not any(map(waiting, self.states.values())), within_s, 0.25)
        storm.terminate()
        assert storm.wait(15) == 0

    def connect_through(self, port: int) -> None:
        """Have the agents dial this port, at their next start."""
        for state in self.states.values():
            text = json.dumps([{"host": "localhost", "port": port}])
            (state / "servers.json").write_text(text)

    def online(self) -> int:
        return sum(is_online(state) for state in self.states.values())

    def all_online(self) -> bool:
        return self.online() == len(self.states)

    # --- what came of it -------------------------------------------------------------------------

    def compare(self) -> Comparison:
        made = {device: made_by(state) for device, state in self.states.items()}
        with contextlib.closing(sqlite3.connect(self.database)) as portal:
            rows = portal.execute("SELECT device_id, outbox, seq FROM telemetry_event").fetchall()
            [(refused,)] = portal.execute("SELECT COUNT(*) FROM mqtt_decision WHERE reason <> ''")
        rows = [row for row in rows if row[0] in made]
        kept = {device: {(o, s) for d, o, s in rows if d == device} for device in made}
        return Comparison(
            lost={d: found for d in made if (found := sorted(made[d] - kept[d]))},
            extra={d: found for d in made if (found := sorted(kept[d] - made[d]))},
            rows=len(rows),
            made=sum(map(len, made.values())),
            refused=int(refused),
        )


def listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def made_by(state: Path) -> set[Key]:
    """The keys of all events that this injector has put into its outbox."""
    with contextlib.closing(sqlite3.connect(state / "agent.db", timeout=10)) as database:
        rows = database.execute("SELECT payload FROM outbox WHERE type = 'event'").fetchall()
    found = [json.loads(payload) for (payload,) in rows]
    return {(each["outbox"], each["seq"]) for each in found}


def waiting(state: Path) -> int:
    with contextlib.closing(sqlite3.connect(state / "agent.db", timeout=10)) as database:
        [(count,)] = database.execute("SELECT COUNT(*) FROM outbox WHERE acknowledged_at IS NULL")
    return int(count)


def is_online(state: Path) -> bool:
    try:
        return bool(control.call(state, "status")["online"])
    except (AgentError, OSError):
        return False
