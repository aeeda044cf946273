"""Two access servers, twelve injectors: kill -9 of one while events flow (R-CON-5, R-MNT-3).

Everything is real and a process of its own: the portal (`up --only web`), two access servers
(`up --only gate`) on bundles that the portal made, and whole agents with their outboxes, enrolled
by the demo and told of the access servers over the wire. What each outbox kept on disk is compared
with the portal's database, event by event.
"""

import contextlib
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests import sessions
from tests.demo import ROOT, Demo, until
from tests.faults._fleet import START_S, ended, made_by, waiting
from tests.scale import SCALE
from tests.servers import AccessServer

RATE = 200
BACK_S = 15.0  # the contract's bound
DRAIN_S = 90.0
ROUNDS = 6 if SCALE >= 1 else 1


@dataclass
class Fleet:
    demo: Demo
    east: AccessServer
    west: AccessServer

    @property
    def states(self) -> dict[str, Path]:
        return {str(each["device"]): Path(each["state_dir"]) for each in self.demo.devices}

    @contextlib.contextmanager
    def portal(self) -> Iterator["subprocess.Popen[bytes]"]:
        """The portal without a gate of its own, linked to both; killed at the end."""
        with ended(self.demo.begin_server("--only", "web")) as process:
            until(lambda: self.linked() == {"east", "west"}, START_S)
            yield process

    def _rows(self, query: str) -> list[tuple[str, ...]]:
        with contextlib.closing(sqlite3.connect(self.demo.data / "portal.db")) as database:
            rows: list[tuple[str, ...]] = database.execute(query).fetchall()
        return rows

    def linked(self) -> set[str]:
        return {
            name for (name,) in self._rows("SELECT name FROM servers_accessserver WHERE linked")
        }

    def on(self) -> dict[str, int]:
        """How many devices are on line at each access server."""
        return dict(
            self._rows(  # type: ignore[arg-type]
                "SELECT access_server, COUNT(*) FROM inventory_device WHERE online GROUP BY 1"
            )
        )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Enrolled at the main server, and told of two access servers that are about to run."""
    folder = tmp_path_factory.mktemp("fleet")
    demo = Demo(folder / "demo", environment={"PATENCY_NOTICE_DAYS": "0"})
    with (
        AccessServer("east", folder / "east") as east,
        AccessServer("west", folder / "west") as west,
    ):
        found = Fleet(demo, east, west)
        try:
            demo.start()
            _add(found)
            until(lambda: all(map(_informed, found.states.values())), 20)
        finally:
            demo.stop()
        for server in (east, west):
            demo.manage("access-server", "bundle", server.name, "--out", str(server.folder))
        yield found


@pytest.fixture
def fleet(made: Fleet) -> Fleet:
    """With both of them running."""
    for server in (made.east, made.west):
        server.kill()
        server.start()
    return made


def _add(fleet: Fleet) -> None:
    with fleet.demo.api("administrator") as api:
        for position, server in enumerate((fleet.east, fleet.west)):
            answer = api.post(
                "servers/",
                json={
                    "name": server.name, "host": "localhost", "address": "127.0.0.1",
                    "port": server.port, "place": "here", "region": "test",
                    "link": f"127.0.0.1:{server.link}", "position": position,
                    "listed_on": time.strftime("%Y-%m-%d", time.gmtime()),
                },
            )  # fmt: skip
            assert answer.status_code == 201, answer.text


def _informed(state: Path) -> bool:
    """It holds the new list beside the one that has worked."""
    offered = state / "servers-offered.json"
    return offered.exists() and offered.read_text().count('"host"') == 2


def _sockets(process: "subprocess.Popen[bytes]") -> set[tuple[int, int]]:
    found = psutil.Process(process.pid).net_connections("tcp")
    return {(c.laddr.port, c.raddr.port) for c in found if c.status == "ESTABLISHED"}


@contextlib.contextmanager
def _storm(fleet: Fleet, log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    command = [sys.executable, "-m", "tests.storm", str(RATE), *map(str, fleet.states.values())]
    with log.open("wb") as file, ended(subprocess.Popen(command, cwd=ROOT, stderr=file)) as storm:
        yield storm


@pytest.mark.timeout(600)
def test_an_access_server_is_killed_while_events_flow(fleet: Fleet, tmp_path: Path) -> None:
    began = {state: len(made_by(state)) for state in fleet.states.values()}
    with _storm(fleet, tmp_path / "storm.log") as storm:
        with fleet.portal():
            until(lambda: fleet.on() == {"east": 12}, 30)
            for _ in range(ROUNDS):
                for dies, takes in ((fleet.east, fleet.west), (fleet.west, fleet.east)):
                    time.sleep(1)
                    dies.kill()
                    until(lambda takes=takes: fleet.on() == {takes.name: 12}, BACK_S)
                    dies.start()
                    until(lambda: fleet.linked() == {"east", "west"}, 15)
            before = _sockets(storm)
            assert len(before) == 12
        time.sleep(10)  # the portal is dead, and injectors neither leave nor knock again
        assert _sockets(storm) == before
        with fleet.portal():
            until(lambda: fleet.on() == {"east": 12}, 15)
            assert _sockets(storm) == before
            time.sleep(2)
            storm.send_signal(signal.SIGUSR1)
            until(lambda: not any(map(waiting, fleet.states.values())), DRAIN_S, 0.5)
            storm.terminate()
            assert storm.wait(15) == 0
    _compare(fleet, began)


@pytest.mark.timeout(180)
def test_an_open_stream_goes_on_at_the_next_access_server(fleet: Fleet, tmp_path: Path) -> None:
    """A specialist's connection through an access server that is killed: the same TCP connection
    at both ends, not a byte lost, and one more request that finds its way to the new place."""
    device = fleet.demo.device("ct-dual")
    agent = [str(Path(fleet.demo.info["cli"]).with_name("patency-agent")), "run"]
    command = [*agent, "--state", device["state_dir"]]
    log = (tmp_path / "agent.log").open("wb")
    with (
        log,
        ended(subprocess.Popen(command, stderr=log)),
        fleet.portal(),
        sessions.echo(device["services"]["web"]),
    ):
        until(lambda: fleet.on() == {"east": 1}, 20)
        sessions.open_session(fleet.demo, device, level="service", service="web")
        with (
            sessions.forward(fleet.demo, device, "web") as port,
            socket.create_connection(("127.0.0.1", port), timeout=BACK_S) as stream,
        ):
            _exchange(stream, b"before")
            fleet.east.kill()
            _exchange(stream, bytes(range(256)) * 2000)
            until(lambda: fleet.on() == {"west": 1}, BACK_S)
            fleet.demo.patency("end", device["serial"])
            with pytest.raises(ConnectionResetError):  # ended by the portal, over the new way
                stream.recv(1)


def _exchange(stream: socket.socket, data: bytes) -> None:
    """Send, and wait until all of it has come back."""
    stream.sendall(data)
    back = b""
    while len(back) < len(data):
        chunk = stream.recv(65536)
        assert chunk, "it was closed"
        back += chunk
    assert back == data


def _compare(fleet: Fleet, began: dict[Path, int]) -> None:
    """Every event that an injector made is in the database once, and nothing else is."""
    made = {device: made_by(state) for device, state in fleet.states.items()}
    rows = fleet._rows("SELECT device_id, outbox, seq FROM telemetry_event")
    [(refused,)] = fleet._rows("SELECT COUNT(*) FROM mqtt_decision WHERE reason <> ''")
    kept = {d: {(o, s) for device, o, s in rows if device == d} for d in fleet.states}
    lost = {d: found for d in made if (found := sorted(made[d] - kept[d]))}
    extra = {d: found for d in made if (found := sorted(kept[d] - made[d]))}
    assert (lost, extra) == ({}, {})
    assert len(rows) == sum(map(len, made.values()))
    assert refused == 0
    assert len(rows) - sum(began.values()) > RATE * 10
