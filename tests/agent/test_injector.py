"""Conditions outlive a restart of the agent; the console's view is the driver's (R-MNT-5)."""

import sqlite3
from pathlib import Path
from types import SimpleNamespace

from agent import injector
from agent.control import Control
from agent.wire.catalogue import EventCode, EventPhase
from agent.wire.messages import Event
from tests.agent.jobs.rig import Rig


def plugged(rig: Rig) -> None:
    rig.control = Control()
    rig.online = False
    rig.identity = SimpleNamespace(provision=SimpleNamespace(serial="S-1"))
    injector.install(rig)  # type: ignore[arg-type]


def cleared(rig: Rig) -> list[EventCode]:
    events = [message for message in rig.sent if isinstance(message, Event)]
    assert all(event.phase is EventPhase.CLEARED for event in events)
    return [event.code for event in events]


async def test_what_the_driver_forgot_in_a_restart_is_cleared_once(tmp_path: Path) -> None:
    async with Rig(tmp_path).running() as rig:
        plugged(rig)
        rig.simulate("occlusion")
        rig.pass_time(10)
        await rig.until(lambda: rig.ticks and _kept(tmp_path))
        assert _kept(tmp_path) >= {102, 103}
        assert cleared(rig) == []  # the driver tells of its own
    for starts in range(2):
        async with Rig(tmp_path).running() as rig:
            plugged(rig)
            rig.pass_time(1)
            assert cleared(rig) == []  # the driver has time to look
            rig.pass_time(10)
            await rig.until(lambda: not _kept(tmp_path) & {102, 103})
            expected = [] if starts else [EventCode.OVERPRESSURE, EventCode.OCCLUSION_SUSPECTED]
            assert cleared(rig) == expected


def _kept(folder: Path) -> set[int]:
    with sqlite3.connect(folder / "agent.db") as db:
        try:
            return {code for (code,) in db.execute("SELECT code FROM condition")}
        except sqlite3.OperationalError:  # not made yet
            return set()


async def test_the_console_sees_what_the_driver_says(tmp_path: Path) -> None:
    async with Rig(tmp_path).running() as rig:
        plugged(rig)
        rig.simulate("stall")
        rig.pass_time(10)
        answer = await rig.control.answer({"op": "console-view"})
        shown = answer["result"]
        assert shown["state"] == "fault"
        assert shown["serial"] == "S-1"
        assert {condition["code"] for condition in shown["conditions"]} >= {201}
        newest = shown["events"][-1]
        assert newest["name"] == "stall"
        assert newest["phase"] == "raised"
        assert newest["at"].endswith("+00:00")
        assert "heater" in shown["faults"]
        assert shown["values"]["pressure_limit_kpa"] == 2068
