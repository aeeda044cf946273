"""Which charts and readings a device has: whatever its newest sample carries decides.

Pure. A product line of tomorrow needs no change here as long as its metrics are in the catalogue.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from django.utils.translation import gettext_lazy as _

from agent.wire.catalogue import SYRINGES
from fleet.telemetry.labels import METRICS, MetricLabel, split_metric

# (metric, usual lowest, usual highest): the axis shows at least this much, in the metric's unit.
CHARTS: tuple[tuple[str, float, float], ...] = (
    ("pressure_kpa", 0, 400),
    ("flow_actual_ml_s", 0, 5),
    ("motor_current_a", 0, 2.5),
    ("drive_temp_c", 20, 45),
    ("heater_temp_c", 30, 40),
    ("battery_soc", 0, 100),
    ("optical_margin_db", 0, 12),
)
# Shown as one more line in the chart of another metric.
LIMITS = {"pressure_kpa": "pressure_limit_kpa"}
TOGETHER = {"heater_temp_c": "drive_temp_c"}  # the same unit, one chart

# Before the first sample: what every product line has.
DEFAULT_METRICS = tuple(
    f"{base}_{syringe}"
    for base in ("pressure_kpa", "flow_actual_ml_s", "motor_current_a", "drive_temp_c")
    for syringe in "ab"
)


@dataclass(frozen=True, slots=True)
class Series:
    metric: str
    label: str
    limit: bool = False


@dataclass(frozen=True, slots=True)
class Chart:
    """One pair of axes. All its series have the same unit."""

    metric: str
    label: MetricLabel
    floor: float
    ceiling: float
    series: tuple[Series, ...]


def charts(present: Iterable[str]) -> list[Chart]:
    """The charts for the metrics that a device reports."""
    known = set(present)
    found: list[Chart] = []
    for base, floor, ceiling in CHARTS:
        if base in TOGETHER and any(chart.metric == TOGETHER[base] for chart in found):
            continue
        series = _series(base, known)
        for other, home in TOGETHER.items():
            if home == base:
                series += [
                    Series(s.metric, str(METRICS[other].name)) for s in _series(other, known)
                ]
        if series:
            label = METRICS[base]
            if base in TOGETHER.values():
                label = replace(label, name=_("Temperature"))
            found.append(Chart(base, label, floor, ceiling, tuple(series)))
    return found


def _series(base: str, known: set[str]) -> list[Series]:
    name = str(METRICS[base].name)
    found = [
        Series(f"{base}_{syringe}", syringe.upper())
        for syringe in SYRINGES
        if f"{base}_{syringe}" in known
    ]
    if base in known:
        found.append(Series(base, name))
    limit = LIMITS.get(base)
    # The limit is drawn only beside what it limits.
    if found and limit in known:
        found.append(Series(str(limit), str(METRICS[str(limit)].name), limit=True))
    return found


@dataclass(frozen=True, slots=True)
class Reading:
    metric: str
    value: float
    label: MetricLabel


def readings(values: Mapping[str, float]) -> list[Reading]:
    """Everything a sample holds that is known, in the catalogue's order, syringes together."""
    order = {base: number for number, base in enumerate(METRICS)}
    known = [
        (order[base], syringe, metric)
        for metric in values
        for base, syringe in [split_metric(metric)]
        if base in order
    ]
    return [
        Reading(metric, values[metric], METRICS[split_metric(metric)[0]])
        for _order, _syringe, metric in sorted(known)
    ]


def as_json(series: Iterable[Series]) -> list[dict[str, Any]]:
    return [{"metric": s.metric, "label": s.label, "limit": s.limit} for s in series]
