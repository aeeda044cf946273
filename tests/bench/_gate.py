"""A gate in a process of its own: `python -m tests.bench._gate FOLDER PORT`.

FOLDER is what `Authority.write` left there. Prints its port when it serves, and ends when its
standard input does.
"""

import asyncio
import gc
import sys
from pathlib import Path

import uvloop

from broker.errors import Reason
from broker.lanes import ConnectionInfo, Delivery
from broker.options import GateOptions, Limits
from broker.server import Gate


class Sink:
    """A handler that counts, and acknowledges at once."""

    def __init__(self) -> None:
        self.messages = 0

    def connected(self, device: str, info: ConnectionInfo) -> None: ...

    def disconnected(self, device: str, reason: Reason) -> None: ...

    def up(self, delivery: Delivery) -> bool:
        self.messages += 1
        delivery.ack()
        return True

    def stream(self, device: str, frame: bytes) -> None:
        self.messages += 1

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
    gate = Gate(options(folder, port), Sink())
    await gate.start()
    gc.collect()
    gc.freeze()
    print(gate.port, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await gate.stop()


if __name__ == "__main__":
    uvloop.run(_serve(Path(sys.argv[1]), int(sys.argv[2])))
