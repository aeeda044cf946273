"""Runs agents until told to stop: several may share a process, and none can take another with it.

An agent that fails starts anew after a pause that grows (R-MNT-6). A state directory that cannot be
worked on ends a process that has no other; beside others it is tried again, as somebody may put it
right. What cannot be put right in here, a thread or a loop that hangs, is left to the service
manager: it is told that all is well only while it is (`agent.watchdog`).
"""

import asyncio
import logging
import os
import random
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

from agent import i18n, logs, watchdog
from agent.errors import AgentError, StateError
from agent.i18n import _
from agent.runtime import Agent
from agent.watchdog import Leaking, Manager

PAUSE_S = (1.0, 30.0)  # first and longest
LASTING_S = 60.0  # an agent that ran this long starts anew without delay

Make = Callable[[Path], Agent]

log = logging.getLogger(__name__)


async def supervise(states: Sequence[Path], make: Make, *, manager: Manager | None = None) -> None:
    """Run an agent for each state directory until SIGTERM or SIGINT.

    Raises StateError when there is one directory and it cannot be worked on, and Leaking when the
    process outgrew its memory.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    process = _Process(make, only=len(states) == 1, stop=stop)
    manager = manager or Manager.of(os.environ)
    bound = watchdog.memory_bound(len(states), os.environ)
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(process.keep(state)) for state in states]
            tasks.append(group.create_task(process.guard(manager, bound)))
            await stop.wait()
            manager.tell("STOPPING=1")
            for task in tasks:
                task.cancel()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
    if process.failed is not None:
        raise process.failed


class _Process:
    """The agents of this process, each in a task that keeps it going."""

    def __init__(self, make: Make, *, only: bool, stop: asyncio.Event) -> None:
        self.failed: StateError | Leaking | None = None  # what ends the process
        self._make = make
        self._only = only
        self._stop = stop
        self._agents: dict[Path, Agent] = {}

    async def keep(self, state: Path) -> None:
        """One agent, again and again."""
        logs.agent.set(state.name)
        loop = asyncio.get_running_loop()
        pause, longest = PAUSE_S
        while True:
            started = loop.time()
            try:
                agent = self._agents[state] = self._make(state)
                await agent.run()
            except Exception as error:
                unusable = _state_error(error)
                if unusable is not None and self._only:
                    self._end(unusable)
                    return
                _tell(error)
            finally:
                self._agents.pop(state, None)
            if loop.time() - started >= LASTING_S:
                pause = PAUSE_S[0]
            await asyncio.sleep(random.uniform(0.5, 1) * pause)  # noqa: S311
            pause = min(pause * 2, longest)

    async def guard(self, manager: Manager, bound: int) -> None:
        """Tell the service manager that all is well, while it is."""
        ready = ["READY=1"]
        while True:
            try:
                watchdog.check_memory(bound)
            except Leaking as leak:
                log.error("%s", leak)
                self._end(leak)
                return
            if not (still := self._still()):
                manager.tell(*ready, "WATCHDOG=1", f"STATUS={self._status()}")
                ready = []
            else:
                parts = ", ".join(still)
                log.error("not moving: %s", parts)
                manager.tell("STATUS=" + _("not moving: {parts}").format(parts=parts))
            await asyncio.sleep(manager.every_s)

    def _still(self) -> list[str]:
        found = self._agents.items()
        return [f"{state.name} {part}" for state, agent in found for part in agent.still()]

    def _status(self) -> str:
        """One line for `systemctl status`, in the language of the first injector."""
        agents = list(self._agents.values())
        if agents:
            i18n.use(i18n.chosen(agents[0].state_dir))
        return _("{online} of {count} online, {waiting} messages wait").format(
            online=sum(agent.online for agent in agents),
            count=len(agents),
            waiting=sum(agent.waiting for agent in agents),
        )

    def _end(self, why: StateError | Leaking) -> None:
        self.failed = why
        self._stop.set()


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
