"""What every line has beside its fluid path: supply, fan, computer, counters of days."""

from random import Random

from agent.drivers.alarms import Alarms
from agent.wire.catalogue import EventCode, Metric

_CALIBRATION_DAYS = 14.0
_LICENCE_DAYS = 30.0
_DISK_MB = 2_000.0
_DAY_S = 86_400.0


class Housekeeping:
    """`values` holds the newest readings, by metric."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._calibration = rng.uniform(2, 180)
        self._licence = rng.uniform(20, 360)
        self._service_hours = rng.uniform(800, 21_000)
        self._disk = rng.uniform(9_000, 40_000)
        self._memory = rng.uniform(900, 2_600)
        self._load = 0.15
        self._air = 0.02
        self.values: dict[Metric, float] = {}
        self._read()

    def step(self, dt: float, alarms: Alarms) -> None:
        """`dt` seconds pass."""
        self._calibration -= dt / _DAY_S
        self._licence = max(self._licence - dt / _DAY_S, 0.0)
        self._service_hours += dt / 3600
        self._disk = max(self._disk - dt * 0.001, 100.0)
        self._memory += self._rng.gauss(0, 0.4) + (1_500 - self._memory) * 1e-5
        self._load += self._rng.gauss(0, 0.01) - 0.05 * (self._load - 0.15)
        self._load = min(max(self._load, 0.01), 1.0)
        self._read()
        alarms.level(
            EventCode.CALIBRATION_DUE, self._calibration,
            low=_CALIBRATION_DAYS, back=_CALIBRATION_DAYS + 1,
        )  # fmt: skip
        alarms.level(
            EventCode.LICENCE_EXPIRING, self._licence, low=_LICENCE_DAYS, back=_LICENCE_DAYS + 1
        )
        alarms.level(EventCode.DISK_LOW, self._disk, low=_DISK_MB, back=_DISK_MB * 1.1)

    def _read(self) -> None:
        gauss = self._rng.gauss
        self.values = {
            Metric("air_signal"): max(0.0, self._air + gauss(0, 0.004)),
            Metric("air_selftest"): 1.0,
            Metric("supply_24v"): 24.05 + gauss(0, 0.02),
            Metric("fan_rpm"): 2_400 + 900 * self._load + gauss(0, 12),
            Metric("service_hours"): self._service_hours,
            Metric("calibration_due_days"): self._calibration,
            Metric("licence_days_left"): self._licence,
            Metric("cpu_load"): self._load,
            Metric("disk_free_mb"): self._disk,
            Metric("mem_free_mb"): max(self._memory, 100.0),
        }
