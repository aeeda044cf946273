"""Agents that fail start anew, and none takes another with it (R-MNT-6)."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent import supervisor
from agent.errors import NetworkError, StateError
from agent.supervisor import supervise


class Scripted:
    """Agents whose runs end as told, one list for each state directory; then they work."""

    def __init__(self, **runs: list[BaseException]) -> None:
        self.runs = runs
        self.started: list[str] = []
        self.stopped: list[str] = []
        self.still: list[str] = []

    def __call__(self, state: Path) -> Any:
        return _Run(self, state.name)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.005)


class _Run:
    online = True
    waiting = 3

    def __init__(self, script: Scripted, name: str) -> None:
        self.script = script
        self.name = name
        self.state_dir = Path(name)

    def still(self) -> list[str]:
        return self.script.still

    async def run(self) -> None:
        self.script.started.append(self.name)
        try:
            await asyncio.sleep(0.01)
            if self.script.runs.get(self.name):
                raise self.script.runs[self.name].pop(0)
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.script.stopped.append(self.name)
            raise


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "PAUSE_S", (0.01, 0.05))
    monkeypatch.setenv("PATENCY_MEMORY_MB", "16384")  # the process is that of all tests


async def stop(task: "asyncio.Task[None]") -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(5):
        await task


async def test_one_that_fails_starts_anew_while_the_others_go_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    group = ExceptionGroup("tasks", [RuntimeError("a bug"), NetworkError("gone")])
    script = Scripted(a=[ValueError("bad"), group, StateError("full")])
    task = asyncio.create_task(supervise([Path("a"), Path("b")], script))
    await script.until(lambda: script.started.count("a") == 4)
    assert script.started.count("b") == 1
    assert script.stopped == []
    await stop(task)
    assert sorted(script.stopped) == ["a", "b"]
    assert "a bug" in caplog.text
    assert "the agent stopped: gone" in caplog.text


async def test_a_state_directory_alone_that_cannot_be_worked_on_is_told() -> None:
    script = Scripted(a=[StateError("no such directory")])
    with pytest.raises(StateError, match="no such directory"):
        await supervise([Path("a")], script)


async def test_an_agent_that_cannot_even_be_made_is_tried_again() -> None:
    script = Scripted()
    tries = []

    def make(state: Path) -> Any:
        tries.append(state)
        if len(tries) < 3:
            raise RuntimeError("a bug")
        return script(state)

    task = asyncio.create_task(supervise([Path("a")], make))
    await script.until(lambda: script.started == ["a"])
    await stop(task)
