"""A simulated injector: one clinic, its drives, and the special parts of its product line.

Time moves in steps of 0.1 s of the boot clock, so what happens depends on the seed and on the time
that passed, and not on how often the agent looks. Nothing here is real: a fault can be injected,
which no driver of a real injector allows.

When a fluid fault is injected at rest, the simulator runs a *line check*, a short pulse of flow, so
that the fault shows within seconds. In use it shows in the injection itself.
"""

from array import array
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import overload

from agent.drivers.alarms import Alarms
from agent.drivers.base import (
    Driver,
    DriverError,
    DriverEvent,
    DriverSettings,
    Fault,
    History,
    HistoryEvent,
    HistoryPoint,
    Service,
)
from agent.drivers.clinic import Clinic, Procedure
from agent.drivers.fluidics import AMBIENT_C, Drive, Reservoir
from agent.drivers.housekeeping import Housekeeping
from agent.drivers.parts import Heater, Part
from agent.i18n import _
from agent.wire.catalogue import ClinicalState as State
from agent.wire.catalogue import EventCode, Level, Metric, ProductLineCode

STEP_S = 0.1
_CATCH_UP_STEPS = 600  # after a longer gap (the machine slept) the rest of it is skipped
_FINE_S, _FINE_POINTS = 5.0, 240
_COARSE_S, _COARSE_POINTS = 30.0, 20_160  # a week
_EVENTS = 10_000
_FAULT_S = 600.0  # an injected fault is put right after this, if nobody does it sooner
_SERVICE_S = 1800.0
_CHECK_S = 6.0
_CHECK_ML_S = 3.0
_CHECK_ML = 20.0  # what a line check may use
_OCCLUDED = 40.0  # times the resistance
_OCCLUDING_S = 0.5
_STALLED_MM = 2.0
_SUSPICIOUS = 3.0  # times a patent line's resistance
_LIMITED_S = 0.6
_VOLUME_LOW_ML = 5.0

_LEVELS = {"console": Level.OS, "ssh": Level.OS, "web": Level.SERVICE}


@dataclass(frozen=True, slots=True)
class Model:
    """A product line as data. `resistance` is kPa per (mL/s · mPa·s) of its line and cannula."""

    product_line: ProductLineCode
    software_version: str
    reservoirs: tuple[Reservoir, ...]
    saline: str
    pressure_limit_kpa: float
    resistance: float
    procedures: tuple[Procedure, ...]
    parts: tuple[Callable[[Random], Part], ...]


class Simulator(Driver):
    """See agent.drivers.base.Driver for the methods."""

    def __init__(self, model: Model, settings: DriverSettings) -> None:
        self._model = model
        self._settings = settings
        # Seeded by the serial as well, so that a fleet made with one seed is not in step.
        rng = self._rng = Random(f"{settings.seed} {settings.serial}")  # noqa: S311 - not a secret
        self._drives = {r.syringe: Drive(r, rng) for r in model.reservoirs}
        self._parts = [make(rng) for make in model.parts]
        self._clinic = Clinic(model.procedures, self._drives, model.saline, settings.pace, rng)
        self._alarms = Alarms()
        self._house = Housekeeping(rng)
        self._services = {
            name: Service(_LEVELS.get(name, Level.OS), port)
            for name, port in settings.services.items()
        }
        self._occluded_s: float | None = None  # for how long; None: patent
        self._check_s = 0.0  # left of a line check
        self._limited_s = 0.0
        self._resting: State = State.INITIALISING
        self._start: float | None = None
        self._steps = 0
        self._metrics = tuple(self._measure())
        self._fine: deque[_Kept] = deque(maxlen=_FINE_POINTS)
        self._coarse: deque[_Kept] = deque(maxlen=_COARSE_POINTS)
        self._events: deque[HistoryEvent] = deque(maxlen=_EVENTS)

    @property
    def product_line(self) -> ProductLineCode:
        return self._model.product_line

    @property
    def software_version(self) -> str:
        return self._settings.software_version or self._model.software_version

    @property
    def state(self) -> State:
        return self._clinic.state

    def services(self) -> Mapping[str, Service]:
        return dict(self._services)

    def conditions(self) -> list[DriverEvent]:
        return self._alarms.raised()

    def values(self) -> dict[Metric, float]:
        return {metric: round(value, 4) for metric, value in self._measure().items()}

    # --- time ------------------------------------------------------------------------------------

    @property
    def _now_s(self) -> float:
        return (self._start or 0.0) + self._steps * STEP_S

    def advance(self, now_s: float) -> list[DriverEvent]:
        if self._start is None:
            self._start = now_s
        due = int((now_s - self._start) / STEP_S + 1e-6) - self._steps
        if due > _CATCH_UP_STEPS:
            self._start += (due - _CATCH_UP_STEPS) * STEP_S
            due = _CATCH_UP_STEPS
        events: list[DriverEvent] = []
        for _each in range(due):
            self._steps += 1
            self._step(STEP_S)
            made = self._alarms.take()
            self._events.extend(HistoryEvent(self._now_s, event) for event in made)
            events += made
            self._keep()
        return events

    def _step(self, dt: float) -> None:
        self._clinic.step(dt)
        self._check(dt)
        if self._occluded_s is not None:
            self._occluded_s += dt
        flowing = False
        for drive in self._drives.values():
            drive.step(
                dt,
                resistance=self._resistance(),
                patent=self._patent,
                temperature_c=self._temperature(drive.reservoir),
                limit_kpa=self._model.pressure_limit_kpa,
            )
            flowing = flowing or drive.flow > 0
        for part in self._parts:
            part.step(dt, self._alarms, flowing=flowing)
        self._house.step(dt, self._alarms)
        self._judge(dt)
        for drive in self._drives.values():
            drive.sense(self._rng)

    @property
    def _patent(self) -> float:
        return self._model.resistance * self._clinic.gauge

    def _resistance(self) -> float:
        if self._occluded_s is None:
            return self._patent
        part = min(self._occluded_s / _OCCLUDING_S, 1.0)
        return self._patent * (1 + (_OCCLUDED - 1) * part)

    def _temperature(self, reservoir: Reservoir) -> float:
        for part in self._parts:
            if isinstance(part, Heater) and reservoir.warmed:
                return part.temperature_c
        return AMBIENT_C

    def _check(self, dt: float) -> None:
        """The pulse of a line check, which ends by itself or by what it finds."""
        if self._check_s <= 0:
            return
        self._check_s -= dt
        if self.state not in (
            State.IDLE,
            State.SERVICE,
        ):  # the clinic goes on: its own flow will show it
            self._check_s = 0.0
            return
        first = next(iter(self._drives.values()))
        first.flow_set = _CHECK_ML_S if self._check_s > 0 else 0.0

    def _judge(self, dt: float) -> None:
        """Raise and clear what the drives show; stop the injection where it must stop."""
        if self.state is State.IDLE and self._resting in (State.FAULT, State.SERVICE):
            self._repair()  # somebody came and put it right
        limit = self._model.pressure_limit_kpa
        for name, drive in self._drives.items():
            over = drive.pressure > limit
            if over:
                self._alarms.set(EventCode.OVERPRESSURE, True, syringe=name, value=drive.pressure)
            if over or (drive.flow_set > 0 and drive.suspicion > _SUSPICIOUS):
                self._alarms.set(
                    EventCode.OCCLUSION_SUSPECTED, True, syringe=name, value=drive.pressure
                )
            stalled = drive.blocked and drive.following_mm > _STALLED_MM
            if stalled:
                self._alarms.set(EventCode.STALL, True, syringe=name, value=drive.following_mm)
            if (over or stalled) and self.state is not State.FAULT:
                self._fail()
            self._alarms.level(
                EventCode.VOLUME_LOW, drive.volume_ml,
                low=_VOLUME_LOW_ML, back=_VOLUME_LOW_ML + 1, syringe=name,
            )  # fmt: skip
        self._limited_s = (
            self._limited_s + dt if any(d.limited for d in self._drives.values()) else 0.0
        )
        self._alarms.set(
            EventCode.FLOW_LIMITED,
            self._limited_s > _LIMITED_S,
            value=sum(d.flow for d in self._drives.values()),
        )
        self._resting = self.state

    def _fail(self) -> None:
        self._check_s = 0.0
        self._clinic.stop(State.FAULT, _FAULT_S)

    def _repair(self) -> None:
        self._occluded_s = None
        for drive in self._drives.values():
            drive.blocked = False
            drive.following_mm = 0.0
        for part in self._parts:
            part.repair()
        for name in self._drives:
            for code in (EventCode.OVERPRESSURE, EventCode.STALL, EventCode.OCCLUSION_SUSPECTED):
                self._alarms.set(code, False, syringe=name)

    # --- what a person does ----------------------------------------------------------------------

    def declare_no_patient(self) -> None:
        if self.state is State.INJECTING:
            raise DriverError(_("The injector is injecting: stop the injection there first."))
        self._clinic.stop(State.SERVICE, _SERVICE_S)

    def simulate(self, fault: str) -> None:
        try:
            wanted = Fault(fault)
        except ValueError:
            raise DriverError(
                _("There is no fault {fault}. Choose one of: {faults}.").format(
                    fault=repr(fault), faults=", ".join(self.faults())
                )
            ) from None
        if wanted.value not in self.faults():
            raise DriverError(
                _("{line} has no such part as {fault} needs. Choose one of: {faults}.").format(
                    line=self.product_line, fault=wanted, faults=", ".join(self.faults())
                )
            )
        if wanted is Fault.IDLE:
            self._repair()
            self._clinic.rest()
            self._resting = self.state  # repaired already: a fault that comes now stays
            return
        if wanted is Fault.ARMED:
            self._arm()
            return
        for part in self._parts:
            if part.fault is wanted:
                part.break_down()
                return
        self._break_fluid(wanted)

    def faults(self) -> list[str]:
        """What can be injected on this line."""
        parts = [part.fault for part in self._parts if part.fault is not None]
        chosen = [Fault.OCCLUSION, Fault.STALL, *parts, Fault.ARMED, Fault.IDLE]
        return [fault.value for fault in chosen]

    def _arm(self) -> None:
        if self.state in (State.FAULT, State.SERVICE, State.INITIALISING):
            raise DriverError(
                _("The injector is in {state}, which cannot be armed: first simulate idle.").format(
                    state=self.state
                )
            )
        if not self.state.critical:
            self._clinic.arm()

    def _break_fluid(self, fault: Fault) -> None:
        if fault is Fault.OCCLUSION:
            self._occluded_s = 0.0
        else:
            for drive in self._drives.values():
                drive.blocked = True
        if not self.state.in_use and self.state is not State.FAULT:
            if self.state not in (State.IDLE, State.SERVICE):
                self._clinic.rest()
            first = next(iter(self._drives.values()))
            first.volume_ml = max(first.volume_ml, _CHECK_ML)
            self._check_s = _CHECK_S

    # --- readings --------------------------------------------------------------------------------

    def _measure(self) -> dict[Metric, float]:
        values = {
            Metric(f"{name}_{syringe}"): value
            for syringe, drive in self._drives.items()
            for name, value in drive.seen.items()
        }
        values[Metric("pressure_limit_kpa")] = self._model.pressure_limit_kpa
        values[Metric("injections_total")] = self._clinic.injections_total
        values[Metric("injections_today")] = self._clinic.injections_today
        values[Metric("injections_aborted")] = self._clinic.injections_aborted
        values |= self._house.values
        for part in self._parts:
            values |= part.values
        return values

    def _keep(self) -> None:
        fine = self._steps % round(_FINE_S / STEP_S) == 0
        if fine:
            kept = _Kept(self._now_s, self.state, array("d", self._measure().values()))
            self._fine.append(kept)
            if self._steps % round(_COARSE_S / STEP_S) == 0:
                self._coarse.append(kept)

    def history(self, hours: int) -> History:
        since = self._now_s - hours * 3600
        finest = self._fine[0].at_s if self._fine else self._now_s
        kept = [k for k in self._coarse if k.at_s < finest] + list(self._fine)
        return History(
            points=_Points([k for k in kept if k.at_s >= since], self._metrics),
            events=[e for e in self._events if e.at_s >= since],
        )


@dataclass(frozen=True, slots=True)
class _Kept:
    at_s: float
    state: State
    values: "array[float]"


class _Points(Sequence[HistoryPoint]):
    """A week is twenty thousand points: each is made when it is asked for, in any thread."""

    def __init__(self, kept: Sequence[_Kept], metrics: tuple[Metric, ...]) -> None:
        self._kept = kept
        self._metrics = metrics

    def __len__(self) -> int:
        return len(self._kept)

    @overload
    def __getitem__(self, index: int) -> HistoryPoint: ...
    @overload
    def __getitem__(self, index: slice) -> "_Points": ...
    def __getitem__(self, index: int | slice) -> "HistoryPoint | _Points":
        if isinstance(index, slice):
            return _Points(self._kept[index], self._metrics)
        kept = self._kept[index]
        values = {m: round(v, 4) for m, v in zip(self._metrics, kept.values, strict=True)}
        return HistoryPoint(kept.at_s, kept.state, values)
