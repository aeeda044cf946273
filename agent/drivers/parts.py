"""Parts that some product lines have and others lack. A line names its parts; the simulator steps
them. A part raises its own events and knows its own fault.
"""

from random import Random
from typing import Protocol

from agent.drivers.alarms import Alarms
from agent.drivers.base import Fault
from agent.drivers.fluidics import AMBIENT_C
from agent.wire.catalogue import EventCode, Metric


class Part(Protocol):
    """`values` holds the newest readings, by metric."""

    fault: Fault | None  # the one that can be injected here
    values: dict[Metric, float]

    def step(self, dt: float, alarms: Alarms, *, flowing: bool) -> None: ...

    def break_down(self) -> None:
        """Inject this part's fault."""

    def repair(self) -> None: ...


class Heater:
    """A first-order lag under a proportional-integral controller, 37 °C ± 2."""

    fault: Fault | None = Fault.HEATER
    _GOAL_C = 37.0
    _LAG_S = 60.0
    _RISE_C = 30.0  # above ambient at full duty

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._temperature = self._GOAL_C + rng.uniform(-0.4, 0.4)
        self._integral = (self._GOAL_C - AMBIENT_C) / self._RISE_C
        self._broken = False
        self.values: dict[Metric, float] = {}
        self._read(self._integral)

    @property
    def temperature_c(self) -> float:
        return self._temperature

    def step(self, dt: float, alarms: Alarms, *, flowing: bool) -> None:
        error = self._GOAL_C - self._temperature
        if abs(error) < 2:  # no wind-up while it is far off
            self._integral = min(max(self._integral + 0.002 * error * dt, 0.0), 1.0)
        duty = min(max(self._integral + 0.25 * error, 0.0), 1.0)
        heat = 0.0 if self._broken else duty * self._RISE_C
        cold = 1.2 if flowing else 0.0  # fluid that was not in the warmer takes heat along
        self._temperature += (AMBIENT_C - cold + heat - self._temperature) * dt / self._LAG_S
        self._read(duty)
        alarms.level(EventCode.HEATER_OUT_OF_RANGE, self._temperature, low=35.0, back=35.5)

    def _read(self, duty: float) -> None:
        self.values = {
            Metric("heater_temp_c"): self._temperature + self._rng.gauss(0, 0.03),
            Metric("heater_duty"): duty,
        }

    def break_down(self) -> None:
        self._broken = True

    def repair(self) -> None:
        self._broken = False
