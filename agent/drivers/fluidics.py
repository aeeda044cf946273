"""Fluids and syringe drives: the physics that shows in the charts. Pure; the caller owns the clock.

Pressure follows flow times viscosity, and viscosity falls as the fluid gets warmer. Figures of the
fluids are those of common products (mPa·s at 20 and 37 °C); resistances are plausible assumptions
for tubing and a cannula.

    pressure = resistance · viscosity(temperature) · flow  +  orifice · flow²

The drive backs its flow off so that the pressure stays under the limit. It knows the resistance
only by estimate, which lags: a slow change is met by less flow, a sudden one overshoots the limit
before the drive can react, and that is what stops an injection.
"""

import math
from dataclasses import dataclass
from random import Random

PRESSURE_CAP_KPA = 2100.0  # a mechanical relief: no reading is above it
AMBIENT_C = 22.0
_ORIFICE = 8.0  # kPa per (mL/s)²
_FLOW_LAG_S = 0.35
_PRESSURE_LAG_S = 0.15
_ESTIMATE_LAG_S = 0.8
_BACK_OFF = 0.93  # of the limit: where the drive starts to give way
_FOLLOWING_MM_S = 0.04  # following error per mm/s of speed
_FILL_ML_S = 10.0


@dataclass(frozen=True, slots=True)
class Fluid:
    """`viscosity_37` in mPa·s at 37 °C; `slope` is its exponential change per °C."""

    viscosity_37: float
    slope: float

    def viscosity(self, temperature_c: float) -> float:
        """In mPa·s."""
        return self.viscosity_37 * math.exp(-self.slope * (temperature_c - 37.0))


SALINE = Fluid(0.7, 0.021)
IODINE_370 = Fluid(9.4, 0.047)
GADOLINIUM = Fluid(5.0, 0.034)


@dataclass(frozen=True, slots=True)
class Reservoir:
    """A syringe or reservoir. Its plunger is at 0 mm when it is full."""

    syringe: str  # "a", "b" or "c"
    capacity_ml: float
    ml_per_mm: float
    fluid: Fluid
    warmed: bool  # by the heater, if the line has one


def _lag(dt: float, tau: float) -> float:
    return 1.0 - math.exp(-dt / tau)


class Drive:
    """One reservoir with its motor and its sensors. What ends in `_seen` is what sensors say."""

    def __init__(self, reservoir: Reservoir, rng: Random) -> None:
        self.reservoir = reservoir
        self.volume_ml = reservoir.capacity_ml * rng.uniform(0.2, 0.4)
        self.flow_set = 0.0
        self.flow = 0.0
        self.pressure = 0.0
        self.following_mm = 0.0
        self.blocked = False
        self.limited = False
        self.suspicion = 1.0  # estimated resistance, as a multiple of a patent line's
        self._estimate: float | None = None
        self._current = 0.2
        self._temperature = AMBIENT_C + rng.uniform(1, 3)
        self._offset = rng.uniform(-3, 3)
        self.seen: dict[str, float] = {}
        self.sense(rng)

    @property
    def position_mm(self) -> float:
        return (self.reservoir.capacity_ml - self.volume_ml) / self.reservoir.ml_per_mm

    def fill(self, dt: float, to_ml: float) -> bool:
        """Draw in fluid for `dt` seconds; True once `to_ml` is there."""
        goal = min(to_ml, self.reservoir.capacity_ml)
        if self.volume_ml < goal:
            self.volume_ml = min(self.volume_ml + _FILL_ML_S * dt, goal)
            self._current = 0.7
        return self.volume_ml >= goal

    def step(self, dt: float, *, resistance: float, patent: float, temperature_c: float,
             limit_kpa: float) -> None:  # fmt: skip
        """`dt` seconds. `resistance` is the line's now and `patent` that of an open one, both in
        kPa per (mL/s · mPa·s)."""
        viscosity = self.reservoir.fluid.viscosity(temperature_c)
        if self._estimate is None or self.flow_set == 0:
            self._estimate = patent
        self._estimate += (resistance - self._estimate) * _lag(dt, _ESTIMATE_LAG_S)
        self.suspicion = self._estimate / patent
        allowed = _flow_at(_BACK_OFF * limit_kpa, self._estimate * viscosity)
        demand = min(self.flow_set, allowed)
        self.limited = self.flow_set > 0 and demand < 0.95 * self.flow_set
        self._move(dt, demand)
        target = resistance * viscosity * self.flow + _ORIFICE * self.flow**2
        target = min(target, PRESSURE_CAP_KPA)
        self.pressure += (target - self.pressure) * _lag(dt, _PRESSURE_LAG_S)
        self._drive(dt)

    def _move(self, dt: float, demand: float) -> None:
        speed = demand / self.reservoir.ml_per_mm  # mm/s
        if self.blocked:
            self.flow = 0.0
            self.following_mm = min(self.following_mm + speed * dt, 12.0)
            return
        self.flow += (demand - self.flow) * _lag(dt, _FLOW_LAG_S)
        if self.flow < 0.005 or self.volume_ml <= 0:
            self.flow = 0.0
        self.volume_ml = max(0.0, self.volume_ml - self.flow * dt)
        goal = self.flow / self.reservoir.ml_per_mm * _FOLLOWING_MM_S
        self.following_mm += (goal - self.following_mm) * _lag(dt, 0.3)

    def _drive(self, dt: float) -> None:
        if self.blocked and self.flow_set > 0:
            goal = 6.0
        elif self.flow > 0:
            goal = 0.45 + 0.11 * self.flow + 0.0012 * self.pressure
        else:
            goal = 0.22
        self._current += (goal - self._current) * _lag(dt, 0.2)
        warm = AMBIENT_C + 2.0 + 5.0 * self._current
        self._temperature += (warm - self._temperature) * _lag(dt, 120.0)

    def sense(self, rng: Random) -> None:
        """New readings of every sensor, with their noise."""
        self._offset += rng.gauss(0, 0.02) - 0.002 * self._offset
        noise = 0.35 + 0.004 * self.pressure
        pressure = self.pressure + self._offset + rng.gauss(0, noise)
        flow = self.flow + rng.gauss(0, 0.012) if self.flow > 0 else 0.0
        self.seen = {
            "motor_current_a": _clip(self._current + rng.gauss(0, 0.008), 0.2, 6.0),
            "plunger_position_mm": self.position_mm,
            "plunger_following_error_mm": max(0.0, self.following_mm + rng.gauss(0, 0.002)),
            "flow_set_ml_s": self.flow_set,
            "flow_actual_ml_s": _clip(flow, 0.0, 10.0),
            "pressure_kpa": _clip(pressure, 0.0, PRESSURE_CAP_KPA),
            "volume_remaining_ml": self.volume_ml,
            "pressure_zero_offset_kpa": self._offset,
            "drive_temp_c": self._temperature + rng.gauss(0, 0.03),
        }


def _flow_at(pressure_kpa: float, slope: float) -> float:
    """The flow (mL/s) at which a line of this slope (kPa per mL/s) is at this pressure."""
    return (math.sqrt(slope**2 + 4 * _ORIFICE * pressure_kpa) - slope) / (2 * _ORIFICE)


def _clip(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)
