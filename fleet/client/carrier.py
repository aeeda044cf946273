"""Streams over a websocket: moves bytes between a Mux and asyncio, and nothing else.

A Carrier outlives its websocket: when one breaks, its streams stand still until the next one is
attached and go on there (R-CON-5); one whose end at the injector does not answer is given up in the
end. All queues are bounded by the mux's credit: a reader that stops leaves at most one window of
bytes here, a writer waits for credit.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from agent.wire import mux as wire
from agent.wire.mux import Mux, MuxError, ResetCode
from agent.wire.patience import Patience
from agent.wire.seal import Seal
from fleet.client.errors import ClientError, Exit

OPEN_S = 15.0  # how long the injector may take to accept a stream
_ASK_S = 3.0  # an OPEN without an answer may have been lost
_LOOK_S = 1.0
_COUNT_BITS = 16


class StreamReset(Exception):
    """The stream is gone; `code` says why."""

    def __init__(self, code: ResetCode) -> None:
        super().__init__(code.name.lower())
        self.code = code


class Stream:
    """One stream, for one reader and one writer."""

    def __init__(self, carrier: "Carrier", id: int) -> None:
        self.id = id
        self._carrier = carrier
        self._inbox: deque[bytes] = deque()
        self._changed = asyncio.Event()  # for the reader
        self._credit = asyncio.Event()  # for the writer
        self._ended = False
        self._reset: ResetCode | None = None
        self._accepted = False
        self._acknowledged = False

    # The carrier tells:

    def heard(self, event: wire.Event) -> None:
        match event:
            case wire.Data():
                self._inbox.append(event.data)
            case wire.Ended():
                self._ended = True
            case wire.Accepted():
                self._accepted = True
            case wire.Acknowledged():
                self._acknowledged = True
            case wire.Reset():
                self._reset = event.code
        self._changed.set()
        self._credit.set()

    # The program asks:

    async def accepted(self) -> None:
        """Wait until the injector takes the stream. Raises StreamReset, TimeoutError."""
        async with asyncio.timeout(OPEN_S):
            while not self._accepted:
                self._raise_if_reset()
                try:
                    async with asyncio.timeout(_ASK_S):
                        await self._wait(self._credit)
                except TimeoutError:
                    self._carrier.mux.ask(self.id)
                    self._carrier.wake()

    async def read(self) -> bytes:
        """The next bytes, or nothing at the end. Raises StreamReset. Call used() afterwards."""
        while not self._inbox:
            self._raise_if_reset()
            if self._ended:
                return b""
            await self._wait(self._changed)
        return self._inbox.popleft()

    def used(self, size: int) -> None:
        self._carrier.mux.consumed(self.id, size)
        self._carrier.wake()

    async def write(self, data: bytes) -> None:
        """Send all of it, as credit allows. Raises StreamReset."""
        mux, start = self._carrier.mux, 0
        while start < len(data):
            self._raise_if_reset()
            size = min(mux.writable(self.id), len(data) - start)
            if not size:
                await self._wait(self._credit)
                continue
            whole = size == len(data)
            mux.send(self.id, data if whole else memoryview(data)[start : start + size])
            start += size
            self._carrier.wake()

    def end(self) -> None:
        """Send no more."""
        self._carrier.mux.end(self.id)
        self._carrier.wake()

    async def acknowledged(self) -> None:
        """Wait until the injector has used everything, after end(). Raises StreamReset."""
        while not self._acknowledged:
            self._raise_if_reset()
            await self._wait(self._credit)

    def release(self) -> None:
        self._carrier.release(self)

    def reset(self, code: ResetCode = ResetCode.CANCELLED) -> None:
        self._carrier.drop(self, code)

    def _raise_if_reset(self) -> None:
        if self._reset is not None:
            raise StreamReset(self._reset)

    @staticmethod
    async def _wait(event: asyncio.Event) -> None:
        event.clear()
        await event.wait()


class Carrier:
    """All streams of one session in this process. `take_epoch` gives numbers never used before."""

    def __init__(self, seal: Seal, take_epoch: Callable[[], int]) -> None:
        self.mux = Mux(seal)
        self._patience = Patience(self.mux)
        self.dropped = 0  # frames that were not taken
        self._take_epoch = take_epoch
        self._epoch = 0
        self._count = 0
        self._streams: dict[int, Stream] = {}
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._attached = False

    def wake(self) -> None:
        """There may be something to send."""
        self._idle.clear()
        self._wake.set()

    async def flush(self, limit_s: float) -> None:
        """Wait until everything that may be sent now is sent, at most so long."""
        if not self._attached:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._idle.wait()

    async def open(self, service: str, *, bulk: bool = False) -> Stream:
        """A stream that the injector has accepted. Raises StreamReset, ClientError."""
        stream = Stream(self, self._next_number())
        try:
            self.mux.open(stream.id, service, bulk)
        except wire.LocalError:  # as many as the injector would take are open
            raise StreamReset(ResetCode.BUSY) from None
        self._streams[stream.id] = stream
        self.wake()
        try:
            await stream.accepted()
        except TimeoutError:
            stream.reset()
            raise ClientError(
                "The injector did not answer in time. Try again.", Exit.TIMED_OUT
            ) from None
        except BaseException:
            stream.reset()
            raise
        return stream

    def drop(self, stream: Stream, code: ResetCode) -> None:
        """Cut a stream; the injector is told unless it is over anyway."""
        self.mux.reset(stream.id, code)
        self._streams.pop(stream.id, None)
        self.wake()

    def release(self, stream: Stream) -> None:
        """Listen to a stream no more. What is queued on it still goes out."""
        self._streams.pop(stream.id, None)

    async def attach(self, websocket: ClientConnection) -> None:
        """Carry frames until the websocket closes; what it lost is asked for on the next one."""
        self._attached = True
        self.mux.resume()
        self.wake()
        try:
            async with asyncio.TaskGroup() as group:
                sender = group.create_task(self._send(websocket))
                await self._receive_all(websocket)
                sender.cancel()
        finally:
            self._attached = False

    async def watch(self) -> None:
        """Until cancelled: give up what has stood still for too long."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_LOOK_S)
            for id in self._patience.look(loop.time(), connected=self._attached):
                self.mux.reset(id, ResetCode.GAP)
                if (stream := self._streams.pop(id, None)) is not None:
                    stream.heard(wire.Reset(id, ResetCode.GAP, by_peer=False))
            self.wake()

    async def _receive_all(self, websocket: ClientConnection) -> None:
        try:
            async for frame in websocket:
                if isinstance(frame, bytes):
                    self._receive(frame)
        except ConnectionClosed:
            return

    async def _send(self, websocket: ClientConnection) -> None:
        try:
            while True:
                self._wake.clear()
                while (frame := self.mux.next_frame()) is not None:
                    await websocket.send(frame)
                self._idle.set()
                await self._wake.wait()
        except ConnectionClosed:
            return  # attach() sees it too

    def _receive(self, frame: bytes) -> None:
        try:
            events = self.mux.receive(frame)
        except MuxError:  # not from the injector, or bent on the way: as if it had not come
            self.dropped += 1
            return
        for event in events:
            stream = self._streams.get(event.stream)
            if stream is None:
                continue
            if isinstance(event, wire.Reset):
                self._streams.pop(event.stream)
            stream.heard(event)
        self.wake()

    def _next_number(self) -> int:
        if not self._epoch or self._count + 1 >> _COUNT_BITS:
            self._epoch, self._count = self._take_epoch(), 0
        self._count += 1
        return self._epoch << _COUNT_BITS | self._count
