"""What leaves next, over a path that the test times (R-CON-4)."""

from collections import deque

import pytest

from agent.network.pace import OVERHEAD
from agent.outflow import Message, Outflow
from agent.wire.pacer import TARGET_S, Turn

KBIT_64 = 8_000.0  # bytes a second
LATE_S = 2.0


class Source:
    """Frames of streams: `interactive` or `bulk` without end, or what was typed."""

    def __init__(self) -> None:
        self.control: list[bytes] = []
        self.typed: list[bytes] = []
        self.interactive = False
        self.bulk = False

    def __call__(self, turn: Turn, most: int) -> bytes | None:
        if self.control:
            return self.control.pop(0)
        if turn >= Turn.INTERACTIVE and self.typed:
            return self.typed.pop(0)
        if turn >= Turn.INTERACTIVE and self.interactive:
            return b"i" * most
        return b"b" * most if self.bulk and turn is Turn.BULK else None


class Path:
    """A link of `rate` bytes a second whose queue takes anything, as a modem's does."""

    def __init__(self, rate: float, round_trip_s: float) -> None:
        self.now = 100.0
        self.source = Source()
        self.outflow = Outflow(self.source, self.now)
        self.outflow.streaming = True
        self.left: list[tuple[float, Message | bytes]] = []
        self._rate = rate
        self._round_trip_s = round_trip_s
        self._free = 0.0
        self._answers: deque[float] = deque()
        self._mark()

    @property
    def queue_s(self) -> float:
        """How long a heartbeat would wait now."""
        return max(0.0, self._free - self.now)

    def run(self, for_s: float) -> float:
        """Let everything leave as it may; the longest queue that was met."""
        end, longest = self.now + for_s, 0.0
        while self.now < end:
            while (found := self.outflow.next(self.now)) is not None:
                size = len(found.payload) + OVERHEAD if isinstance(found, Message) else len(found)
                self._free = max(self._free, self.now) + size / self._rate
                self.left.append((self.now, found))
                if self.outflow.pacer.mark_due:
                    self._mark()
            longest = max(longest, self.queue_s)
            self.now = min(end, self._answers[0] if self._answers else end)
            if self._answers and self.now >= self._answers[0]:
                self._answers.popleft()
                self.outflow.pacer.answered(self.now)
        return longest

    def _mark(self) -> None:
        self.outflow.pacer.marked(self.now)
        self._answers.append(max(self._free, self.now) + self._round_trip_s)

    def backlog(self, count: int, size: int) -> list[Message]:
        messages = [Message("up", bytes(size), seq) for seq in range(count)]
        for message in messages:
            self.outflow.offer(message)
        return messages

    @property
    def messages(self) -> list[Message]:
        return [what for _at, what in self.left if isinstance(what, Message)]

    @property
    def frames(self) -> list[bytes]:
        return [what for _at, what in self.left if isinstance(what, bytes)]


@pytest.mark.parametrize("round_trip_s", [0.04, 0.3, 0.8])
@pytest.mark.parametrize("size", [300, 4_000])
def test_a_backlog_leaves_in_order_and_its_queue_stays_short(
    round_trip_s: float, size: int
) -> None:
    path = Path(KBIT_64, round_trip_s)
    messages = path.backlog(512 * 1024 // size, size)  # the core's window, full
    longest = path.run(20)  # it learns the path
    before = len(path.messages)
    longest = max(longest, path.run(20))
    assert path.messages == messages[: len(path.messages)]
    assert longest < 0.6 * LATE_S  # two of the large messages, and what the pacer allows
    carried = sum(len(message.payload) + OVERHEAD for message in path.messages[before:])
    # And the line is used; but a message cannot be cut, and where an answer takes long the line is
    # idle meanwhile.
    share = 0.8 if round_trip_s < (0.5 if size < 1000 else 0.1) else 0.35
    assert carried > share * 20 * KBIT_64


def test_nothing_waits_on_an_idle_path() -> None:
    path = Path(1e6, 0.02)
    path.run(1)
    [message] = path.backlog(1, 300)
    assert path.outflow.next(path.now) is message


def test_a_keystroke_finds_room_beside_a_backlog() -> None:
    path = Path(KBIT_64, 0.04)
    path.backlog(2000, 250)
    path.run(5)
    waits = []
    for _each in range(20):
        path.run(0.13)
        path.source.typed.append(b"k" * 120)
        path.run(0.001)
        assert not path.source.typed  # it left at once
        waits.append(path.queue_s)
    assert max(waits) < 4 * TARGET_S


@pytest.mark.parametrize("kind", ["bulk", "interactive"])
def test_neither_a_transfer_nor_a_backlog_stops_the_other(kind: str) -> None:
    path = Path(KBIT_64, 0.04)
    setattr(path.source, kind, True)
    path.backlog(1000, 250)
    path.run(10)
    assert len(path.messages) > 10
    assert sum(map(len, path.frames)) > 0.3 * 10 * KBIT_64


def test_control_frames_wait_for_nothing() -> None:
    path = Path(KBIT_64, 0.04)
    path.source.interactive = True
    path.run(5)
    assert path.outflow.next(path.now) is None
    path.source.control.append(b"credit")
    assert path.outflow.next(path.now) == b"credit"


def test_frames_are_not_asked_for_before_the_portal_knows_us() -> None:
    path = Path(KBIT_64, 0.04)
    path.outflow.streaming = False
    path.source.bulk = True
    path.backlog(3, 100)
    path.run(1)
    assert len(path.messages) == 3
    assert not path.frames


def test_the_cap_holds_messages_and_frames_and_says_until_when() -> None:
    path = Path(1e6, 0.01)
    path.run(1)
    assert path.outflow.wait(path.now) == 0
    path.outflow.set_cap(4_000, path.now)
    path.source.bulk = True
    path.backlog(100, 300)
    while path.outflow.next(path.now) is not None:
        path.outflow.pacer.marked(path.now)
        path.outflow.pacer.answered(path.now)
    assert not path.outflow.spare(path.now)
    wait = path.outflow.wait(path.now)
    assert 0 < wait < 2
    assert path.outflow.next(path.now + wait * 0.9) is None
    assert path.outflow.next(path.now + wait) is not None


def test_another_connection_begins_with_nothing() -> None:
    path = Path(KBIT_64, 0.04)
    path.backlog(10, 3_000)
    path.run(0.1)
    path.outflow.begin()
    assert path.outflow.pacer.on_the_way == 0
    assert path.outflow.next(path.now) is None
