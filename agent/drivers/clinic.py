"""The day at the injector: what its users do next, and how long they take.

    initialising → idle → filling → priming → ready → armed → injecting ⇄ hold → complete → idle

Pure: `step` is told how much time passed and what the drives did. Waiting times scale with the
pace; what fluid does (filling, priming, injecting) takes its own time.
"""

from dataclasses import dataclass
from random import Random

from agent.drivers.fluidics import Drive
from agent.wire.catalogue import ClinicalState as State

_FIRST_S = (240.0, 720.0)  # before the first injection after a start
_IDLE_S = (150.0, 400.0)
_READY_S = (15.0, 40.0)
_ARMED_S = (8.0, 20.0)
_HOLD_S = (3.0, 8.0)
_COMPLETE_S = (8.0, 15.0)
_INITIALISING_S = 3.0
_SEATING_S = 3.0  # filling takes at least this long
_PRIMING_S = 6.0
_PRIME_ML_S = 1.5
_SPARE_ML = 12.0  # loaded beyond what a procedure needs


@dataclass(frozen=True, slots=True)
class Shot:
    """One phase of an injection."""

    syringe: str
    flow_ml_s: float
    volume_ml: float


@dataclass(frozen=True, slots=True)
class Procedure:
    shots: tuple[Shot, ...]
    hold: bool = False  # whether the technologist may hold it between shots

    def volume(self, syringe: str) -> float:
        return sum(shot.volume_ml for shot in self.shots if shot.syringe == syringe)


class Clinic:
    """Moves the state and sets the drives' flow. `gauge` is the patient's line: 1 is usual."""

    def __init__(
        self, procedures: tuple[Procedure, ...], drives: dict[str, Drive], saline: str,
        pace: float, rng: Random,
    ) -> None:  # fmt: skip
        self.state = State.INITIALISING
        self.gauge = 1.0
        self.injections_total = rng.randrange(900, 24_000)
        self.injections_today = 0
        self.injections_aborted = rng.randrange(3, 60)
        self._procedures = procedures
        self._drives = drives
        self._saline = saline
        self._pace = pace
        self._rng = rng
        self._procedure = procedures[0]
        self._shot = 0
        self._left_ml = 0.0
        self._held = False  # armed until somebody says idle
        self._left_s = _INITIALISING_S
        self._started = False

    def step(self, dt: float) -> None:
        """`dt` seconds pass."""
        self._left_s -= dt
        if self.state is State.FILLING:
            self._fill(dt)
        elif self.state is State.INJECTING:
            self._inject(dt)
        elif self._left_s <= 0 and not (self._held and self.state is State.ARMED):
            self._next()

    # --- from outside ----------------------------------------------------------------------------

    def arm(self) -> None:
        """Loaded and armed at once, and it stays so until `rest`."""
        self._choose()
        for name, drive in self._drives.items():
            drive.volume_ml = max(drive.volume_ml, self._needed(name))
        self._held = True
        self._enter(State.ARMED, 0.0)

    def stop(self, state: State, for_s: float) -> None:
        """End whatever runs, in `fault` or `service`, for at most this long."""
        if self.state in (State.INJECTING, State.HOLD):
            self.injections_aborted += 1
        self._held = False
        self._enter(state, for_s)

    def rest(self) -> None:
        """Back to idle."""
        if self.state in (State.INJECTING, State.HOLD):
            self.injections_aborted += 1
        self._held = False
        self._idle()

    # --- the workflow ----------------------------------------------------------------------------

    def _next(self) -> None:
        if self.state is State.IDLE:
            self._choose()
            self._enter(State.FILLING, _SEATING_S)
        elif self.state is State.PRIMING:
            self._enter(State.READY, self._wait(_READY_S))
        elif self.state is State.READY:
            self._enter(State.ARMED, self._wait(_ARMED_S))
        elif self.state is State.ARMED:
            self._begin(0)
        elif self.state is State.HOLD:
            self._begin(self._shot)
        else:  # initialising, complete, and the end of fault and service
            self._idle()

    def _idle(self) -> None:
        self._enter(State.IDLE, self._wait(_IDLE_S if self._started else _FIRST_S))
        self._started = True

    def _choose(self) -> None:
        self._procedure = self._rng.choice(self._procedures)
        self.gauge = self._rng.choice((0.75, 0.9, 1.0, 1.0, 1.1, 1.35))

    def _needed(self, syringe: str) -> float:
        """Volume to load, mL. The saline also primes the line."""
        volume = self._procedure.volume(syringe)
        if syringe == self._saline:
            volume += _PRIMING_S * _PRIME_ML_S
        return min(volume + _SPARE_ML, self._drives[syringe].reservoir.capacity_ml)

    def _fill(self, dt: float) -> None:
        done = [drive.fill(dt, self._needed(name)) for name, drive in self._drives.items()]
        if all(done) and self._left_s <= 0:
            self._enter(State.PRIMING, _PRIMING_S)
            self._drives[self._saline].flow_set = _PRIME_ML_S

    def _begin(self, shot: int) -> None:
        self._shot = shot
        self._left_ml = self._procedure.shots[shot].volume_ml
        self._enter(State.INJECTING, 0.0)
        self._drives[self._procedure.shots[shot].syringe].flow_set = self._procedure.shots[
            shot
        ].flow_ml_s

    def _inject(self, dt: float) -> None:
        drive = self._drives[self._procedure.shots[self._shot].syringe]
        self._left_ml -= drive.flow * dt
        if self._left_ml > 0 and drive.volume_ml > 0:
            return
        if self._shot + 1 == len(self._procedure.shots):
            self.injections_total += 1
            self.injections_today += 1
            self._enter(State.COMPLETE, self._wait(_COMPLETE_S))
        elif self._procedure.hold and self._rng.random() < 0.3:
            self._shot += 1
            self._enter(State.HOLD, self._rng.uniform(*_HOLD_S))
        else:
            self._begin(self._shot + 1)

    def _enter(self, state: State, for_s: float) -> None:
        for drive in self._drives.values():
            drive.flow_set = 0.0
        self.state = state
        self._left_s = for_s

    def _wait(self, between: tuple[float, float]) -> float:
        return self._rng.uniform(*between) / self._pace
