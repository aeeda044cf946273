"""Children that are started anew when they fail, and are gone when we are."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from fleet.demo import processes
from fleet.demo.processes import Program, keep

CHILD = Path(processes.__file__).with_name("child.py")


def program(folder: Path, code: str) -> Program:
    return Program("child", [sys.executable, "-I", "-c", code], folder / "logs" / "child.log")


async def log_of(made: Program, text: str) -> None:
    async with asyncio.timeout(10):
        while not made.log.exists() or text not in made.log.read_text():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def cancelled(task: asyncio.Task[None]) -> float:
    began = time.monotonic()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return time.monotonic() - began


async def test_a_child_that_ends_is_started_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(processes, "PAUSE_S", (0.01, 0.02))
    made = program(tmp_path, "print('here'); raise SystemExit(7)")
    task = asyncio.create_task(keep(made))
    await log_of(made, "here\nhere\nhere")
    await cancelled(task)
    said = capfd.readouterr().err
    assert "child ended with status 7: here\n" in said  # its last words
    assert said.count("starts anew") == 1  # once is enough, however often it starts


async def test_a_cancelled_child_ends_by_itself(tmp_path: Path) -> None:
    made = program(tmp_path, "import time; print('up', flush=True); time.sleep(60)")
    task = asyncio.create_task(keep(made))
    await log_of(made, "up")
    (child,) = psutil.Process().children()
    assert await cancelled(task) < 2
    assert not child.is_running()


async def test_a_child_that_will_not_end_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "STOP_S", 0.2)
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "print('up', flush=True); time.sleep(60)"
    )
    made = program(tmp_path, code)
    task = asyncio.create_task(keep(made))
    await log_of(made, "up")
    assert 0.2 <= await cancelled(task) < 5
    assert psutil.Process().children() == []


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_a_child_dies_with_a_parent_that_was_killed() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-I", "-c",
         "import os, subprocess, sys, time\n"
         f"command = [sys.executable, '-I', {str(CHILD)!r}, str(os.getpid()),\n"
         "           '/bin/sleep', '60']\n"
         "print(subprocess.Popen(command).pid, flush=True); time.sleep(60)"],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    deadline = time.monotonic() + 10
    while child.name() != "sleep":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    _gone, alive = psutil.wait_procs([child], timeout=5)
    assert not alive


def test_a_child_whose_parent_is_gone_already_does_not_start() -> None:
    done = subprocess.run(
        [sys.executable, "-I", str(CHILD), str(os.getpid() + 100_000), "/bin/echo", "here"],
        capture_output=True,
        check=False,
    )
    assert done.stdout == b""
