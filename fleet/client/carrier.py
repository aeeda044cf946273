"""Streams over a websocket: moves bytes between a Mux and asyncio, and nothing else.

A Carrier outlives its websocket: when one breaks, its streams stand still until the next one is
attached and go on there (R-CON-5); one whose end at the injector does not answer is given up in the
end. All queues are bounded by the mux's credit: a reader that stops leaves at most one window of
bytes here, a writer waits for credit.

Nothing waits for its turn in the loop: whoever gives the mux something to send calls `pump`, which
writes frames while the websocket takes them; a frame that came goes to its stream's end at once.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from agent.wire import mux as wire
from agent.wire.mux import Mux, MuxError, ResetCode
from agent.wire.patience import Patience
from agent.wire.seal import Seal
from fleet.client.errors import ClientError, Exit
from fleet.client.i18n import _
from fleet.client.websocket import Websocket

OPEN_S = 15.0  # how long the injector may take to accept a stream
_ASK_S = 3.0  # an OPEN without an answer may have been lost
_LOOK_S = 1.0
_COUNT_BITS = 16
AnEnd = TypeVar("AnEnd", bound="End")


class StreamReset(Exception):
    """The stream is gone; `code` says why."""

    def __init__(self, code: ResetCode) -> None:
        super().__init__(code.name.lower())
        self.code = code


class End:
    """This process's end of a stream; `Carrier.open` opens it."""

    def __init__(self, carrier: "Carrier") -> None:
        self.id = 0
        self._carrier = carrier
        self._mux = carrier.mux
        self._told = asyncio.Event()
        self._accepted = False
        self._reset: ResetCode | None = None

    def heard(self, event: wire.Event) -> None:
        """The carrier tells what came on this stream."""
        match event:
            case wire.Accepted():
                self._accepted = True
            case wire.Reset():
                self._reset = event.code
        self._told.set()

    async def accepted(self) -> None:
        """Wait until the injector takes the stream. Raises StreamReset, TimeoutError."""
        async with asyncio.timeout(OPEN_S):
            while not self._accepted:
                self._raise_if_reset()
                try:
                    async with asyncio.timeout(_ASK_S):
                        await self._wait(self._told)
                except TimeoutError:
                    self._mux.ask(self.id)
                    self._carrier.pump()
        self._raise_if_reset()

    def end(self) -> None:
        """Send no more."""
        self._mux.end(self.id)
        self._carrier.pump()

    def reset(self, code: ResetCode = ResetCode.CANCELLED) -> None:
        self._carrier.drop(self, code)

    def _raise_if_reset(self) -> None:
        if self._reset is not None:
            raise StreamReset(self._reset)

    @staticmethod
    async def _wait(event: asyncio.Event) -> None:
        event.clear()
        await event.wait()


class Stream(End):
    """For one reader and one writer that wait."""

    def __init__(self, carrier: "Carrier") -> None:
        super().__init__(carrier)
        self._inbox: deque[bytes] = deque()
        self._changed = asyncio.Event()  # for the reader; `_told` is the writer's
        self._ended = False
        self._acknowledged = False

    def heard(self, event: wire.Event) -> None:
        match event:
            case wire.Data():
                self._inbox.append(event.data)
            case wire.Ended():
                self._ended = True
            case wire.Acknowledged():
                self._acknowledged = True
        super().heard(event)
        self._changed.set()

    async def read(self) -> bytes:
        """The next bytes, or nothing at the end. Raises StreamReset. Call used() afterwards."""
        while not self._inbox:
            self._raise_if_reset()
            if self._ended:
                return b""
            await self._wait(self._changed)
        return self._inbox.popleft()

    def used(self, size: int) -> None:
        self._mux.consumed(self.id, size)
        self._carrier.pump()

    async def write(self, data: bytes) -> None:
        """Send all of it, as credit allows. Raises StreamReset."""
        start = 0
        while start < len(data):
            self._raise_if_reset()
            size = min(self._mux.writable(self.id), len(data) - start)
            if not size:
                await self._wait(self._told)
                continue
            whole = size == len(data)
            self._mux.send(self.id, data if whole else memoryview(data)[start : start + size])
            start += size
            self._carrier.pump()

    async def acknowledged(self) -> None:
        """Wait until the injector has used everything, after end(). Raises StreamReset."""
        while not self._acknowledged:
            self._raise_if_reset()
            await self._wait(self._told)


class Carrier:
    """All streams of one session in this process. `take_epoch` gives numbers never used before."""

    def __init__(self, seal: Seal, take_epoch: Callable[[], int]) -> None:
        self.mux = Mux(seal)
        self._patience = Patience(self.mux)
        self.dropped = 0  # frames that were not taken
        self._take_epoch = take_epoch
        self._epoch = 0
        self._count = 0
        self._ends: dict[int, End] = {}
        self._websocket: Websocket | None = None

    def pump(self) -> None:
        """Send what may be sent, as far as the websocket takes it; the rest follows by itself."""
        websocket, next_frame = self._websocket, self.mux.next_frame
        if websocket is not None:
            while not websocket.full and (frame := next_frame()) is not None:
                websocket.send(frame)

    async def flush(self, limit_s: float) -> None:
        """Wait until everything that may be sent now is sent, at most so long."""
        if self._websocket is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                self.pump()
                await self._websocket.drained()

    async def open(self, end: AnEnd, service: str, *, bulk: bool = False) -> AnEnd:
        """Give this end a stream that the injector has accepted. Raises StreamReset,
        ClientError."""
        end.id = self._next_number()
        try:
            self.mux.open(end.id, service, bulk)
        except wire.LocalError:  # as many as the injector would take are open
            raise StreamReset(ResetCode.BUSY) from None
        self._ends[end.id] = end
        self.pump()
        try:
            await end.accepted()
        except TimeoutError:
            end.reset()
            raise ClientError(
                _("The injector did not answer in time. Try again."), Exit.TIMED_OUT
            ) from None
        except BaseException:
            end.reset()
            raise
        return end

    def drop(self, end: End, code: ResetCode) -> None:
        """Cut a stream; the injector is told unless it is over anyway."""
        self.mux.reset(end.id, code)
        self.release(end)
        self.pump()

    def release(self, end: End) -> None:
        """Listen to a stream no more. What is queued on it still goes out."""
        self._ends.pop(end.id, None)

    async def attach(self, websocket: Websocket) -> None:
        """Carry frames until the websocket closes; what it lost is asked for on the next one."""
        self._websocket = websocket
        self.mux.resume()
        self.pump()
        try:
            await websocket.ended()
        finally:
            self._websocket = None
            await websocket.close()

    async def watch(self) -> None:
        """Until cancelled: give up what has stood still for too long."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_LOOK_S)
            connected = self._websocket is not None
            for id in self._patience.look(loop.time(), connected=connected):
                self.mux.reset(id, ResetCode.GAP)
                if (end := self._ends.pop(id, None)) is not None:
                    end.heard(wire.Reset(id, ResetCode.GAP, by_peer=False))
            self.pump()

    def receive(self, frame: memoryview) -> None:
        """A frame came; the websocket calls pump() afterwards."""
        try:
            events = self.mux.receive(frame)
        except MuxError:  # not from the injector, or bent on the way: as if it had not come
            self.dropped += 1
            return
        for event in events:
            end = self._ends.get(event.stream)
            if end is not None:
                if isinstance(event, wire.Reset):
                    self.release(end)
                end.heard(event)

    def _next_number(self) -> int:
        if not self._epoch or self._count + 1 >> _COUNT_BITS:
            self._epoch, self._count = self._take_epoch(), 0
        self._count += 1
        return self._epoch << _COUNT_BITS | self._count
