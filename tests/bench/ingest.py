"""Durable ingest: QoS 1 events of twelve devices over TLS, counted when PUBACK says that they are
committed to SQLite (WAL, synchronous FULL), beside what SQLite alone does with the same rows.

The portal's process does all it does in life: TLS, access rule, schema, condition, decision, hints
for live pages. SQLite alone gets one table with the columns of an event and a unique key, in
transactions as large as ingest's, from `executemany`. Client and server share the machine.
"""

import asyncio
import sqlite3
import ssl
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import uvloop

from tests.bench import Goal, Row
from tests.bench._process import portal
from tests.broker.raw import Raw, publish
from tests.fleet.mqtt.wire import Sender

DEVICES = 12
EVENTS = 40_000
WINDOW = 32  # as the agent keeps it
BATCH = 512  # fleet.mqtt.ingest.BATCH


async def _device(portal: dict[str, Any], found: dict[str, Any], start: asyncio.Event) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=portal["server_ca"])
    context.set_alpn_protocols(["mqtt"])
    context.load_cert_chain(found["certificate"], found["key"])
    device, count = found["device"], EVENTS // DEVICES
    sender, topic = Sender(device), f"pat/1/{found['device']}/up/event/1"
    packets = [
        publish(
            topic,
            sender.event(code=103, phase="raised" if n % 2 else "cleared").payload,
            first=0x32, id=n % 60_000 + 1,
        )
        for n in range(count)
    ]  # fmt: skip
    raw = await Raw.open(portal["gate"], None, None, context=context)  # type: ignore[arg-type]
    async with raw:
        await raw.live(device, subscribed=False)
        await start.wait()
        raw.send(b"".join(packets[:WINDOW]))
        sent, left = WINDOW, count * 4  # a PUBACK has four bytes
        while left > 0:
            came = len(await raw.reader.read(65536))
            assert came, "the gate closed"
            left -= came
            more = min(count, (count * 4 - left) // 4 + WINDOW)
            if more > sent:
                raw.send(b"".join(packets[sent:more]))
                sent = more


async def _measure(portal: dict[str, Any]) -> float:
    start = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_device(portal, d, start)) for d in portal["devices"]]
        await asyncio.sleep(3)  # everybody is connected
        began = time.perf_counter()
        start.set()
        await asyncio.gather(*tasks)
    return EVENTS / (time.perf_counter() - began)


def _alone(folder: Path) -> float:
    """Rows a second that SQLite takes by itself."""
    rows = [
        (n, "d" * 22, "o" * 12, 103, "M", "raised", "", None, "2026-01-01 00:00:00", "a" * 32, n)
        for n in range(EVENTS)
    ]
    with closing(sqlite3.connect(folder / "alone.db", isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        database.execute(
            "CREATE TABLE event (id INTEGER PRIMARY KEY, device, organisation, code, priority,"
            " phase, syringe, value, at, outbox, seq, UNIQUE (device, outbox, seq))"
        )
        began = time.perf_counter()
        for at in range(0, EVENTS, BATCH):
            database.execute("BEGIN IMMEDIATE")
            database.executemany(
                "INSERT INTO event VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows[at : at + BATCH]
            )
            database.execute("COMMIT")
        return EVENTS / (time.perf_counter() - began)


def run() -> list[Row]:
    with portal(DEVICES) as process:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            ours = runner.run(_measure(process.found))
        process.end()
        theirs = _alone(process.folder)
    note = f"{EVENTS:,} events of {DEVICES} devices"
    goal = Goal(floor=5_000, aim=20_000)
    return [Row("durable ingest, committed", ours, "/s", "SQLite alone", theirs, note, goal)]
