"""Whether one credential is in use in two places. Pure: told what happens, it says when to alarm.

Two signs, since a thief need not run our agent:

* **Boots.** A machine never returns to an earlier boot. When a device's hellos name boot A, then B,
  then A again, two machines speak in its name. Certain, however long it takes.
* **Takeovers.** Two connections in one name throw each other out. Either their addresses take
  turns, A, B, A, B within a minute, or there are more takeovers in a minute than an agent makes on
  the worst line: one that loses its link finds out after fifteen seconds of silence or at the
  reset, and a reset closes the old connection before the new one comes.

Memory is bounded: so many devices, the longest silent forgotten first.
"""

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Generic, TypeVar

WINDOW_S = 60.0
MANY = 6  # takeovers within the window
DEVICES = 20_000
_BOOTS = 8  # of one device

T = TypeVar("T")


class _Recent(Generic[T]):
    """What is remembered of the devices heard most recently."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._items: OrderedDict[str, T] = OrderedDict()

    def of(self, device: str) -> T:
        item = self._items.pop(device, None)
        if item is None:
            item = self._make()
        self._items[device] = item
        if len(self._items) > DEVICES:
            self._items.popitem(last=False)
        return item

    def drop(self, device: str) -> None:
        self._items.pop(device, None)


class Boots:
    """For the thread that decides on hellos."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._boots: _Recent[deque[str]] = _Recent(lambda: deque(maxlen=_BOOTS))

    def heard(self, device: str, boot: str) -> bool:
        """A hello of this boot. True when the device was in another boot since it was in this."""
        with self._lock:
            boots = self._boots.of(device)
            if boots and boots[-1] == boot:
                return False
            if boot in boots:
                self._boots.drop(device)  # the alarm stands; begin anew
                return True
            boots.append(boot)
            return False


class _Line:
    """One device's connections of late."""

    def __init__(self) -> None:
        self.thrown_out = False  # the last one ended because a newer came
        self.arrivals: deque[tuple[float, str]] = deque(maxlen=MANY)


class Takeovers:
    """For the loop that hears of connections. `now` in seconds, monotonic."""

    def __init__(self) -> None:
        self._lines: _Recent[_Line] = _Recent(_Line)

    def ended(self, device: str, *, taken_over: bool) -> None:
        """A connection is over."""
        self._lines.of(device).thrown_out = taken_over

    def came(self, device: str, address: str, now: float) -> bool:
        """A connection is there. True when it is time for the alarm."""
        line = self._lines.of(device)
        if not line.thrown_out:
            return False
        line.thrown_out = False
        line.arrivals.append((now, address))
        recent = [each for at, each in line.arrivals if now - at <= WINDOW_S]
        if len(recent) >= MANY or _take_turns(recent[-4:]):
            self._lines.drop(device)
            return True
        return False


def _take_turns(addresses: list[str]) -> bool:
    if len(addresses) < 4:
        return False
    one, two, three, four = addresses
    return one == three != two == four
