"""The bandwidth cap that a site may set: a token bucket. Pure; `now` in seconds, sizes in bytes.

Theory of operation. The bucket fills at the cap's rate and holds BURST_S of it. Everything that
leaves is taken out of it, and may take it below nothing. What must not wait (heartbeats, pings,
greetings, the control frames of streams) is never held, only counted; messages of the outbox and
interactive streams go while there is anything in it, bulk and live samples while more than a
quarter is. So over any time the cap holds, and what a person waits for goes before what nobody
does.
"""

from agent.wire.frames import MAX_DATA
from agent.wire.pacer import MIN_FRAME, Turn

BURST_S = 0.5
OVERHEAD = 100  # bytes around a message: topic, MQTT, TLS, a websocket; TCP and IP not counted
_ROUNDING_S = 1e-6
_RESERVE = 0.25  # of the bucket, for what bulk may not have


class Cap:
    """`rate` in bytes a second; None where there is no cap."""

    def __init__(self, rate: int | None = None, now: float = 0.0) -> None:
        self.rate = rate
        self._level = self._size
        self._at = now

    @property
    def _size(self) -> float:
        return (self.rate or 0) * BURST_S

    @property
    def frame(self) -> int:
        """Bytes of data that a frame of a stream may have."""
        if self.rate is None:
            return MAX_DATA
        return max(MIN_FRAME, min(MAX_DATA, int(self._size * _RESERVE)))

    def set(self, rate: int | None, now: float) -> None:
        """Go by another cap from now on; what was owed is forgotten."""
        self.rate, self._at = rate, now
        self._level = self._size

    def spent(self, now: float, size: int) -> None:
        """A message of this size leaves."""
        if self.rate is not None:
            self._fill(now)
            self._level -= size + OVERHEAD

    def turn(self, now: float) -> Turn:
        """Up to which class something may leave now."""
        if self.rate is None:
            return Turn.BULK
        self._fill(now)
        if self._level > self._size * _RESERVE:
            return Turn.BULK
        return Turn.INTERACTIVE if self._level > 0 else Turn.CONTROL

    def wait(self, now: float) -> float:
        """Seconds until the turn is bulk's, if nothing else leaves meanwhile; 0 when it is."""
        if self.rate is None or self.turn(now) is Turn.BULK:
            return 0.0
        return (self._size * _RESERVE - self._level) / self.rate + _ROUNDING_S

    def wait_for_any(self, now: float) -> float:
        """The same until anything but control may leave."""
        if self.rate is None or self.turn(now) is not Turn.CONTROL:
            return 0.0
        return -self._level / self.rate + _ROUNDING_S

    def _fill(self, now: float) -> None:
        passed, self._at = max(0.0, now - self._at), now
        self._level = min(self._size, self._level + passed * (self.rate or 0))
