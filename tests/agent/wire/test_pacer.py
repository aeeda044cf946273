"""What may be on its way at once, over paths that a model simulates (R-CON-4)."""

from collections import deque

import pytest

from agent.wire.frames import MAX_DATA
from agent.wire.pacer import FIRST, LEAST, MIN_FRAME, TARGET_S, Pacer, Turn


class Path:
    """A path of `rate` bytes a second and `round_trip_s`, with a queue as long as anything sent."""

    def __init__(self, rate: float, round_trip_s: float) -> None:
        self.pacer = Pacer()
        self.rate = rate
        self.round_trip_s = round_trip_s
        self.now = 100.0
        self.sent = 0
        self._free = 0.0
        self._answers: deque[float] = deque()

    @property
    def queue_s(self) -> float:
        """How long something urgent would wait now."""
        return max(0.0, self._free - self.now)

    def send(self, size: int) -> None:
        self._free = max(self._free, self.now) + size / self.rate
        self.sent += size
        self.pacer.sent(self.now, size)
        if self.pacer.mark_due:
            self.mark()

    def mark(self) -> None:
        self.pacer.marked(self.now)
        self._answers.append(max(self._free, self.now) + self.round_trip_s)

    def bulk(self, for_s: float) -> float:
        """Send as much as is allowed; the longest wait that was met after the first second."""
        end, start, longest = self.now + for_s, self.now, 0.0
        while self.now < end:
            while self.pacer.turn is Turn.BULK:
                self.send(self.pacer.frame + 56)
            if self.now > start + 1:
                longest = max(longest, self.queue_s)
            self.now = self._answers.popleft()
            self.pacer.answered(self.now)
        return longest


@pytest.mark.parametrize("rate", [8_000, 125_000, 10e6, 300e6])
@pytest.mark.parametrize("round_trip_s", [0.0005, 0.03, 0.3, 0.8])
def test_the_path_is_filled_and_its_queue_stays_short(rate: float, round_trip_s: float) -> None:
    path = Path(rate, round_trip_s)
    path.mark()
    path.bulk(4 + 30 * round_trip_s)
    began, before = path.now, path.sent
    longest = path.bulk(4)
    # Two frames are more than TARGET_S on the slowest path; nothing is more than half a second.
    assert longest < max(2 * TARGET_S, 2.6 * LEAST / rate)
    assert (path.sent - before) / (path.now - began) > 0.6 * rate


def test_before_anything_is_known_little_is_sent() -> None:
    path = Path(8_000, 0.05)
    while path.pacer.turn is Turn.BULK:
        path.send(path.pacer.frame)
    assert path.queue_s < 1
    assert path.pacer.frame == MIN_FRAME


def test_interactive_has_room_beside_bulk_and_control_always() -> None:
    pacer = Pacer()
    assert pacer.turn is Turn.BULK
    pacer.sent(0.0, FIRST)
    assert pacer.turn is Turn.INTERACTIVE
    pacer.sent(0.0, FIRST)
    assert pacer.turn is Turn.CONTROL


def test_frames_grow_with_the_path() -> None:
    path = Path(300e6, 0.001)
    path.bulk(0.5)
    assert path.pacer.frame == MAX_DATA


@pytest.mark.parametrize(
    ("before", "after"), [((10e6, 0.01), (8_000, 0.05)), ((1e6, 0.01), (1e6, 0.6))]
)
def test_a_path_that_changes_is_learnt_again(
    before: tuple[float, float], after: tuple[float, float]
) -> None:
    path = Path(*before)
    path.bulk(5)
    path.rate, path.round_trip_s = after
    while path.pacer.on_the_way:  # what the old path was given has to drain
        path.now = path._answers.popleft() if path._answers else path.now
        path.pacer.answered(path.now)
        if not path._answers:
            break
    path.bulk(30)
    began, sent = path.now, path.sent
    longest = path.bulk(10)
    assert longest < 0.7
    assert (path.sent - sent) / (path.now - began) > 0.4 * path.rate


def test_an_idle_path_says_nothing_of_its_rate() -> None:
    """A keystroke now and then must not make the path look slow."""
    path = Path(1e6, 0.02)
    path.bulk(3)
    allowed = path.pacer.allowed
    for _ in range(100):
        path.now += 0.5
        path.send(60)
        while path._answers:
            path.now = path._answers.popleft()
            path.pacer.answered(path.now)
    assert path.pacer.allowed > allowed / 4 or path.pacer.allowed >= LEAST
    assert path.pacer.turn is Turn.BULK


def test_an_answer_that_nobody_asked_for_changes_nothing() -> None:
    pacer = Pacer()
    pacer.answered(5.0)
    assert pacer.allowed == FIRST
