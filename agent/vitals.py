"""The signs of life of one agent, and whether its last run ended as it should (R-MNT-6).

`still` names what does not move: the ticks of the loop, the thread of the store, the outbox. The
outbox may wait for the portal as long as it likes; online, with entries to send and none on its
way, it waits for nobody and stands still.

A run leaves its boot's name in the store and takes it away when it ends in good order. Found at the
next start with the machine not restarted in between, it says that the agent was killed or failed:
by the watchdog, the kernel, or a fault of ours. The portal is told with event 602.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from typing import Any

from agent.clock import Clock
from agent.connection import Connection
from agent.store import Store, get_meta, set_meta
from agent.watchdog import Pulse
from agent.wire.catalogue import EVENT_PRIORITY, EventCode, EventPhase, Outcome
from agent.wire.messages import Event

LIMITS = {"ticks": 10.0, "store": 10.0, "outbox": 60.0}  # seconds
EVERY_S = 1.0
_RUNNING = "running"


class Vitals:
    """Of an agent whose store is open; `connection` gives the present one, if any."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        connection: Callable[[], Connection | None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._connection = connection
        self._pulse = Pulse(LIMITS)
        self._probing = False
        self._cut_off = False

    async def begin(self) -> None:
        """Mark that a run began, and find out how the last one ended. Raises StoreError."""
        boot = self._clock.boot

        def work(connection: sqlite3.Connection) -> bool:
            cut_off = bool(get_meta(connection, _RUNNING) == boot)
            set_meta(connection, _RUNNING, boot)
            return cut_off

        self._cut_off = await self._store.write(work)

    def announce(self, record: Callable[..., Any], emit: Callable[..., Any]) -> None:
        """Write down and tell that the agent started, and whether a fault made it."""
        reason = "after_fault" if self._cut_off else None
        record("agent:start", actor="agent", outcome=Outcome.ALLOWED, reason=reason)
        if self._cut_off:
            code = EventCode.WATCHDOG_RESTART
            for phase in (EventPhase.RAISED, EventPhase.CLEARED):  # a moment, not a state
                emit(Event, code=code, priority=EVENT_PRIORITY[code], phase=phase)

    def end(self) -> None:
        """The run ends in good order."""
        self._store.write(lambda connection: set_meta(connection, _RUNNING, ""))

    async def work(self) -> None:
        """Feel the pulse of store and outbox until cancelled."""
        while True:
            if not self._probing:
                self._probing = True
                self._store.write(self._stored).add_done_callback(self._probed)
            if self._outbox_moves():
                self._pulse.beat("outbox", self._clock.now())
            await asyncio.sleep(EVERY_S)

    def ticked(self, now: float) -> None:
        self._pulse.beat("ticks", now)

    def still(self) -> list[str]:
        """Parts that stand still."""
        return self._pulse.still(self._clock.now())

    def _stored(self, _connection: sqlite3.Connection) -> None:
        # In the writer thread, so that a disk which takes nothing is no reason to start anew.
        self._pulse.beat("store", self._clock.now())

    def _probed(self, _written: asyncio.Future[None]) -> None:
        self._probing = False

    def _outbox_moves(self) -> bool:
        connection = self._connection()
        return connection is None or not connection.stalled
