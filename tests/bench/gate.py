"""The gate's lanes over TLS 1.3 with client certificates, beside mosquitto and bare amqtt.

Sender and receiver are the same processes for all. Up, the gate hands every message to its
handler; a broker gives it to the one subscriber behind it. Down, the gate's process publishes; to a
broker a client does. Figures are messages received over the seconds from the first to the last
received; what a peer lost is in the note. amqtt gets a tenth of the messages, and one round.
"""

import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from tests.bench import Goal, Row, _peers
from tests.bench.devices import child, line
from tests.tls import Authority

DEVICE = "bench-device"
ROUNDS = 3
AMQTT_SHARE = 10


@dataclass(frozen=True, slots=True)
class Load:
    """What is sent."""

    what: str
    topic: str
    size: int  # bytes of a payload
    count: int
    write: int = 128 * 1024  # bytes in one write; 0: a TLS record each, as paho does
    goal: Goal | None = None
    down: bool = False


LOADS = (
    Load(
        "lane, 100 B QoS 0, a TLS record each", f"pat/1/{DEVICE}/up/event/1", 100, 100_000, 0,
        Goal(floor=0.35, aim=1.0, ratio=True),
    ),
    Load("lane, 100 B QoS 0, packed", f"pat/1/{DEVICE}/up/event/1", 100, 200_000),
    Load(
        "lane, 64 KiB", f"pat/1/{DEVICE}/up/s", 64 * 1024, 6_000,
        goal=Goal(floor=1.3, aim=2.0, ratio=True),
    ),
    Load("dn/, 100 B QoS 0", f"pat/1/{DEVICE}/dn/job/1", 100, 100_000, down=True),
    Load("dn/, 64 KiB", f"pat/1/{DEVICE}/dn/s", 64 * 1024, 6_000, down=True),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Figure:
    rate: float  # messages a second
    lost: float  # share


Measure = Callable[[Load], Figure]


def _figure(said: str, load: Load) -> Figure:
    count, seconds = said.split()
    return Figure(int(count) / float(seconds), 1 - int(count) / load.count)


def _send(port: int, load: Load, folder: Path | None) -> None:
    words = [port, load.topic, load.size, load.count, load.write]
    tls = [folder, DEVICE] if folder else []
    subprocess.run(
        [sys.executable, "-m", "tests.bench._sender", *map(str, [*words, *tls])],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip


def _sink(port: int, load: Load, folder: Path | None) -> list[object]:
    tls = [folder, DEVICE] if folder else []
    return ["_sink", port, load.topic, load.size, load.count, *tls]


def _at_gate(gate: subprocess.Popen[str], port: int, folder: Path, load: Load) -> Figure:
    assert gate.stdin is not None
    if not load.down:
        gate.stdin.write(f"up {load.count}\n")
        gate.stdin.flush()
        line(gate.stdout)
        _send(port, load, folder)
        return _figure(line(gate.stdout), load)
    with child(*_sink(port, load, folder)) as device:
        line(device.stdout)
        gate.stdin.write(f"down {DEVICE} {load.topic} {load.size} {load.count}\n")
        gate.stdin.flush()
        return _figure(line(device.stdout), load)


def _at_peer(peer: _peers.Peer, folder: Path, load: Load) -> Figure:
    come, go = (peer.plain, peer.port) if load.down else (peer.port, peer.plain)
    with child(*_sink(go, load, folder if load.down else None)) as receiver:
        line(receiver.stdout)
        _send(come, load, None if load.down else folder)
        return _figure(line(receiver.stdout), load)


def _median(measure: Measure, load: Load, rounds: int) -> Figure:
    made = [measure(load) for _ in range(rounds)]
    return Figure(
        statistics.median(each.rate for each in made), statistics.fmean(each.lost for each in made)
    )


def _rows(load: Load, ours: Figure, peers: dict[str, Figure | None]) -> list[Row]:
    small = load.size < 1000
    unit, scale = ("/s", 1.0) if small else ("MB/s", load.size / 1e6)
    rows = []
    for name, figure in peers.items():
        lost = f"{name} lost {figure.lost:.1%}" if figure and figure.lost > 0.0005 else ""
        goal = load.goal if name == "mosquitto" else None
        rate = figure and figure.rate * scale
        rows.append(Row(load.what, ours.rate * scale, unit, name, rate, lost, goal))
    assert ours.lost == 0, f"{load.what}: the gate lost {ours.lost:.1%}"
    return rows


def run() -> list[Row]:
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        authority = Authority()
        authority.write(folder)
        authority.device(DEVICE).write(folder, DEVICE)
        gate = stack.enter_context(child("_gate", folder, 0))
        port = int(line(gate.stdout))
        mosquitto = stack.enter_context(_peers.mosquitto(folder))
        amqtt = stack.enter_context(_peers.amqtt(folder))
        for load in LOADS:
            ours = _median(partial(_at_gate, gate, port, folder), load, ROUNDS)
            less = replace(load, count=load.count // AMQTT_SHARE)
            peers: dict[str, Figure | None] = {"mosquitto": None}
            if mosquitto is not None:
                peers["mosquitto"] = _median(partial(_at_peer, mosquitto, folder), load, ROUNDS)
            peers["amqtt"] = _median(partial(_at_peer, amqtt, folder), less, 1)
            rows += _rows(load, ours, peers)
    return rows
