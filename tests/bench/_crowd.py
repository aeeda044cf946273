"""Many devices in one process: `python -m tests.bench._crowd PORT FOLDER COUNT SUBSCRIBE`.

Each connects with a certificate of its own, subscribes to its `dn/` if SUBSCRIBE is 1, and stays.
Whoever loses its connection comes back as the agent does, after a pause with full jitter that grows
to 20 s. Each time that all are connected a line is printed: seconds since the first began, or
since the first was lost. Ends when its standard input does.
"""

import asyncio
import random
import ssl
import sys
import time
from pathlib import Path

import uvloop

from tests.broker import raw

AT_ONCE = 64  # handshakes that this process has under way
PAUSE_S, PAUSE_CAP_S = 1.0, 20.0  # agent.core.Timing
KEEPALIVE_S = 300  # the longest that the gate takes: nobody pings while memory is looked at


class Crowd:
    def __init__(self, port: int, folder: Path, count: int, subscribe: bool) -> None:
        self._port = port
        self._folder = folder
        self._count = count
        self._subscribe = subscribe
        self._connected = 0
        self._since = time.perf_counter()
        self._places = asyncio.Semaphore(AT_ONCE)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._device(n)) for n in range(self._count)]
            await asyncio.to_thread(sys.stdin.read)
            for task in tasks:
                task.cancel()

    async def _device(self, number: int) -> None:
        failures = 0
        while True:
            try:
                async with self._places:
                    reader, writer = await self._connect(f"bench-{number:05}")
            except (OSError, asyncio.IncompleteReadError, TimeoutError):
                await asyncio.sleep(random.uniform(0, min(PAUSE_CAP_S, PAUSE_S * 2**failures)))
                failures = min(failures + 1, 16)
                continue
            failures = 0
            self._arrived()
            await self._stay(reader)
            self._left()
            writer.transport.abort()
            await asyncio.sleep(random.uniform(0, PAUSE_S))

    async def _connect(self, device: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self._folder / "server-ca.pem")
        context.load_cert_chain(self._folder / f"{device}.pem", self._folder / f"{device}.key")
        context.set_alpn_protocols(["mqtt"])
        async with asyncio.timeout(30):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", self._port, ssl=context, server_hostname="localhost"
            )
            writer.write(raw.connect(device, keepalive=KEEPALIVE_S))
            try:
                await reader.readexactly(4)
                if self._subscribe:
                    writer.write(raw.subscribe(f"pat/1/{device}/dn/#"))
                    await reader.readexactly(5)
            except BaseException:
                writer.transport.abort()
                raise
        return reader, writer

    async def _stay(self, reader: asyncio.StreamReader) -> None:
        try:
            while await reader.read(4096):
                pass
        except OSError:
            return

    def _arrived(self) -> None:
        self._connected += 1
        if self._connected == self._count:
            print(time.perf_counter() - self._since, flush=True)

    def _left(self) -> None:
        if self._connected == self._count:
            self._since = time.perf_counter()
        self._connected -= 1


if __name__ == "__main__":
    uvloop.run(
        Crowd(int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "1").run()
    )
