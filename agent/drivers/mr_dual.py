"""MR, dual head: small syringes, a battery and an optical link to the control room, no heater."""

from random import Random

from agent.drivers.alarms import Alarms
from agent.drivers.base import Driver, DriverSettings, Fault
from agent.drivers.clinic import Procedure, Shot
from agent.drivers.fluidics import GADOLINIUM, SALINE, Reservoir
from agent.drivers.simulator import Model, Simulator
from agent.wire.catalogue import EventCode, Metric, ProductLineCode

_WEAK_DB = 3.0


class Battery:
    """Charged while the supply is there. Its fault is a supply that fails: the battery carries the
    injector and runs down within about two minutes, which is faster than a real one."""

    fault: Fault | None = Fault.BATTERY
    _DRAIN = 0.6  # % of charge a second
    _CHARGE = 0.05
    _FLOOR = 3.0
    _CRITICAL = 15.0

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._soc = rng.uniform(82, 99)
        self._cycles = rng.randrange(20, 600)
        self._on_battery = False
        self.values: dict[Metric, float] = {}
        self._read()

    def step(self, dt: float, alarms: Alarms, *, flowing: bool) -> None:
        if self._on_battery:
            self._soc = max(self._soc - self._DRAIN * dt * (1.5 if flowing else 1), self._FLOOR)
        else:
            self._soc = min(self._soc + self._CHARGE * dt, 100.0)
        self._read()
        alarms.set(EventCode.ON_BATTERY, self._on_battery, value=self._soc)
        critical = self._CRITICAL
        alarms.level(EventCode.BATTERY_CRITICAL, self._soc, low=critical, back=critical + 3)

    def _read(self) -> None:
        self.values = {
            Metric("battery_soc"): self._soc,
            Metric("battery_v"): 21.5 + 0.045 * self._soc + self._rng.gauss(0, 0.01),
            Metric("battery_cycles"): self._cycles,
        }
        if self._on_battery:  # in place of the mains' reading
            self.values[Metric("supply_24v")] = 0.0

    def break_down(self) -> None:
        if not self._on_battery:
            self._on_battery = True
            self._cycles += 1

    def repair(self) -> None:
        self._on_battery = False


class OpticalLink:
    """The margin wanders with the bends of the fibre."""

    fault: Fault | None = None

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._usual = rng.uniform(4.5, 9.0)
        self._margin = self._usual
        self.values: dict[Metric, float] = {Metric("optical_margin_db"): self._margin}

    def step(self, dt: float, alarms: Alarms, *, flowing: bool) -> None:
        self._margin += self._rng.gauss(0, 0.01) + 0.02 * dt * (self._usual - self._margin)
        self.values = {Metric("optical_margin_db"): max(self._margin, 0.0)}
        alarms.level(EventCode.OPTICAL_WEAK, self._margin, low=_WEAK_DB, back=_WEAK_DB + 0.5)

    def break_down(self) -> None:
        """It has no fault of its own to inject."""

    def repair(self) -> None:
        """It wears; it does not break."""


MODEL = Model(
    product_line=ProductLineCode.MR_DUAL,
    software_version="5.0.2",
    reservoirs=(
        Reservoir("a", capacity_ml=65, ml_per_mm=0.65, fluid=GADOLINIUM, warmed=False),
        Reservoir("b", capacity_ml=115, ml_per_mm=1.15, fluid=SALINE, warmed=False),
    ),
    saline="b",
    pressure_limit_kpa=1379,  # 200 psi
    resistance=26,
    procedures=(
        Procedure((Shot("a", 2.0, 15), Shot("b", 2.0, 25)), hold=True),
        Procedure((Shot("a", 3.0, 20), Shot("b", 3.0, 30))),
        Procedure((Shot("a", 1.0, 12), Shot("b", 1.0, 15))),
    ),
    parts=(Battery, OpticalLink),
)


def create(settings: DriverSettings) -> Driver:
    return Simulator(MODEL, settings)
