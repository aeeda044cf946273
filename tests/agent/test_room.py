"""The reserve on the disk, and what is told when the outbox gives messages up (R-MNT-6).

A disk that is really full is in tests/faults.
"""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from agent.drivers import DriverEvent
from agent.outbox import Outbox
from agent.room import LOW, QUIET_S, Reserve, Room
from agent.wire.catalogue import EventCode, EventPhase
from agent.wire.messages import Audit, Event, Telemetry
from tests.agent.support import StubDriver
from tests.agent.test_outbox import SAMPLE, Box
from tests.agent.test_runtime import running, until

MB = 1024 * 1024


class Disk:
    """So much is free beside the reserve."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.free = 100 * MB

    def __call__(self, folder: Path) -> int:
        held = self.path.stat().st_size if self.path.exists() else 0
        return self.free - held


def test_the_reserve_is_given_up_in_need_and_taken_again_with_room_to_spare(
    tmp_path: Path,
) -> None:
    path = tmp_path / "reserve"
    disk = Disk(path)
    reserve = Reserve(path, size=8 * MB, free=disk)
    assert reserve.look(failed=False) == 0
    assert path.stat().st_blocks * 512 >= 8 * MB, "a hole holds no room"
    disk.free = 8 * MB + LOW
    assert reserve.look(failed=False) == 0
    disk.free -= 1
    assert reserve.look(failed=False) == 0.01  # the whole reserve is left
    assert not path.exists()
    disk.free = 4 * MB
    assert reserve.look(failed=False) == 0.5
    disk.free = 0
    assert reserve.look(failed=True) == 1
    disk.free = 8 * MB + 2 * LOW - 1
    assert 0 < reserve.look(failed=False) < 0.1, "no back and forth"
    disk.free += 1
    assert reserve.look(failed=False) == 0
    assert reserve.look(failed=True) == 0.01  # a quota, say
    reserve.give_up()
    assert not path.exists()


def test_a_disk_that_cannot_be_asked_is_taken_for_full(tmp_path: Path) -> None:
    assert Reserve(tmp_path / "gone" / "reserve").look(failed=False) == 1


class Telling:
    """A Room without an agent: what it records and emits."""

    def __init__(self, outbox: Outbox) -> None:
        self.driver = StubDriver()
        self.told: list[Any] = []
        self.room = Room(
            None,  # type: ignore[arg-type]
            None,  # type: ignore[arg-type]
            outbox,
            self.driver,  # type: ignore[arg-type]
            lambda action, **fields: self.told.append((action, fields.get("reason"))),
            lambda kind, **fields: self.told.append((fields["phase"].value, fields["value"])),
        )

    def at(self, now: float) -> list[Any]:
        self.room.tell(now)
        told, self.told = self.told, []
        return told


async def test_giving_up_is_told_when_it_begins_and_when_it_is_over(tmp_path: Path) -> None:
    box = await Box(tmp_path / "agent.db").open()
    telling = Telling(box.outbox)
    assert telling.at(0) == []
    box.outbox.pressure = 0.2
    assert telling.at(1) == [("outbox:shed", "disk_low"), ("raised", None)]
    box.outbox.shed["telemetry"] += 3
    assert telling.at(2) == []
    box.outbox.pressure = 0.0
    assert telling.at(3) == []
    assert telling.at(3 + QUIET_S) == [("outbox:room", None), ("cleared", 3.0)]
    assert telling.at(200) == []
    box.outbox.shed["event"] += 1  # at its own bound
    assert telling.at(201) == [("outbox:shed", "outbox_full"), ("raised", None)]
    box.outbox.shed["event"] += 1
    assert telling.at(230) == []
    assert telling.at(270) == []
    assert telling.at(291) == [("outbox:room", None), ("cleared", 2.0)]
    await box.close()


async def test_what_the_injector_says_itself_is_not_said_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = await Box(tmp_path / "agent.db").open()
    telling = Telling(box.outbox)
    low = [DriverEvent(EventCode.DISK_LOW, EventPhase.RAISED)]
    monkeypatch.setattr(telling.driver, "conditions", lambda: low)
    box.outbox.pressure = 0.2
    assert telling.at(1) == [("outbox:shed", "disk_low")]
    await box.close()


async def test_an_agent_says_that_it_gives_telemetry_up_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.room.LOOK_S", 0.05)
    free = 1000 * MB
    monkeypatch.setattr("agent.posix.free_bytes", lambda folder: free)
    monkeypatch.setattr(Reserve.__init__, "__kwdefaults__", {"size": MB, "free": lambda f: free})
    async with running(tmp_path) as (running_agent, served):
        agent = running_agent.agent
        await until((running_agent.state / "reserve").exists)
        assert agent.status()["disk_ok"]
        free = 0
        await until(lambda: agent.disk_low)
        assert not (running_agent.state / "reserve").exists()
        agent.outbox.pressure = 0.2
        agent.emit(Telemetry, samples=[SAMPLE])
        await until(lambda: agent.outbox.shed["telemetry"] == 1)
        assert not agent.status()["disk_ok"]
        await served.until(
            lambda: "outbox:shed" in [e.action for a in served.of(Audit) for e in a.entries]
        )
        free = 1000 * MB
        await until(lambda: not agent.disk_low)
        before = len(served.of(Telemetry))
        await agent.emit(Telemetry, samples=[SAMPLE])
        await served.until(lambda: len(served.of(Telemetry)) > before)
        assert {event.code for event in served.of(Event)} <= {EventCode.DISK_LOW}
    await asyncio.sleep(0)
    assert not (running_agent.state / "reserve").exists()
