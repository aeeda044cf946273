"""What the agent needs of a driver: the one door between Patency and an injector.

A driver observes (CiA 425 message classes 0 and 2) and never commands: there is no way here to arm,
start or program an injection. A product line is one module beside this one, named after its code
(`ct-multi` is `ct_multi.py`) with a function `create(settings) -> Driver`; a fourth line needs no
change anywhere else (R-CON-1).

Drivers are called from the agent's loop and must return at once: a driver of real hardware keeps
its own thread and answers from its newest reading.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from agent.wire.catalogue import (
    EVENT_PRIORITY,
    ClinicalState,
    EventCode,
    EventPhase,
    EventPriority,
    Level,
    Metric,
    ProductLineCode,
)


class DriverError(Exception):
    """What was asked cannot be done; the text says why and what to do instead."""


class Fault(StrEnum):
    """What can be asked of a simulator. `idle` clears every fault and ends service and armed."""

    OCCLUSION = "occlusion"
    STALL = "stall"
    HEATER = "heater"
    BATTERY = "battery"
    ARMED = "armed"
    IDLE = "idle"


@dataclass(frozen=True, slots=True)
class Service:
    """A loopback port that a session may reach, and the level it needs (R-ACC-6)."""

    level: Level
    port: int


@dataclass(frozen=True, slots=True)
class DriverEvent:
    """A coded fact, raised or cleared. `value` is in the unit of the metric it is about."""

    code: EventCode
    phase: EventPhase
    syringe: str | None = None  # "a", "b" or "c"
    value: float | None = None

    @property
    def priority(self) -> EventPriority:
        return EVENT_PRIORITY[self.code]


@dataclass(frozen=True, slots=True)
class HistoryPoint:
    """The injector at one time of the boot clock, in seconds."""

    at_s: float
    state: ClinicalState
    values: Mapping[Metric, float]


@dataclass(frozen=True, slots=True)
class HistoryEvent:
    at_s: float
    event: DriverEvent


@dataclass(frozen=True, slots=True)
class History:
    """Coded diagnostics, oldest first; bounded by what the driver keeps."""

    points: Sequence[HistoryPoint]
    events: Sequence[HistoryEvent]


@dataclass(frozen=True, slots=True)
class DriverSettings:
    """`driver.json` of a state directory, checked."""

    product_line: ProductLineCode
    serial: str
    services: Mapping[str, int]  # loopback port by service name
    seed: int = 0
    pace: float = 1.0  # how many times faster than the demo's own pace the clinic works
    software_version: str | None = None  # None: the product line's own
    state_dir: Path | None = field(default=None)


class Driver(Protocol):
    """One injector. Clock arguments are seconds of the boot clock (R-CON-1, R-MNT-5)."""

    @property
    def product_line(self) -> ProductLineCode: ...

    @property
    def software_version(self) -> str:
        """`1.2.3`."""

    @property
    def state(self) -> ClinicalState:
        """The clinical state as of the last `advance`."""

    def advance(self, now_s: float) -> list[DriverEvent]:
        """Bring the driver to `now_s`; returns what was raised or cleared on the way."""

    def values(self) -> dict[Metric, float]:
        """Every metric that this product line has, and no other; finite, in the metric's unit.

        `rtt_ms`, `cert_days_left` and `clock_skew_ms` are the agent's own and not among them.
        """

    def conditions(self) -> list[DriverEvent]:
        """What is wrong now: every event raised and not yet cleared, oldest first."""

    def services(self) -> Mapping[str, Service]: ...

    def history(self, hours: int) -> History:
        """What the driver kept of the last `hours`, up to the last `advance`."""

    def declare_no_patient(self) -> None:
        """A technologist declares at the panel that no patient is connected: state `service`.

        Raises DriverError while the injector is injecting.
        """

    def faults(self) -> list[str]:
        """What `simulate` takes here; empty when this is no simulator."""

    def simulate(self, fault: str) -> None:
        """Inject a `Fault`. Raises DriverError when there is no such part, or no simulator."""
