"""Two clocks. The boot clock measures life, idleness and back-off; the wall clock names moments.

Nobody may set the boot clock back, so whatever must end ends by it. The wall clock decides only
whether signed things are still valid, and it never falls below a floor that survives restarts: the
day this agent was built, or the newest signed date it has seen.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime

from agent import posix

BUILD_DATE_MS = int(datetime(2025, 11, 1, tzinfo=UTC).timestamp() * 1000)


class Clock:
    """Times of one agent. `boot` names the boot of the machine: 32 hex digits."""

    def __init__(
        self,
        *,
        boot: str | None = None,
        boot_seconds: Callable[[], float] = posix.boot_seconds,
        wall_seconds: Callable[[], float] = time.time,
    ) -> None:
        self.boot = boot or posix.boot_id()
        self._boot_seconds = boot_seconds
        self._wall_seconds = wall_seconds
        self._floor_ms = BUILD_DATE_MS
        self._keep_floor: Callable[[int], None] = lambda ms: None

    def now(self) -> float:
        """Seconds of the boot clock."""
        return self._boot_seconds()

    def uptime_ms(self) -> int:
        return int(self._boot_seconds() * 1000)

    def wall_ms(self) -> int:
        """Milliseconds since 1970-01-01T00:00:00Z, never below the floor."""
        return max(int(self._wall_seconds() * 1000), self._floor_ms)

    @property
    def floor_ms(self) -> int:
        return self._floor_ms

    def keep_floor(self, floor_ms: int, keep: Callable[[int], None]) -> None:
        """Start from the floor that was kept, and call `keep` with each higher one."""
        self._floor_ms = max(self._floor_ms, floor_ms)
        self._keep_floor = keep

    def raise_floor(self, signed_ms: int) -> None:
        """A date in something whose signature was checked: time is not before it."""
        if signed_ms > self._floor_ms:
            self._floor_ms = signed_ms
            self._keep_floor(signed_ms)
