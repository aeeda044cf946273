"""kill -9 of the server in the middle of 500 events a second: nothing lost, nothing twice.

The server is a process of its own with real files, TLS and gate; the devices are this test's, each
with an outbox in memory that sends again what was not acknowledged. "Faults" of the threats.
"""

import asyncio
import json
import random
import sqlite3
import ssl
import subprocess
import sys
from collections import deque
from pathlib import Path
from typing import Any

import pytest

from tests.broker.raw import Raw, publish
from tests.fleet.mqtt.wire import Sender
from tests.scale import SCALE

DEVICES = 4
RATE = 500  # events a second, all devices together
KILLS = 100 if SCALE >= 1 else 3  # each costs a start of the server
WINDOW = 32  # unacknowledged at a time, as the agent keeps it


class Outbox:
    """A device that makes events at its pace, whatever the connection does."""

    def __init__(self, found: dict[str, Any]) -> None:
        self.device = str(found["device"])
        self.context = found
        self.made = 0
        self._sender = Sender(self.device)
        self._waiting: deque[tuple[int, bytes]] = deque()  # made and not acknowledged, in order
        self._sent = 0  # of those waiting, on this connection

    @property
    def empty(self) -> bool:
        return not self._waiting

    async def make(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            item = self._sender.event(code=103, phase="raised" if self.made % 2 else "cleared")
            self.made += 1
            self._waiting.append((self.made, item.payload))
            await asyncio.sleep(DEVICES / RATE)

    async def deliver(self, portal: dict[str, Any]) -> None:
        """One connection, until it breaks."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=portal["server_ca"])
        context.set_alpn_protocols(["mqtt"])
        context.load_cert_chain(self.context["certificate"], self.context["key"])
        self._sent = 0
        raw = await Raw.open(portal["gate"], None, None, context=context)  # type: ignore[arg-type]
        async with raw:
            await raw.live(self.device, subscribed=False)
            sending = asyncio.create_task(self._send(raw))
            try:
                while True:
                    first, body = await raw.packet(wait_s=20)
                    if first == 0x40:
                        self._acknowledged(int.from_bytes(body, "big"))
            finally:
                sending.cancel()

    async def _send(self, raw: Raw) -> None:
        topic = f"pat/1/{self.device}/up/event/1"
        while True:
            while self._sent < min(WINDOW, len(self._waiting)):
                number, payload = self._waiting[self._sent]
                raw.send(publish(topic, payload, first=0x32, id=number % 60_000 + 1))
                self._sent += 1
            await asyncio.sleep(0.002)

    def _acknowledged(self, id: int) -> None:
        # A commit acknowledges in order.
        assert self._waiting
        assert self._waiting[0][0] % 60_000 + 1 == id
        self._waiting.popleft()
        self._sent -= 1


async def _start(data: Path) -> tuple[asyncio.subprocess.Process, dict[str, Any]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench._portal", str(data), str(DEVICES),
        stdout=subprocess.PIPE, cwd=Path(__file__).parents[3], limit=1024 * 1024,
    )  # fmt: skip
    assert process.stdout is not None
    async with asyncio.timeout(30):
        return process, json.loads(await process.stdout.readline())


async def _connected(outbox: Outbox, portal: dict[str, Any]) -> None:
    try:
        await outbox.deliver(portal)
    except (OSError, asyncio.IncompleteReadError, TimeoutError):
        return  # the server has died: what is not acknowledged waits


async def _life(data: Path, outboxes: list[Outbox], seconds: float, *, drain: bool = False) -> None:
    """Start the server, let the devices deliver for a while, kill it."""
    process, portal = await _start(data)
    try:
        tasks = [asyncio.create_task(_connected(outbox, portal)) for outbox in outboxes]
        await asyncio.sleep(seconds)
        async with asyncio.timeout(30):
            while drain and not all(outbox.empty for outbox in outboxes):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    finally:
        process.kill()
        await process.wait()
    await asyncio.gather(*tasks)


@pytest.mark.timeout(180)
async def test_kill_9_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    first, portal = await _start(tmp_path)
    first.kill()
    await first.wait()
    outboxes = [Outbox(found) for found in portal["devices"]]
    chance = random.Random(20)
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for outbox in outboxes:
            group.create_task(outbox.make(stop))
        for _ in range(KILLS):
            await _life(tmp_path, outboxes, 0.3 + chance.random())
        stop.set()
    await _life(tmp_path, outboxes, 0.1, drain=True)

    database = sqlite3.connect(tmp_path / "portal.db")
    try:
        rows = database.execute(
            "SELECT device_id, COUNT(*), COUNT(DISTINCT seq), MIN(seq), MAX(seq)"
            " FROM telemetry_event GROUP BY device_id"
        ).fetchall()
        refused = database.execute("SELECT COUNT(*) FROM mqtt_decision WHERE reason <> ''")
        assert refused.fetchone() == (0,)
    finally:
        database.close()
    assert sorted(rows) == sorted((o.device, o.made, o.made, 1, o.made) for o in outboxes)
    assert sum(outbox.made for outbox in outboxes) > 200
