"""Room on the disk: a reserve, and what is given up first when it runs out.

Theory. While the agent runs, a file of `SIZE` bytes lies in its state directory. When the disk has
less than `LOW` left, or takes a write no more, that file is removed and the agent lives on its
room, by priority: telemetry is no longer stored, then events, then everything but the audit chain.
Remote access is refused at once, while its refusal can still be written down. When the disk has
room for a new reserve, all is as before. Nothing of this concerns the injector.

`pressure` goes from 0 (a reserve is held) to 1 (nothing is left). What the outbox gave up, for that
reason or at its own bound, is counted, and told when it begins and when it is over: as event 603
and in the audit chain, which goes last.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent import posix
from agent.drivers import Driver
from agent.outbox import Outbox
from agent.store import Store
from agent.wire.catalogue import EVENT_PRIORITY, EventCode, EventPhase, Outcome
from agent.wire.messages import Event

SIZE = 8 * 1024 * 1024  # the store's log may need 4 of it
LOW = 4 * 1024 * 1024
LOOK_S = 1.0
QUIET_S = 60.0  # nothing given up for so long: it is over

log = logging.getLogger(__name__)


class Reserve:
    """The file. `look` touches the disk: call it in a thread."""

    def __init__(
        self, path: Path, *, size: int = SIZE, free: Callable[[Path], int] = posix.free_bytes
    ) -> None:
        self._path = path
        self._size = size
        self._free = free

    def look(self, failed: bool) -> float:
        """Take or give up the reserve; gives the pressure. `failed`: the last write did."""
        try:
            free = self._free(self._path.parent)
            held = self._path.exists() and self._path.stat().st_size >= self._size
            if not held and not failed and free >= self._size + 2 * LOW:
                posix.allocate(self._path, self._size)
                return 0.0
            if held and not failed and free >= LOW:
                return 0.0
            self._path.unlink(missing_ok=True)
            free = self._free(self._path.parent)
        except OSError as error:
            log.warning("the disk cannot be looked at: %s", error)
            return 1.0
        return min(1.0, max(0.01, 1 - free / self._size))

    def give_up(self) -> None:
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)


class Room:
    """Keeps the reserve, tells the outbox how pressed it is, and tells what was given up."""

    def __init__(
        self,
        reserve: Reserve,
        store: Store,
        outbox: Outbox,
        driver: Driver,
        record: Callable[..., Any],
        emit: Callable[..., Any],
    ) -> None:
        self._reserve = reserve
        self._store = store
        self._outbox = outbox
        self._driver = driver
        self._record = record
        self._emit = emit
        self._shed_before = 0  # when this time began
        self._shed = 0
        self._short_at: float | None = None  # newest moment of need
        self._told = False

    @property
    def low(self) -> bool:
        """The disk is so full that nobody may be let in."""
        return self._outbox.pressure > 0

    async def work(self) -> None:
        """Look until cancelled."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                failed = not self._store.healthy
                self._outbox.pressure = await asyncio.to_thread(self._reserve.look, failed)
                self.tell(loop.time())
                await asyncio.sleep(LOOK_S)
        finally:
            self._reserve.give_up()

    def tell(self, now: float) -> None:
        """Say that messages are given up, or no more."""
        shed = sum(self._outbox.shed.values())
        if self.low or shed > self._shed:
            self._short_at = now
        if self._short_at is None:
            self._shed_before = shed
        elif not self._told:
            self._told = True
            reason = "disk_low" if self.low else "outbox_full"
            log.error("messages are given up by priority: %s", reason)
            self._record("outbox:shed", actor="agent", outcome=Outcome.FAILED, reason=reason)
            self._event(EventPhase.RAISED, None)
        elif now - self._short_at > QUIET_S or (not self.low and shed == self._shed_before):
            self._told, self._short_at = False, None
            log.info("there is room again; %d messages were given up", shed - self._shed_before)
            self._record("outbox:room", actor="agent", outcome=Outcome.ALLOWED)
            self._event(EventPhase.CLEARED, float(shed - self._shed_before))
        self._shed = shed

    def _event(self, phase: EventPhase, value: float | None) -> None:
        if any(each.code == EventCode.DISK_LOW for each in self._driver.conditions()):
            return  # the injector says so itself
        code = EventCode.DISK_LOW
        self._emit(Event, code=code, priority=EVENT_PRIORITY[code], phase=phase, value=value)
