"""How often an address may try to enrol: a token bucket each, in memory, bounded in number."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable


class Buckets:
    """`burst` at once, then `per_s` a second, for each of the `most` newest names."""

    def __init__(
        self,
        *,
        burst: float,
        per_s: float,
        most: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._burst = burst
        self._per_s = per_s
        self._most = most
        self._clock = clock
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, name: str) -> bool:
        """Whether `name` may go on now."""
        now = self._clock()
        with self._lock:
            level, at = self._levels.pop(name, (self._burst, now))
            level = min(self._burst, level + (now - at) * self._per_s)
            granted = level >= 1
            self._levels[name] = (level - 1 if granted else level, now)
            if len(self._levels) > self._most:
                self._levels.popitem(last=False)
        return granted

    def clear(self) -> None:
        with self._lock:
            self._levels.clear()


# A hospital's injectors share one address; a factory line enrols a batch at once.
enrolments = Buckets(burst=200, per_s=5)
# Wrong claims cost more: 256 bits cannot be guessed, but nobody should be able to try at speed.
failures = Buckets(burst=20, per_s=0.2)
