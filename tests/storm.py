"""Injectors in one process whose simulators live fast: `python -m tests.storm RATE STATE…`.

Each is a whole agent of its own on a state directory that is enrolled: outbox on disk, TLS, paho.
Its simulator is the product line's own, made to stall and be put right over and over, in a time
that runs as fast as RATE events a second of all injectors together ask for. SIGUSR1 ends the
storm and leaves the agents running; SIGTERM ends the process.
"""

import asyncio
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from agent import drivers, logs
from agent.drivers import Driver, DriverEvent, Fault, Service
from agent.drivers.base import History
from agent.main import parts
from agent.runtime import Agent
from agent.supervisor import supervise
from agent.wire.catalogue import ClinicalState, Metric, ProductLineCode

STEP_S = 1.0  # of the simulator's time, between looks at it
LEAST_STEPS = 3000  # give up when the simulator shows nothing for so long


class Hasty(Driver):
    """A simulator whose time is driven by the events that are wanted of it."""

    storming = True

    def __init__(self, inner: Driver, rate: float) -> None:
        self._inner = inner
        self._rate = rate  # events a second of the boot clock
        self._since: float | None = None
        self._made = 0
        self._time_s = 0.0
        self._stalled = False

    def advance(self, now_s: float) -> list[DriverEvent]:
        if self._since is None:
            self._since = now_s
        if not Hasty.storming:
            return []
        due = int((now_s - self._since) * self._rate) - self._made
        events: list[DriverEvent] = []
        for _ in range(LEAST_STEPS):
            if len(events) >= due:
                break
            self._time_s += STEP_S
            found = self._inner.advance(self._time_s)
            if found or self._stalled is False:
                self._stalled = not self._stalled
                self._inner.simulate(Fault.STALL if self._stalled else Fault.IDLE)
            events += found
        self._made += len(events)
        return events

    # --- as it is ------------------------------------------------------------------------------

    @property
    def product_line(self) -> ProductLineCode:
        return self._inner.product_line

    @property
    def software_version(self) -> str:
        return self._inner.software_version

    @property
    def state(self) -> ClinicalState:
        return self._inner.state

    def values(self) -> dict[Metric, float]:
        return self._inner.values()

    def conditions(self) -> list[DriverEvent]:
        return self._inner.conditions()

    def services(self) -> Mapping[str, Service]:
        return self._inner.services()

    def history(self, hours: int) -> History:
        return self._inner.history(hours)

    def declare_no_patient(self) -> None:
        self._inner.declare_no_patient()

    def faults(self) -> list[str]:
        return self._inner.faults()

    def simulate(self, fault: str) -> None:
        self._inner.simulate(fault)


def _calm() -> None:
    Hasty.storming = False


async def _run(rate: float, states: list[Path]) -> None:
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, _calm)

    def make(state: Path) -> Agent:
        return Agent(state, parts=parts(), driver=Hasty(drivers.load(state), rate / len(states)))

    await supervise(states, make)


if __name__ == "__main__":
    logs.set_up()
    asyncio.run(_run(float(sys.argv[1]), [Path(name) for name in sys.argv[2:]]))
