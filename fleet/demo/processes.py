"""The demo's child processes: started, started anew when they fail, and ended with us."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fleet.demo import trouble

STOP_S = 2.0  # to end by themselves
PAUSE_S = (1.0, 15.0)  # before a start anew: first and longest
_CHILD = Path(__file__).with_name("child.py")


@dataclass(frozen=True, slots=True)
class Program:
    """`log`: where its stderr and stdout go; begun anew with each start of the demo."""

    name: str
    command: Sequence[str]
    log: Path


async def keep(program: Program) -> None:
    """Run a program until cancelled, and leave nothing of it behind (R-MNT-6, as systemd would)."""
    program.log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    pause, longest = PAUSE_S
    mode, told = os.O_TRUNC, ""
    while True:
        handle = os.open(program.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | mode, 0o600)
        try:
            status = await _once(program, handle)
        finally:
            os.close(handle)
        mode = 0
        last = trouble.last_words(program.log)
        said = f"ended with status {status}" + (f": {last}" if last else ".")
        if said != told:  # once is enough, however often it starts
            _note(f"{program.name} {said}\n  It starts anew. Its log: {program.log}")
        told = said
        await asyncio.sleep(pause)
        pause = min(pause * 2, longest)


async def _once(program: Program, log: int) -> int:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", str(_CHILD), str(os.getpid()), *program.command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,  # Ctrl-C is for us; we tell them
    )  # fmt: skip
    try:
        return await process.wait()
    finally:
        if process.returncode is None:
            await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(STOP_S):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _note(text: str) -> None:
    sys.stderr.write(f"demo: {text}\n")
    sys.stderr.flush()
