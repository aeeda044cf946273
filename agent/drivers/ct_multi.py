"""CT, many patients a day set: three reservoirs, valves, an inline heater."""

from random import Random

from agent.drivers.alarms import Alarms
from agent.drivers.base import Driver, DriverSettings, Fault
from agent.drivers.clinic import Procedure, Shot
from agent.drivers.fluidics import IODINE_370, SALINE, Reservoir
from agent.drivers.parts import Heater
from agent.drivers.simulator import Model, Simulator
from agent.wire.catalogue import EventCode, Metric, ProductLineCode

_DAYSET_HOURS = 24.0
_EXPIRING_HOURS = 2.0


class DaySet:
    """A day set serves 24 hours, then it is changed; its valves turn with each change of flow."""

    fault: Fault | None = None

    def __init__(self, rng: Random) -> None:
        self._left_h = rng.uniform(1.5, _DAYSET_HOURS)
        self._cycles = rng.randrange(4_000, 90_000)
        self._flowing = False
        self.values: dict[Metric, float] = {}
        self._read()

    def step(self, dt: float, alarms: Alarms, *, flowing: bool) -> None:
        self._left_h -= dt / 3600
        if self._left_h <= 0 and not flowing:
            self._left_h = _DAYSET_HOURS
        if flowing != self._flowing:
            self._cycles += 1
        self._flowing = flowing
        self._read()
        alarms.level(
            EventCode.DAYSET_EXPIRING, self._left_h,
            low=_EXPIRING_HOURS, back=_EXPIRING_HOURS + 1,
        )  # fmt: skip

    def _read(self) -> None:
        self.values = {
            Metric("dayset_hours_left"): max(self._left_h, 0.0),
            Metric("valve_cycles"): self._cycles,
        }

    def break_down(self) -> None:
        """It has no fault of its own to inject."""

    def repair(self) -> None:
        """It wears; it does not break."""


MODEL = Model(
    product_line=ProductLineCode.CT_MULTI,
    software_version="2.1.4",
    reservoirs=(
        Reservoir("a", capacity_ml=200, ml_per_mm=1.7, fluid=IODINE_370, warmed=True),
        Reservoir("b", capacity_ml=200, ml_per_mm=1.7, fluid=IODINE_370, warmed=True),
        Reservoir("c", capacity_ml=200, ml_per_mm=1.7, fluid=SALINE, warmed=False),
    ),
    saline="c",
    pressure_limit_kpa=2068,  # 300 psi
    resistance=23,
    procedures=(
        Procedure((Shot("a", 4.0, 75), Shot("c", 4.0, 40)), hold=True),
        Procedure((Shot("b", 3.5, 90), Shot("c", 3.5, 30))),
        Procedure((Shot("c", 5.0, 15), Shot("a", 5.5, 65), Shot("c", 5.5, 40)), hold=True),
    ),
    parts=(Heater, DaySet),
)


def create(settings: DriverSettings) -> Driver:
    return Simulator(MODEL, settings)
