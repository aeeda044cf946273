"""The agent that is replaced: each device asks over mutual TLS every 30 s what there is for it.

Run for real, on the wall clock: requests are made at moments spread over one period, devices begin
their polls anywhere in it, and each request is held when the poll that brings it has been read.
"""

import asyncio
import json
import random
import ssl
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from tests.tls import Authority

EVERY_S = 30.0


class Cloud:
    """What is polled: one line with the device's name in, one line with its requests out."""

    def __init__(self) -> None:
        self.waiting: defaultdict[str, list[int]] = defaultdict(list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(10):
            device = (await reader.readline()).decode().strip()
            writer.write(json.dumps(self.waiting.pop(device, [])).encode() + b"\n")
            await writer.drain()
            writer.close()
            await writer.wait_closed()


async def _poll(device: str, port: int, context: ssl.SSLContext, held: dict[int, float]) -> None:
    await asyncio.sleep(random.uniform(0, EVERY_S))
    while True:
        next_at = time.perf_counter() + EVERY_S
        async with asyncio.timeout(10):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=context, server_hostname="localhost"
            )
            writer.write(device.encode() + b"\n")
            found = json.loads(await reader.readline())
            writer.close()
        held |= dict.fromkeys(found, time.perf_counter())
        await asyncio.sleep(next_at - time.perf_counter())


async def latencies(devices: Iterable[str], requests: int) -> list[float]:
    """Seconds from each request to the device that holds it. Takes up to two periods."""
    cloud, held, asked = Cloud(), dict[int, float](), dict[int, float]()
    authority, names = Authority("poll"), list(devices)
    with tempfile.TemporaryDirectory() as folder:
        files = authority.write(Path(folder))
        serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        serving.load_cert_chain(files.server_chain, files.server_key)
        serving.load_verify_locations(files.device_root)
        serving.verify_mode = ssl.CERT_REQUIRED
    server = await asyncio.start_server(cloud.serve, "127.0.0.1", 0, ssl=serving)
    port = server.sockets[0].getsockname()[1]
    async with server, asyncio.timeout(2 * EVERY_S + 20), asyncio.TaskGroup() as group:
        polls = []
        for name in names:
            context = authority.client_context(authority.device(name), alpn=())
            polls.append(group.create_task(_poll(name, port, context, held)))
        started = time.perf_counter()
        for number, at in enumerate(sorted(random.uniform(0, EVERY_S) for _ in range(requests))):
            await asyncio.sleep(max(0.0, started + at - time.perf_counter()))
            asked[number] = time.perf_counter()
            cloud.waiting[names[number % len(names)]].append(number)
        while len(held) < requests:  # noqa: ASYNC110  (at most one period more)
            await asyncio.sleep(0.05)
        for poll in polls:
            poll.cancel()
    return [held[number] - asked[number] for number in asked]
