"""How much of the streams may be on its way at once, so that nothing urgent waits long behind it.

Theory of operation. Whatever was handed to a network cannot be overtaken any more: it lies in the
kernel, in a proxy, in a modem. So an end hands over no more than the path takes in TARGET_S beyond
its round trip, and keeps the rest where the order of turns is still its own:

    allowed = goodput · (round trip + TARGET_S)

Both are measured from end to end by marks: after some bytes the owner sends something that the far
end answers in order (PINGREQ, a websocket's ping), and says here when the answer came. Goodput is
the best of what was delivered between marks in the last seconds; the round trip is the shortest
seen. Where less was allowed than the path takes, goodput comes out as allowed / round trip, so that
the next allowance is larger by a factor of 1 + TARGET_S / round trip: it grows by itself, and stops
growing where the path is full and what waits in it is TARGET_S long. At the least allowed, a round
trip that is still long is the path's own: it has become longer. An answer that took less time than
its bytes took to be sent says how much there was to send, and not what the path takes: then what is
allowed only goes back towards FIRST.

Frames are cut so that four of them are on the way. Interactive streams may have twice what bulk
may: so there is always room for them beside it. Control is not held back.
"""

import math
from collections import deque
from dataclasses import dataclass
from enum import IntEnum

from agent.wire.frames import MAX_DATA

TARGET_S = 0.2
FIRST = 4 * 1024  # bytes allowed before anything is measured
LEAST = 2 * 1024
MIN_FRAME = 1024
MARKS = 4  # in what is allowed
LONGER_S = 0.45  # more than LEAST and a frame take at 64 kbit/s
_REMEMBERED_S = 2.0


class Turn(IntEnum):
    """Up to which class frames may leave now."""

    CONTROL = 0
    INTERACTIVE = 1
    BULK = 2


@dataclass(slots=True)
class _Mark:
    at: float
    sent: int  # bytes sent before it
    delivered: int  # bytes known to be delivered when it left
    delivered_at: float


class Pacer:
    """Of one connection. `now` in seconds of a clock that never goes back; sizes in bytes."""

    def __init__(self) -> None:
        self.allowed = float(FIRST)
        self.round_trip = math.inf  # s, the shortest seen
        self._sent = 0
        self._delivered = 0
        self._delivered_at = 0.0
        self._marked = 0
        self._marks: deque[_Mark] = deque()
        self._rates: deque[tuple[float, float]] = deque()  # time, bytes a second

    @property
    def on_the_way(self) -> int:
        return self._sent - self._delivered

    @property
    def turn(self) -> Turn:
        if self.on_the_way < self.allowed:
            return Turn.BULK
        return Turn.INTERACTIVE if self.on_the_way < 2 * self.allowed else Turn.CONTROL

    @property
    def frame(self) -> int:
        """Bytes of data that a frame may have."""
        return max(MIN_FRAME, min(MAX_DATA, int(self.allowed / MARKS)))

    @property
    def mark_due(self) -> bool:
        """So much was sent that a mark should follow."""
        return self._sent - self._marked >= self.allowed / MARKS

    def sent(self, now: float, size: int) -> None:
        if not self.on_the_way:  # the path was idle: its rate counts from here
            self._delivered_at = now
        self._sent += size

    def marked(self, now: float) -> None:
        """A mark was sent."""
        self._marked = self._sent
        self._marks.append(_Mark(now, self._sent, self._delivered, self._delivered_at))

    def answered(self, now: float) -> None:
        """The oldest mark was answered."""
        if not self._marks:
            return
        mark = self._marks.popleft()
        self._delivered, self._delivered_at = mark.sent, now
        took = max(now - mark.at, 1e-6)
        if took < self.round_trip or (self.allowed <= LEAST and took > self.round_trip + LONGER_S):
            self.round_trip = took
        if mark.sent == mark.delivered:
            return
        if mark.at - mark.delivered_at > took:
            # There was not always something to send, so it says little. What nothing has shown for
            # a while may not hold any more, either.
            self.allowed = max(min(self.allowed, FIRST), self.allowed / 2)
            return
        rate = (mark.sent - mark.delivered) / max(now - mark.delivered_at, 1e-6)
        self._rates.append((now, rate))
        kept_s = max(_REMEMBERED_S, 4 * took)
        while self._rates[0][0] < now - kept_s:
            self._rates.popleft()
        best = max(rate for _at, rate in self._rates)
        self.allowed = max(LEAST, best * (self.round_trip + self._reach(took)))

    def _reach(self, took: float) -> float:
        """Seconds of goodput beyond the round trip: more over a long path where nothing waits, or
        it would take minutes to fill it."""
        if took > self.round_trip + TARGET_S / 4:
            return TARGET_S
        return min(max(TARGET_S, self.round_trip), 2 * TARGET_S)
