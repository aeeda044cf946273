"""Runs agents until told to stop: several may share a process, and none can take another with it.

An agent that fails starts anew after a pause that grows (R-MNT-6). A state directory that cannot be
worked on ends a process that has no other; beside others it is tried again, as somebody may put it
right.
"""

import asyncio
import logging
import random
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

from agent import logs
from agent.errors import AgentError, StateError
from agent.runtime import Agent

PAUSE_S = (1.0, 30.0)  # first and longest
LASTING_S = 60.0  # an agent that ran this long starts anew without delay

Make = Callable[[Path], Agent]

log = logging.getLogger(__name__)


async def supervise(states: Sequence[Path], make: Make) -> None:
    """Run an agent for each state directory until SIGTERM or SIGINT.

    Raises StateError when there is one directory and it cannot be worked on.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    failed: list[StateError] = []
    try:
        async with asyncio.TaskGroup() as group:
            only = len(states) == 1
            tasks = [group.create_task(_keep(state, make, only, failed, stop)) for state in states]
            await stop.wait()
            for task in tasks:
                task.cancel()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
    if failed:
        raise failed[0]


async def _keep(
    state: Path, make: Make, only: bool, failed: list[StateError], stop: asyncio.Event
) -> None:
    """One agent, again and again."""
    logs.agent.set(state.name)
    loop = asyncio.get_running_loop()
    pause, longest = PAUSE_S
    while True:
        started = loop.time()
        try:
            await make(state).run()
        except Exception as error:
            unusable = _state_error(error)
            if unusable is not None and only:
                failed.append(unusable)
                stop.set()
                return
            _tell(error)
        if loop.time() - started >= LASTING_S:
            pause = PAUSE_S[0]
        await asyncio.sleep(random.uniform(0.5, 1) * pause)  # noqa: S311
        pause = min(pause * 2, longest)


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]


def _state_error(error: BaseException) -> StateError | None:
    return next((leaf for leaf in _leaves(error) if isinstance(leaf, StateError)), None)


def _tell(error: BaseException) -> None:
    for leaf in _leaves(error):
        if isinstance(leaf, AgentError):
            log.error("the agent stopped: %s", leaf)
        else:
            log.error("the agent failed and starts anew", exc_info=leaf)
