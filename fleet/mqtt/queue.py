"""Between the event loop, where the gate delivers, and the one thread that writes.

Bounded in messages and in bytes. When it is full, `offer` says so and the gate keeps what comes in
order, without acknowledging it, until `room` is called: a slow database pauses devices, it loses
nothing and it does not grow the process.
"""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

import msgspec


def _nothing() -> None:
    return None


class Item(msgspec.Struct, frozen=True):  # made in C, for every message
    """One message from a device. `ack` belongs on the event loop."""

    device: str
    type: str
    version: int
    payload: bytes
    received_at: datetime
    qos: int = 1
    ack: Callable[[], None] = _nothing


@dataclass(slots=True)
class Load:
    """What the writer takes at once: work first (presence, ticks), then messages."""

    work: list[Callable[[], object]] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)


class IngestQueue:
    def __init__(self, *, depth: int = 4000, most_bytes: int = 64 * 1024 * 1024) -> None:
        self._depth = depth
        self._most_bytes = most_bytes
        self._bytes = 0
        self._items: deque[Item] = deque()
        # By name, the newest wins: bounded by the number of devices and of ticks.
        self._work: dict[str, Callable[[], object]] = {}
        self._filled = threading.Condition()
        self._closed = False
        self._starved = False

    def __len__(self) -> int:
        return len(self._items)

    def offer(self, item: Item) -> bool:
        """Take a message, or return False: full (or closing)."""
        with self._filled:
            if (
                self._closed
                or len(self._items) >= self._depth
                or self._bytes + len(item.payload) > self._most_bytes
            ):
                self._starved = True
                return False
            self._items.append(item)
            self._bytes += len(item.payload)
            self._filled.notify()
            return True

    def submit(self, name: str, work: Callable[[], object]) -> None:
        """Have the writer do `work`, before messages that wait. Work of the same name that has not
        begun is replaced."""
        with self._filled:
            if not self._closed:
                self._work.pop(name, None)  # the newest also comes last
                self._work[name] = work
                self._filled.notify()

    def take(self, most: int, timeout: float) -> tuple[Load, bool]:
        """Wait for something to do. Returns it, and whether a refused `offer` may be repeated."""
        with self._filled:
            if not self._items and not self._work and not self._closed:
                self._filled.wait(timeout)
            load = Load(work=list(self._work.values()))
            self._work.clear()
            while self._items and len(load.items) < most:
                item = self._items.popleft()
                self._bytes -= len(item.payload)
                load.items.append(item)
            room = self._starved and len(self._items) <= self._depth // 2
            if room:
                self._starved = False
            return load, room

    def close(self) -> None:
        """Take nothing more; what waits is not acknowledged, so devices send it again."""
        with self._filled:
            self._closed = True
            self._items.clear()
            self._work.clear()
            self._bytes = 0
            self._filled.notify_all()
