"""Codes in the reader's words: every name is translated when it is shown, every number has a unit.

Words of access and of jobs are in access.labels and jobs.labels, beside what they name.
"""

from dataclasses import dataclass

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from agent.wire.catalogue import (
    SYRINGES,
    ClinicalState,
    EventCode,
    EventPriority,
)

Text = str | Promise

CLINICAL_STATES: dict[str, Text] = {
    ClinicalState.INITIALISING: _("Initialising"),
    ClinicalState.IDLE: _("Idle"),
    ClinicalState.FILLING: _("Filling"),
    ClinicalState.PRIMING: _("Priming"),
    ClinicalState.READY: _("Ready"),
    ClinicalState.ARMED: _("Armed"),
    ClinicalState.INJECTING: _("Injecting"),
    ClinicalState.HOLD: _("On hold"),
    ClinicalState.COMPLETE: _("Complete"),
    ClinicalState.SERVICE: _("In service"),
    ClinicalState.FAULT: _("Fault"),
}

EVENTS: dict[int, Text] = {
    EventCode.AIR_DETECTED: _("Air detected"),
    EventCode.OVERPRESSURE: _("Overpressure"),
    EventCode.OCCLUSION_SUSPECTED: _("Occlusion suspected"),
    EventCode.FLOW_LIMITED: _("Flow limited"),
    EventCode.VOLUME_LOW: _("Volume low"),
    EventCode.LEAK_SUSPECTED: _("Leak suspected"),
    EventCode.STALL: _("Drive stalled"),
    EventCode.OVERCURRENT: _("Motor overcurrent"),
    EventCode.POSITION_MISMATCH: _("Plunger position mismatch"),
    EventCode.HOME_LOST: _("Home position lost"),
    EventCode.DRIVE_HOT: _("Drive hot"),
    EventCode.PRESSURE_DRIFT: _("Pressure sensor drift"),
    EventCode.SENSORS_DISAGREE: _("Redundant sensors disagree"),
    EventCode.AIR_SELFTEST_FAILED: _("Air sensor self-test failed"),
    EventCode.HEATER_OUT_OF_RANGE: _("Heater out of range"),
    EventCode.NOT_SEATED: _("Syringe or set not seated"),
    EventCode.DAYSET_EXPIRING: _("Day set expiring"),
    EventCode.DAYSET_EXPIRED: _("Day set expired"),
    EventCode.VALVE_FAULT: _("Valve fault"),
    EventCode.ON_BATTERY: _("On battery"),
    EventCode.BATTERY_CRITICAL: _("Battery critical"),
    EventCode.HEAD_LINK_LOST: _("Link between console and head lost"),
    EventCode.SCANNER_LOST: _("Scanner interface lost"),
    EventCode.OPTICAL_WEAK: _("Optical link weak"),
    EventCode.CALIBRATION_DUE: _("Calibration due"),
    EventCode.WATCHDOG_RESTART: _("Restarted by the watchdog"),
    EventCode.DISK_LOW: _("Disk space low"),
    EventCode.UPDATE_FAILED: _("Update failed or rolled back"),
    EventCode.CERTIFICATE_EXPIRING: _("Certificate expiring"),
    EventCode.SIGN_IN_FAILURES: _("Local sign-in failures"),
    EventCode.LICENCE_EXPIRING: _("Licence expiring"),
}

PRIORITIES: dict[str, Text] = {
    EventPriority.HIGH: pgettext_lazy("priority", "High"),
    EventPriority.MEDIUM: pgettext_lazy("priority", "Medium"),
    EventPriority.LOW: pgettext_lazy("priority", "Low"),
    EventPriority.INFO: pgettext_lazy("priority", "Information"),
}


@dataclass(frozen=True, slots=True)
class MetricLabel:
    """How a metric is shown. `unit` may be empty for a plain count; `digits` after the point."""

    name: Text
    unit: Text
    digits: int
    scale: float = 1.0  # what the wire's value is multiplied by


_DAYS = pgettext_lazy("unit", "days")
_HOURS = pgettext_lazy("unit", "h")
METRICS: dict[str, MetricLabel] = {
    "pressure_kpa": MetricLabel(_("Pressure"), "kPa", 0),
    "pressure_limit_kpa": MetricLabel(_("Pressure limit"), "kPa", 0),
    "pressure_zero_offset_kpa": MetricLabel(_("Pressure zero offset"), "kPa", 1),
    "flow_set_ml_s": MetricLabel(_("Flow set"), "mL/s", 1),
    "flow_actual_ml_s": MetricLabel(_("Flow"), "mL/s", 1),
    "volume_remaining_ml": MetricLabel(_("Volume remaining"), "mL", 0),
    "motor_current_a": MetricLabel(_("Motor current"), "A", 2),
    "plunger_position_mm": MetricLabel(_("Plunger position"), "mm", 1),
    "plunger_following_error_mm": MetricLabel(_("Plunger following error"), "mm", 2),
    "drive_temp_c": MetricLabel(_("Drive temperature"), "°C", 1),
    "heater_temp_c": MetricLabel(_("Heater temperature"), "°C", 1),
    "heater_duty": MetricLabel(_("Heater duty"), "%", 0, 100.0),
    "air_signal": MetricLabel(_("Air sensor signal"), "", 2),
    "air_selftest": MetricLabel(_("Air sensor self-test"), "", 0),
    "valve_cycles": MetricLabel(_("Valve cycles"), "", 0),
    "dayset_hours_left": MetricLabel(_("Day set remaining"), _HOURS, 1),
    "battery_soc": MetricLabel(_("Battery charge"), "%", 0),
    "battery_v": MetricLabel(_("Battery voltage"), "V", 2),
    "battery_cycles": MetricLabel(_("Battery cycles"), "", 0),
    "optical_margin_db": MetricLabel(_("Optical link margin"), "dB", 1),
    "supply_24v": MetricLabel(_("24 V supply"), "V", 2),
    "fan_rpm": MetricLabel(_("Fan speed"), pgettext_lazy("unit", "rpm"), 0),
    "injections_total": MetricLabel(_("Injections, total"), "", 0),
    "injections_today": MetricLabel(_("Injections, today"), "", 0),
    "injections_aborted": MetricLabel(_("Injections aborted"), "", 0),
    "service_hours": MetricLabel(_("Service hours"), _HOURS, 0),
    "calibration_due_days": MetricLabel(_("Calibration due in"), _DAYS, 0),
    "cpu_load": MetricLabel(_("Processor load"), "%", 0, 100.0),
    "disk_free_mb": MetricLabel(_("Disk free"), pgettext_lazy("unit", "MB"), 0),
    "mem_free_mb": MetricLabel(_("Memory free"), pgettext_lazy("unit", "MB"), 0),
    "rtt_ms": MetricLabel(_("Round trip"), "ms", 0),
    "cert_days_left": MetricLabel(_("Certificate valid for"), _DAYS, 0),
    "licence_days_left": MetricLabel(_("Licence valid for"), _DAYS, 0),
    "clock_skew_ms": MetricLabel(_("Clock difference"), "ms", 0),
}


def split_metric(metric: str) -> tuple[str, str]:
    """(`pressure_kpa`, `a`) of `pressure_kpa_a`; the syringe is empty where there is none."""
    base, _underscore, last = metric.rpartition("_")
    if last in SYRINGES and base in METRICS:
        return base, last
    return metric, ""


# What an event's `value` measures. Events that are not here carry none that would mean anything.
EVENT_METRIC: dict[int, str] = {
    EventCode.OVERPRESSURE: "pressure_kpa",
    EventCode.OCCLUSION_SUSPECTED: "pressure_kpa",
    EventCode.FLOW_LIMITED: "flow_actual_ml_s",
    EventCode.VOLUME_LOW: "volume_remaining_ml",
    EventCode.STALL: "plunger_following_error_mm",
    EventCode.OVERCURRENT: "motor_current_a",
    EventCode.POSITION_MISMATCH: "plunger_following_error_mm",
    EventCode.DRIVE_HOT: "drive_temp_c",
    EventCode.PRESSURE_DRIFT: "pressure_zero_offset_kpa",
    EventCode.HEATER_OUT_OF_RANGE: "heater_temp_c",
    EventCode.DAYSET_EXPIRING: "dayset_hours_left",
    EventCode.ON_BATTERY: "battery_soc",
    EventCode.BATTERY_CRITICAL: "battery_soc",
    EventCode.OPTICAL_WEAK: "optical_margin_db",
    EventCode.CALIBRATION_DUE: "calibration_due_days",
    EventCode.DISK_LOW: "disk_free_mb",
    EventCode.CERTIFICATE_EXPIRING: "cert_days_left",
    EventCode.LICENCE_EXPIRING: "licence_days_left",
}
