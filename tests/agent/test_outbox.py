"""The outbox: keys that never repeat, nothing lost by a crash, bounds, and the portal's mark."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent import outbox as outbox_module
from agent.clock import Clock
from agent.errors import OutboxFull, StoreError
from agent.outbox import Entry, Outbox
from agent.store import Store
from agent.wire import messages
from agent.wire.catalogue import (
    ClinicalState,
    EventCode,
    EventPhase,
    EventPriority,
    ExecutionState,
    Outcome,
)
from agent.wire.messages import (
    Audit,
    AuditEntry,
    Event,
    Execution,
    MessageError,
    Sample,
    SignedHead,
    Telemetry,
)

EVENT: dict[str, Any] = {
    "code": EventCode.STALL,
    "priority": EventPriority.HIGH,
    "phase": EventPhase.RAISED,
}
HEAD: dict[str, Any] = {"index": 0, "at": 1, "hash": "00" * 32}
AUDIT: dict[str, Any] = {
    "entries": [
        AuditEntry(
            **HEAD,
            boot="00" * 16,
            uptime_ms=1,
            action="agent:start",
            actor="agent",
            outcome=Outcome.ALLOWED,
            previous="00" * 32,
        )
    ],
    "head": SignedHead(**HEAD, chain="device-0001", signature=bytes(64)),
}
SAMPLE = Sample(at=1, uptime_ms=1, state=ClinicalState.IDLE, values={})


class Box:
    """An opened outbox with its store; `reopen` is a restart."""

    def __init__(self, path: Path, **options: Any) -> None:
        self.path = path
        self.options = options
        self.committed: list[Entry] = []

    async def open(self) -> "Box":
        self.wall = 1_800_000_000.0
        self.store = Store(self.path)
        clock = Clock(boot="00" * 16, wall_seconds=lambda: self.wall)
        self.outbox = Outbox(self.store, clock, **self.options)
        self.outbox.on_committed = self.committed.append
        await self.outbox.open()
        return self

    async def close(self) -> None:
        self.outbox.flush()
        await self.store.close()

    async def reopen(self) -> None:
        await self.close()
        await self.open()

    async def event(self) -> Event:
        event: Event = await self.outbox.add(Event, EVENT)
        return event

    async def waiting(self, after: int = 0) -> list[int]:
        entries, high = await self.outbox.waiting(after, 1000)
        assert high == self.outbox.high
        return [entry.seq for entry in entries]

    async def acknowledge(self, *numbers: int) -> None:
        for seq in numbers:
            self.outbox.acknowledge(seq)
        self.outbox.flush()
        await self.store.write(lambda db: None)


@pytest.fixture
async def box(tmp_path: Path) -> AsyncIterator[Box]:
    opened = await Box(tmp_path / "agent.db").open()
    yield opened
    await opened.close()


async def test_an_entry_is_on_disk_before_it_is_shown(box: Box) -> None:
    event = await box.event()
    (entry,) = box.committed
    assert (event.seq, entry.seq, event.outbox) == (1, 1, box.outbox.id)
    assert messages.decode_up("event", 1, entry.payload) == event
    with sqlite3.connect(box.path) as db:
        assert db.execute("SELECT seq FROM outbox").fetchall() == [(1,)]
    db.close()


async def test_numbers_go_on_after_a_restart_and_after_everything_was_forgotten(box: Box) -> None:
    """`seq` never repeats."""
    name = box.outbox.id
    for _each in range(3):
        await box.event()
    await box.acknowledge(1, 2, 3)
    await box.store.write(lambda db: db.execute("DELETE FROM outbox"))  # as trimming would
    await box.reopen()
    assert (await box.event()).seq == 4
    assert box.outbox.id == name
    assert len(name) == 32


async def test_what_was_not_acknowledged_is_sent_again_after_a_restart(box: Box) -> None:
    for _each in range(5):
        await box.event()
    await box.acknowledge(1, 3)
    assert box.outbox.depth == 3
    await box.reopen()
    assert await box.waiting() == [2, 4, 5]
    assert await box.waiting(after=2) == [4, 5]
    assert box.outbox.depth == 3
    assert box.outbox.high == 5


async def test_acknowledgements_are_written_by_themselves(box: Box) -> None:
    await box.event()
    box.outbox.acknowledge(1)
    await asyncio.sleep(outbox_module.FLUSH_S + 0.1)
    await box.store.write(lambda db: None)
    assert await box.waiting() == []


async def test_a_restored_portal_gets_the_rest_again(box: Box) -> None:
    """Its mark is lower than what it once acknowledged."""
    for _each in range(6):
        await box.event()
    await box.acknowledge(1, 2, 3, 4, 5)
    assert not await box.outbox.rewind(2)
    assert await box.waiting() == [3, 4, 5, 6]
    assert box.outbox.depth == 4


async def test_the_mark_acknowledges_what_a_lost_puback_did_not(box: Box) -> None:
    for _each in range(4):
        await box.event()
    assert not await box.outbox.rewind(3)
    assert await box.waiting() == [4]
    assert box.outbox.depth == 1


async def test_a_restored_injector_takes_a_new_name(box: Box) -> None:
    """Its file is older than the portal's memory: a number would mean two things."""
    name = box.outbox.id
    for _each in range(4):
        await box.event()
    await box.acknowledge(1, 2)
    assert await box.outbox.rewind(40)
    assert box.outbox.id != name
    entries, _high = await box.outbox.waiting(0, 10)
    assert [entry.seq for entry in entries] == [1, 2]
    event = messages.decode_up("event", 1, entries[1].payload)
    assert isinstance(event, Event)
    assert (event.outbox, event.seq) == (box.outbox.id, 2)
    assert (await box.event()).seq == 3
    await box.reopen()
    assert box.outbox.high == 3


async def test_acknowledged_entries_stay_seven_days_within_a_bound(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _each in range(6):
        await box.event()
    await box.acknowledge(1, 2)
    box.wall += 8 * 86400
    await box.acknowledge(3, 4, 5)
    kept = "SELECT seq FROM outbox ORDER BY seq"
    await box.store.write(lambda db: outbox_module._trim(db, int(box.wall * 1000)))
    rows = await box.store.write(lambda db: db.execute(kept).fetchall())
    assert rows == [(3,), (4,), (5,), (6,)]
    monkeypatch.setattr(outbox_module, "KEEP_ROWS", 2)
    await box.store.write(lambda db: outbox_module._trim(db, int(box.wall * 1000)))
    rows = await box.store.write(lambda db: db.execute(kept).fetchall())
    assert rows == [(4,), (5,), (6,)]  # 6 waits, however many there are


async def test_at_its_bound_telemetry_gives_way_first_and_no_number_is_lost(tmp_path: Path) -> None:
    box = await Box(tmp_path / "agent.db", max_rows=20).open()

    async def fill(kind: type[messages.Durable], fields: dict[str, Any]) -> int:
        taken = 0
        with pytest.raises(OutboxFull):
            while True:
                await box.outbox.add(kind, fields)
                taken += 1
        return taken

    assert await fill(Telemetry, {"samples": [SAMPLE]}) == 14
    assert await fill(Event, EVENT) == 3
    state = {"execution": "00" * 16, "state": ExecutionState.RUNNING}
    assert await fill(Execution, state) == 2
    assert await fill(Audit, AUDIT) == 1  # goes last
    assert box.outbox.shed == {"telemetry": 1, "event": 1, "execution": 1, "audit": 1}
    assert await box.waiting() == list(range(1, 21))
    await box.acknowledge(*range(1, 11))
    assert (await box.event()).seq == 21
    await box.close()


async def test_on_a_full_disk_telemetry_gives_way_first_and_audit_last(box: Box) -> None:
    """THREATS, faults: device disk full. What has a number is kept; the order is by priority."""
    state = {"execution": "00" * 16, "state": ExecutionState.RUNNING}
    kinds = {Telemetry: {"samples": [SAMPLE]}, Event: EVENT, Execution: state, Audit: AUDIT}
    taken: dict[float, list[str]] = {}
    for pressure in (0.0, 0.01, 0.6, 0.8, 1.0):
        box.outbox.pressure = pressure
        taken[pressure] = []
        for kind, fields in kinds.items():
            try:
                await box.outbox.add(kind, fields)
            except OutboxFull:
                continue
            taken[pressure].append(kind.TYPE)
    assert taken == {
        0.0: ["telemetry", "event", "execution", "audit"],
        0.01: ["event", "execution", "audit"],
        0.6: ["execution", "audit"],
        0.8: ["audit"],
        1.0: ["audit"],
    }
    assert await box.waiting() == list(range(1, 12))


async def test_off_schema_is_refused_before_it_has_a_number(box: Box) -> None:
    """R-PRV-1: nothing off-schema leaves."""
    with pytest.raises(MessageError):
        await box.outbox.add(Event, EVENT | {"code": "a patient's name"})
    with pytest.raises(TypeError):
        await box.outbox.add(Event, EVENT | {"remark": "free text"})
    assert (await box.event()).seq == 1


async def test_a_full_disk_loses_no_number_and_passes(box: Box) -> None:
    await box.event()
    (pages,) = await box.store.write(lambda db: db.execute("PRAGMA page_count").fetchone())
    await box.store.write(lambda db: db.execute(f"PRAGMA max_page_count={pages + 2}"))
    taken = 1
    with pytest.raises(StoreError):
        while True:
            await box.outbox.add(Telemetry, {"samples": [SAMPLE] * 40})
            taken += 1
    await box.store.write(lambda db: db.execute("PRAGMA max_page_count=100000"))
    assert (await box.event()).seq == taken + 1
    assert await box.waiting() == list(range(1, taken + 2))


async def test_a_refusal_is_kept_with_the_entry(box: Box) -> None:
    await box.event()
    entry = await box.outbox.refuse(1, "malformed")
    assert entry is not None
    assert entry.type == "event"
    assert await box.outbox.refuse(99, "malformed") is None


# --- crashes -------------------------------------------------------------------------------------

CRASH = """
import asyncio, sys
from pathlib import Path
from agent.clock import Clock
from agent.outbox import Outbox
from agent.store import Store
from agent.wire.catalogue import EventCode, EventPhase, EventPriority
from agent.wire.messages import Event

async def main(path):
    store = Store(Path(path))
    outbox = Outbox(store, Clock())
    def committed(entry):
        print("committed", outbox.id, entry.seq, entry.digest, flush=True)
        if entry.seq % 3 == 0:
            outbox.acknowledge(entry.seq)
    outbox.on_committed = committed
    await outbox.open()
    print("open", flush=True)
    while True:
        for _each in range(7):
            outbox.add(Event, {"code": EventCode.STALL, "priority": EventPriority.HIGH,
                               "phase": EventPhase.RAISED})
        await asyncio.sleep(0.001)

asyncio.run(main(sys.argv[1]))
"""


def crash(path: Path, after: int) -> list[list[str]]:
    """Run an agent's outbox and kill it after that many lines; gives what it showed."""
    process = subprocess.Popen(
        [sys.executable, "-c", CRASH, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    shown = []
    for count, line in enumerate(process.stdout):
        if line.startswith("committed") and len(line.split()) == 4:
            shown.append(line.split())
        if count == after:
            os.kill(process.pid, signal.SIGKILL)
    process.wait(10)
    process.stdout.close()
    return shown


async def test_kill_9_at_any_moment_loses_nothing_that_was_shown(tmp_path: Path) -> None:
    """THREATS, faults: kill -9 the agent. What was committed is there once, and no key repeats."""
    path = tmp_path / "agent.db"
    lines = [line for round in range(6) for line in crash(path, 5 + 37 * round)]
    shown = {int(seq): digest for _committed, _name, seq, digest in lines}
    assert len(shown) == len(lines), "a number was used twice"
    assert len({line[1] for line in lines}) == 1
    box = await Box(path).open()
    rows = await box.store.write(
        lambda db: db.execute("SELECT seq, type, version, payload FROM outbox").fetchall()
    )
    stored = {row[0]: Entry(*row).digest for row in rows}
    assert {seq: stored.get(seq) for seq in shown} == shown
    # Committed but not shown: the process died between. It is sent by the next start.
    assert sorted(stored) == list(range(1, len(stored) + 1))
    assert all(msgspec.json.decode(row[3])["seq"] == row[0] for row in rows)
    await box.close()
