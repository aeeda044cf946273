"""Whether the agents of this process move on, told to the service manager (R-MNT-6).

Theory. A service manager (systemd, `Type=notify`) restarts a process that has not said `WATCHDOG=1`
for a while. It is said only while everything that must move does: the event loop, as it is what
says so; each agent's ticks; the thread that writes its store; its outbox, which may wait for the
portal but not for itself. So a loop, a disk or a lock that hangs for good ends in a restart, and a
slow portal, a missing network or a full disk does not.

A process that grows beyond its bound of memory is told here too, and ends itself in good order; the
unit's own bound is the kernel's and comes without warning.
"""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass

from agent import posix
from agent.errors import AgentError
from agent.i18n import _

log = logging.getLogger(__name__)

CHECK_S = 5.0  # where no service manager says how often
MEMORY_MB = 256
MEMORY_MB_EACH = 64  # for each further agent of the process


class Leaking(AgentError):
    """The process grew beyond its bound of memory and must start anew."""

    code = "leaking"


class Pulse:
    """Parts that must show a sign of life, each within its seconds. Pure; `now` is any clock's."""

    def __init__(self, limits: Mapping[str, float]) -> None:
        self._limits = dict(limits)
        self._beats: dict[str, float] = {}

    def beat(self, part: str, now: float) -> None:
        """The part has moved on. From any thread."""
        self._beats[part] = now

    def still(self, now: float) -> list[str]:
        """The parts that have begun and stand still."""
        limits = self._limits
        return [part for part, at in self._beats.items() if now - at > limits[part]]


@dataclass(frozen=True, slots=True)
class Manager:
    """The service manager that started this process, if one did: `address` is empty without one."""

    address: str = ""
    every_s: float = CHECK_S

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> "Manager":
        """From NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID (sd_notify(3))."""
        address = environ.get("NOTIFY_SOCKET", "")
        period = environ.get("WATCHDOG_USEC", "")
        ours = environ.get("WATCHDOG_PID", "") in ("", str(os.getpid()))
        if not (address and ours and period.isdecimal() and int(period)):
            return cls(address)
        return cls(address, int(period) / 1e6 / 4)

    def tell(self, *lines: str) -> None:
        """Send `READY=1` and the like. A manager that is gone is no reason to fail."""
        if not self.address:
            return
        try:
            posix.notify(self.address, "\n".join(lines))
        except OSError as error:
            log.warning("the service manager cannot be told: %s", error)


def memory_bound(agents: int, environ: Mapping[str, str]) -> int:
    """Bytes that the process may hold: PATENCY_MEMORY_MB, or by the number of its agents."""
    text = environ.get("PATENCY_MEMORY_MB", "")
    if text.isdecimal() and int(text):
        return int(text) * 1024 * 1024
    return (MEMORY_MB + MEMORY_MB_EACH * (agents - 1)) * 1024 * 1024


def check_memory(bound: int) -> None:
    """Raises Leaking."""
    held = posix.resident_bytes()
    if held > bound:
        raise Leaking(
            _("The agent holds {held} MB of memory, more than {bound} MB; it starts anew.").format(
                held=held // 1024 // 1024, bound=bound // 1024 // 1024
            )
        )
