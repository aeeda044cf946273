"""A network between an agent and the gate that a test can spoil: a TCP relay in user space.

    async with Relay(gate_port) as relay:             # in a test's own loop
    with relaying(gate_port) as relay:                # in a thread, beside whole processes
        relay.weather = Weather(delay_s=0.15, loss=0.1)
        relay.black_hole(); relay.restore()           # half-open: nothing passes, nothing is closed
        relay.cut()                                   # every connection is reset
        relay.refuse(); relay.restore()               # and nobody listens

What it is a model of. The kernel's own TCP runs on both sides of the relay, so no packet is really
lost; what a loss does to a TCP connection is: bytes come late, in order, and the sender slows down.
Each segment of 1,448 bytes is lost with probability `loss`. It then comes a round trip later when
three segments follow it (fast retransmit), and otherwise after a retransmission time-out (a round
trip and 200 ms, doubled for each further loss of the same segment); everything behind it waits.
Bulk is held to the rate that Mathis et al. (1997) give for a TCP under random loss, 1.22 segments
per round trip and root of the loss. What it does not model: loss of SYN and of pure ACKs, and
packets out of order. While it is a black hole, a new connection is still accepted by the kernel and
then met with silence: a real one would not even get that.
"""

import asyncio
import contextlib
import itertools
import math
import random
import socket
import struct
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType

SEGMENT = 1448
MIN_RTO_S = 0.2
MOST_RTO_S = 60.0
SMALL = 4096  # bytes of a kernel's buffer towards the relay
FAST_RETRANSMIT = 3  # segments that must follow a lost one
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with RST


@dataclass(frozen=True, slots=True)
class Weather:
    """What the network is like, for all that is sent from now on; each way."""

    rate: float = math.inf  # bytes a second, shared by all connections
    delay_s: float = 0.0  # one way
    loss: float = 0.0  # of segments, 0..1
    buffer: int = 256 * 1024  # bytes a connection may have on the way; then the sender is paused

    @property
    def goodput(self) -> float:
        """Bytes a second that one TCP connection reaches at best."""
        if self.loss == 0 or self.delay_s == 0:
            return self.rate
        mathis = 1.22 * SEGMENT / (2 * self.delay_s * math.sqrt(self.loss))
        return min(self.rate, mathis)


CLEAR = Weather()


class Path:
    """When the segments of one direction of one connection arrive. No IO, no clock."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._sent = 0.0  # when the last segment has left
        self._arrived = 0.0

    def due(self, now: float, size: int, behind: int, weather: Weather) -> float:
        """The time of arrival of a segment of `size` bytes with `behind` bytes following it."""
        self._sent = max(self._sent, now) + size / weather.goodput
        due = self._sent + weather.delay_s
        round_trip = 2 * weather.delay_s
        wait = min(round_trip + MIN_RTO_S, MOST_RTO_S)
        if behind >= FAST_RETRANSMIT * SEGMENT and self._chance.random() < weather.loss:
            due += round_trip
        elif behind < FAST_RETRANSMIT * SEGMENT:
            while self._chance.random() < weather.loss:
                due += wait
                wait = min(wait * 2, MOST_RTO_S)
        self._arrived = max(self._arrived, due)  # in order
        return self._arrived


class Relay:
    """Listens on `port` (of its own choice by default) and passes on to `target`, on 127.0.0.1."""

    def __init__(self, target: int, *, port: int = 0, seed: int = 1) -> None:
        self.target = target
        self.port = port
        self.weather = CLEAR
        self.opened = 0  # connections, ever
        self.passed = [0, 0]  # bytes up and down
        self._chance = random.Random(seed)
        self._ways: dict[asyncio.Task[None], tuple[socket.socket, socket.socket]] = {}
        self._accepting: asyncio.Task[None] | None = None
        self._listener: socket.socket | None = None
        self._link_free = [0.0, 0.0]  # of the shared rate, up and down
        self._passing = asyncio.Event()

    async def __aenter__(self) -> "Relay":
        self._loop = asyncio.get_running_loop()
        self._restore()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._refuse()
        tasks = list(self._ways)
        self._cut()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def connections(self) -> int:
        """Open at this moment."""
        return len(self._ways)

    # --- what a test does to it, from any thread -----------------------------------------------

    def black_hole(self) -> None:
        """Forward nothing, in neither direction, and close nothing."""
        self._loop.call_soon_threadsafe(self._passing.clear)

    def restore(self) -> None:
        """The network is back; what was on its way arrives."""
        self._loop.call_soon_threadsafe(self._restore)

    def cut(self) -> None:
        """Reset every connection, both ends."""
        self._loop.call_soon_threadsafe(self._cut)

    def refuse(self) -> None:
        """Reset every connection and refuse new ones."""
        self._loop.call_soon_threadsafe(self._refuse)

    # --- in the loop ---------------------------------------------------------------------------

    def _restore(self) -> None:
        self._passing.set()
        if self._listener is None:
            self._listener = _listen(self.port)
            self.port = self._listener.getsockname()[1]
            self._accepting = self._loop.create_task(self._accept(self._listener))

    def _refuse(self) -> None:
        if self._accepting is not None:
            self._accepting.cancel()
            self._accepting = None
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        self._cut()

    def _cut(self) -> None:
        for task, ends in self._ways.items():
            for end in ends:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            task.cancel()

    async def _accept(self, listener: socket.socket) -> None:
        while True:
            near, _address = await self._loop.sock_accept(listener)
            far = socket.socket()
            far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
            for end in (near, far):
                end.setblocking(False)
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.opened += 1
            task = self._loop.create_task(self._carry(near, far))
            self._ways[task] = (near, far)
            task.add_done_callback(self._ways.pop)

    async def _carry(self, near: socket.socket, far: socket.socket) -> None:
        """One connection, both ways, until both are at their end or one fails."""
        with near, far, contextlib.suppress(OSError):
            await self._loop.sock_connect(far, ("127.0.0.1", self.target))
            try:
                async with asyncio.TaskGroup() as group:
                    for number, (source, sink) in enumerate([(near, far), (far, near)]):
                        way = _Way(self, number, source, sink)
                        group.create_task(way.take())
                        group.create_task(way.give())
            except* OSError:
                pass  # a peer has gone: so must the other

    def depart(self, number: int, now: float, size: int) -> float:
        """When the shared link of this direction has taken `size` more bytes."""
        free = max(self._link_free[number], now)
        self._link_free[number] = free + size / self.weather.rate
        return free


class _Way:
    """One direction of a connection."""

    def __init__(
        self, relay: Relay, number: int, source: socket.socket, sink: socket.socket
    ) -> None:
        self._relay = relay
        self._number = number
        self._source = source
        self._sink = sink
        self._loop = asyncio.get_running_loop()
        self._path = Path(random.Random(relay._chance.random()))
        self._queue: deque[tuple[float, bytes]] = deque()
        self._held = 0  # bytes
        self._changed = asyncio.Event()

    async def take(self) -> None:
        while True:
            await self._relay._passing.wait()
            while self._held >= self._relay.weather.buffer:
                await self._change()
            data = await self._loop.sock_recv(self._source, SEGMENT)
            weather = self._relay.weather
            start = self._relay.depart(self._number, self._loop.time(), len(data))
            due = self._path.due(start, len(data), self._held, weather)
            self._queue.append((due, data))
            self._held += len(data)
            self._changed.set()
            if not data:
                return

    async def give(self) -> None:
        while True:
            while not self._queue:
                await self._change()
            due, data = self._queue[0]
            await asyncio.sleep(max(0.0, due - self._loop.time()))
            await self._relay._passing.wait()
            if not data:
                self._sink.shutdown(socket.SHUT_WR)
                return
            await self._loop.sock_sendall(self._sink, data)
            self._queue.popleft()
            self._held -= len(data)
            self._relay.passed[self._number] += len(data)
            self._changed.set()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()


def _listen(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Small, so that a slow link's queue is where `buffer` says and not in this kernel.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
    listener.bind(("127.0.0.1", port))
    listener.listen(1024)
    listener.setblocking(False)
    return listener


_names = itertools.count(1)


@contextlib.contextmanager
def relaying(target: int, *, port: int = 0, seed: int = 1) -> Iterator[Relay]:
    """A relay on a loop in a thread of its own."""
    ready: deque[Relay] = deque()
    begun, end = threading.Event(), asyncio.Event()

    async def work() -> None:
        async with Relay(target, port=port, seed=seed) as relay:
            ready.append(relay)
            begun.set()
            await end.wait()

    thread = threading.Thread(target=asyncio.run, args=(work(),), name=f"relay {next(_names)}")
    thread.start()
    assert begun.wait(10)
    relay = ready[0]
    try:
        yield relay
    finally:
        relay._loop.call_soon_threadsafe(end.set)
        thread.join(10)
