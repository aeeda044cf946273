"""The gate's lanes over TLS 1.3 with client certificates, beside mosquitto on the same socket work.

The sender is the same process for both; the clock stops when PINGRESP shows that all was read. The
gate hands every message to a handler; mosquitto has no subscriber, so it does a little less.
"""

import asyncio
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvloop

from broker.errors import Reason
from broker.lanes import ConnectionInfo, Delivery
from broker.options import GateOptions, Limits
from broker.server import Gate
from tests.bench import Row
from tests.tls import Authority, Files

DEVICE = "bench-device"
ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Load:
    """What the sender does."""

    what: str
    size: int  # bytes of a payload
    count: int
    write: int  # bytes in one write; 0 gives each message a TLS record of its own, as paho does


LOADS = (
    Load("gate: 100 B messages, QoS 0, a record each", 100, 100_000, 0),
    Load("gate: 100 B messages, QoS 0, packed", 100, 200_000, 128 * 1024),
    Load("gate: 64 KiB publishes", 64 * 1024, 6_000, 128 * 1024),
)


class Sink:
    """A handler that counts."""

    def __init__(self) -> None:
        self.messages = 0

    def connected(self, device: str, info: ConnectionInfo) -> None: ...

    def disconnected(self, device: str, reason: Reason) -> None: ...

    def up(self, delivery: Delivery) -> bool:
        self.messages += 1
        return True

    def stream(self, device: str, frame: bytes) -> None:
        self.messages += 1

    def refused(self, peer: str, device: str | None, reason: Reason) -> None:
        raise AssertionError((peer, device, reason))


def _command(port: int, folder: Path, load: Load) -> list[str]:
    words = (port, folder, DEVICE, load.size, load.count, load.write)
    return [sys.executable, "-m", "tests.bench._sender", *map(str, words)]


async def _gate(folder: Path, files: Files) -> list[float]:
    """Median seconds of each load."""
    sink = Sink()
    options = GateOptions(
        host="127.0.0.1",
        port=0,
        certificate=files.server_chain,
        key=files.server_key,
        device_ca=files.device_ca,
        limits=Limits(messages_per_s=1e9),
    )
    gate = Gate(options, sink)
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


@contextmanager
def _mosquitto(folder: Path, files: Files) -> Iterator[int | None]:
    """A mosquitto with the same certificates; None when it is not installed."""
    program = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin")
    if program is None:
        yield None
        return
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    trust = folder / "device-ca.pem"
    trust.write_bytes(b"".join(path.read_bytes() for path in files.device_ca))
    configuration = folder / "mosquitto.conf"
    configuration.write_text(
        f"listener {port} 127.0.0.1\ncafile {trust}\ncertfile {files.server_chain}\n"
        f"keyfile {files.server_key}\nrequire_certificate true\nallow_anonymous true\n"
        "log_dest none\nset_tcp_nodelay true\nuser root\n"
    )
    process = subprocess.Popen([program, "-c", str(configuration)], stderr=subprocess.DEVNULL)
    try:
        _wait_for(port)
        yield port
    finally:
        process.terminate()
        process.wait(10)


def _wait_for(port: int) -> None:
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise TimeoutError("mosquitto did not start")


def _peer(folder: Path, files: Files) -> list[float | None]:
    with _mosquitto(folder, files) as port:
        if port is None:
            return [None for _ in LOADS]

        def once(load: Load) -> float:
            return float(subprocess.check_output(_command(port, folder, load)))

        return [statistics.median([once(load) for _ in range(ROUNDS)]) for load in LOADS]


def _row(load: Load, seconds: float, peer_seconds: float | None) -> Row:
    small = load.size < 1000
    amount = load.count if small else load.count * load.size / 1e6
    peer = None if peer_seconds is None else amount / peer_seconds
    return Row(load.what, amount / seconds, "/s" if small else "MB/s", "mosquitto", peer)


def run() -> list[Row]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        authority = Authority()
        files = authority.write(folder)
        authority.device(DEVICE).write(folder, DEVICE)
        ours = uvloop.run(_gate(folder, files))
        theirs = _peer(folder, files)
    return [_row(*each) for each in zip(LOADS, ours, theirs, strict=True)]
