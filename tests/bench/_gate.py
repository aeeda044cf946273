"""A gate in a process of its own: `python -m tests.bench._gate FOLDER PORT`.

FOLDER is what `Authority.write` left there. Prints its port when it serves, and ends when its
standard input does. A line `up COUNT` is answered with the seconds from the first to the last of
the next COUNT messages that devices send, `down DEVICE TOPIC SIZE COUNT` makes the gate publish.
"""

import asyncio
import gc
import sys
import time
from pathlib import Path

import uvloop

from broker.errors import Reason
from broker.lanes import ConnectionInfo, Delivery
from broker.options import GateOptions, Limits
from broker.server import Gate


class Sink:
    """A handler that counts, and acknowledges at once."""

    def __init__(self) -> None:
        self._expected = self._came = 0
        self._began = 0.0

    def expect(self, count: int) -> None:
        self._expected, self._came = count, 0

    def _one(self) -> None:
        if not self._came:
            self._began = time.perf_counter()
        self._came += 1
        if self._came == self._expected:
            print(self._came, time.perf_counter() - self._began, flush=True)

    def connected(self, device: str, info: ConnectionInfo) -> None: ...

    def disconnected(self, device: str, reason: Reason) -> None: ...

    def up(self, delivery: Delivery) -> bool:
        self._one()
        delivery.ack()
        return True

    def stream(self, device: str, frame: bytes) -> None:
        self._one()

    def refused(self, peer: str, device: str | None, reason: Reason) -> None: ...


def options(folder: Path, port: int = 0, limits: Limits | None = None) -> GateOptions:
    return GateOptions(
        host="127.0.0.1",
        port=port,
        certificate=folder / "server.pem",
        key=folder / "server.key",
        device_ca=(folder / "device-root.pem", folder / "device-intermediate.pem"),
        limits=limits or Limits(),
    )


async def _serve(folder: Path, port: int) -> None:
    sink = Sink()
    gate = Gate(options(folder, port, Limits(messages_per_s=1e9)), sink)
    await gate.start()
    gc.collect()
    gc.freeze()
    print(gate.port, flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        order, *words = line.split()
        if order == "up":
            sink.expect(int(words[0]))
            print("ready", flush=True)
        else:
            await _down(gate, words[0], words[1], int(words[2]), int(words[3]))
    await gate.stop()


async def _down(gate: Gate, device: str, topic: str, size: int, count: int) -> None:
    """As fast as the device reads."""
    payload = b"x" * size
    for _ in range(count):
        while gate.congested(device):  # noqa: ASYNC110  (the gate tells nobody)
            await asyncio.sleep(0)
        gate.publish(topic, payload)


if __name__ == "__main__":
    uvloop.run(_serve(Path(sys.argv[1]), int(sys.argv[2])))
