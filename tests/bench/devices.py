"""Thousands of devices on one gate, beside mosquitto with the same certificates in the same run.

Memory is what the server's process has grown by (RSS), an idle TLS connection each; CPU is what it
used (user and system) from the first connection to the last. Then the gate is killed and started
again on its port, and every device comes back by itself as agents do. Client and server share the
machine. PATENCY_BENCH_DEVICES says how many, 5,000 by default.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

from tests.bench import Goal, Row, _peers
from tests.tls import Authority

COUNT = int(os.environ.get("PATENCY_BENCH_DEVICES", "5000"))
WAIT_S = 600.0


@dataclass(frozen=True, slots=True)
class Figures:
    kilobytes: float  # an idle connection
    cpu_ms: float  # a connect


@contextmanager
def child(module: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A process of this package that ends with its standard input."""
    process = subprocess.Popen(
        [sys.executable, "-m", f"tests.bench.{module}", *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line(stream: IO[str] | None) -> str:
    assert stream is not None
    line = stream.readline()
    assert line, "the process ended"
    return line


def _crowded(server: psutil.Process, port: int, folder: Path) -> Figures:
    before, spent = server.memory_info().rss, sum(server.cpu_times()[:2])
    with child("_crowd", port, folder, COUNT, 1) as crowd:
        line(crowd.stdout)
        grown = server.memory_info().rss - before
        spent = sum(server.cpu_times()[:2]) - spent
    return Figures(grown / COUNT / 1000, spent / COUNT * 1000)


def _back(folder: Path) -> float:
    """Seconds from the loss of the first device to the return of the last."""
    with child("_gate", folder, 0) as gate:
        port = int(line(gate.stdout))
        with child("_crowd", port, folder, COUNT, 1) as crowd:
            line(crowd.stdout)
            gate.kill()
            gate.wait()
            with child("_gate", folder, port) as again:
                line(again.stdout)
                return float(line(crowd.stdout))


def _ours(folder: Path) -> Figures:
    with child("_gate", folder, 0) as gate:
        return _crowded(psutil.Process(gate.pid), int(line(gate.stdout)), folder)


def _theirs(folder: Path) -> Figures | None:
    with _peers.mosquitto(folder) as peer:
        return None if peer is None else _crowded(psutil.Process(peer.pid), peer.port, folder)


def run() -> list[Row]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        authority = Authority()
        authority.write(folder)
        for number in range(COUNT):
            authority.device(f"bench-{number:05}").write(folder, f"bench-{number:05}")
        ours, theirs, back = _ours(folder), _theirs(folder), _back(folder)
    on = f"{COUNT:,} devices"
    return [
        Row(f"memory of an idle TLS device, {on}", ours.kilobytes, "KB", "mosquitto",
            theirs and theirs.kilobytes, goal=Goal(75, 50, less=True)),
        Row(f"CPU of a TLS connect, {on}", ours.cpu_ms, "ms", "mosquitto",
            theirs and theirs.cpu_ms),
        Row(f"back after a restart of the gate, {on}", back, "s", goal=Goal(60, 45, less=True)),
    ]  # fmt: skip
