"""The gate's lanes over TLS 1.3 with client certificates, beside mosquitto on the same socket work.

The sender is the same process for both; the clock stops when PINGRESP shows that all was read. The
gate hands every message to a handler; mosquitto has no subscriber, so it does a little less.
"""

import asyncio
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import uvloop

from broker.options import Limits
from broker.server import Gate
from tests.bench import Goal, Row, _mosquitto
from tests.bench._gate import Sink, options
from tests.tls import Authority

DEVICE = "bench-device"
ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Load:
    """What the sender does."""

    what: str
    size: int  # bytes of a payload
    count: int
    write: int  # bytes in one write; 0 gives each message a TLS record of its own, as paho does
    goal: Goal | None = None


LOADS = (
    Load(
        "lane, 100 B QoS 0 over TLS, a record each",
        100,
        100_000,
        0,
        Goal(floor=0.35, aim=1.0, ratio=True),
    ),
    Load("lane, 100 B QoS 0 over TLS, packed", 100, 200_000, 128 * 1024),
    Load(
        "lane, 64 KiB over TLS",
        64 * 1024,
        6_000,
        128 * 1024,
        Goal(floor=1.3, aim=2.0, ratio=True),
    ),
)


def _command(port: int, folder: Path, load: Load) -> list[str]:
    words = (port, folder, DEVICE, load.size, load.count, load.write)
    return [sys.executable, "-m", "tests.bench._sender", *map(str, words)]


async def _gate(folder: Path) -> list[float]:
    """Median seconds of each load."""
    sink = Sink()
    gate = Gate(options(folder, limits=Limits(messages_per_s=1e9)), sink)
    await gate.start()
    try:
        taken = [
            statistics.median([await _time(gate.port, folder, load) for _ in range(ROUNDS)])
            for load in LOADS
        ]
    finally:
        await gate.stop()
    assert sink.messages == ROUNDS * sum(load.count for load in LOADS)
    return taken


async def _time(port: int, folder: Path, load: Load) -> float:
    process = await asyncio.create_subprocess_exec(
        *_command(port, folder, load), stdout=subprocess.PIPE
    )
    said, _ = await process.communicate()
    return float(said)


def _peer(folder: Path) -> list[float | None]:
    with _mosquitto.running(folder) as peer:
        if peer is None:
            return [None for _ in LOADS]
        port = peer.port

        def once(load: Load) -> float:
            return float(subprocess.check_output(_command(port, folder, load)))

        return [statistics.median([once(load) for _ in range(ROUNDS)]) for load in LOADS]


def _row(load: Load, seconds: float, peer_seconds: float | None) -> Row:
    small = load.size < 1000
    amount = load.count if small else load.count * load.size / 1e6
    peer = None if peer_seconds is None else amount / peer_seconds
    return Row(
        load.what, amount / seconds, "/s" if small else "MB/s", "mosquitto", peer, goal=load.goal
    )


def run() -> list[Row]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        authority = Authority()
        authority.write(folder)
        authority.device(DEVICE).write(folder, DEVICE)
        ours = uvloop.run(_gate(folder))
        theirs = _peer(folder)
    return [_row(*each) for each in zip(LOADS, ours, theirs, strict=True)]
