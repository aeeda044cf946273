"""Codes of the field: clinical states, metrics, events, levels, reasons.

Source: the domain description of the project; CiA 425 classes 0 (monitor) and 2 (summary) are the
model of what may be observed. Nothing here can arm, start or program an injection.
"""

from enum import IntEnum, StrEnum


class ClinicalState(StrEnum):
    INITIALISING = "initialising"
    IDLE = "idle"
    FILLING = "filling"
    PRIMING = "priming"
    READY = "ready"
    ARMED = "armed"
    INJECTING = "injecting"
    HOLD = "hold"
    COMPLETE = "complete"
    SERVICE = "service"
    FAULT = "fault"

    @property
    def in_use(self) -> bool:
        """A patient may be connected: refuse or defer every session, job, restart and install."""
        return self in _IN_USE

    @property
    def critical(self) -> bool:
        """Between armed and complete: running bulk transfers drop to background as well."""
        return self in _CRITICAL


_CRITICAL = frozenset({ClinicalState.ARMED, ClinicalState.INJECTING, ClinicalState.HOLD})
_IN_USE = _CRITICAL | {ClinicalState.FILLING, ClinicalState.PRIMING, ClinicalState.READY}


class ProductLineCode(StrEnum):
    CT_MULTI = "ct-multi"
    CT_DUAL = "ct-dual"
    MR_DUAL = "mr-dual"


# A metric's name carries its unit; a metric of one syringe or reservoir ends in _a, _b or _c.
_PER_SYRINGE = (
    "motor_current_a",  # 0.2-6 A
    "plunger_position_mm",
    "plunger_following_error_mm",
    "flow_set_ml_s",  # 0.1-10 mL/s
    "flow_actual_ml_s",
    "pressure_kpa",  # 0-2100 kPa
    "volume_remaining_ml",
    "pressure_zero_offset_kpa",
    "drive_temp_c",
)
_SINGLE = (
    "pressure_limit_kpa",
    "heater_temp_c",  # 35-39 °C, CT only
    "heater_duty",
    "air_signal",
    "air_selftest",
    "valve_cycles",
    "dayset_hours_left",
    "battery_soc",
    "battery_v",
    "battery_cycles",
    "optical_margin_db",
    "supply_24v",
    "fan_rpm",
    "injections_total",
    "injections_today",
    "injections_aborted",
    "service_hours",
    "calibration_due_days",
    "cpu_load",
    "disk_free_mb",
    "mem_free_mb",
    "rtt_ms",
    "cert_days_left",
    "licence_days_left",
    "clock_skew_ms",
)
SYRINGES = ("a", "b", "c")

Metric = StrEnum(  # type: ignore[misc]
    "Metric",
    [(f"{name}_{s}".upper(), f"{name}_{s}") for name in _PER_SYRINGE for s in SYRINGES]
    + [(name.upper(), name) for name in _SINGLE],
)


class EventPriority(StrEnum):
    HIGH = "H"
    MEDIUM = "M"
    LOW = "L"
    INFO = "info"


class EventCode(IntEnum):
    AIR_DETECTED = 101
    OVERPRESSURE = 102
    OCCLUSION_SUSPECTED = 103
    FLOW_LIMITED = 104
    VOLUME_LOW = 105
    LEAK_SUSPECTED = 106
    STALL = 201
    OVERCURRENT = 202
    POSITION_MISMATCH = 203
    HOME_LOST = 204
    DRIVE_HOT = 205
    PRESSURE_DRIFT = 301
    SENSORS_DISAGREE = 302
    AIR_SELFTEST_FAILED = 303
    HEATER_OUT_OF_RANGE = 304
    NOT_SEATED = 305
    DAYSET_EXPIRING = 401
    DAYSET_EXPIRED = 402
    VALVE_FAULT = 403
    ON_BATTERY = 501
    BATTERY_CRITICAL = 502
    HEAD_LINK_LOST = 503
    SCANNER_LOST = 504
    OPTICAL_WEAK = 505
    CALIBRATION_DUE = 601
    WATCHDOG_RESTART = 602
    DISK_LOW = 603
    UPDATE_FAILED = 701
    CERTIFICATE_EXPIRING = 702
    SIGN_IN_FAILURES = 703
    LICENCE_EXPIRING = 704


_P = EventPriority
EVENT_PRIORITY: dict[EventCode, EventPriority] = {
    EventCode(code): priority
    for priority, codes in {
        _P.HIGH: (101, 102, 106, 201, 202, 203, 302, 303, 503),
        _P.MEDIUM: (103, 204, 205, 301, 402, 403, 502, 504, 602, 701, 703),
        _P.LOW: (104, 105, 304, 305, 401, 501, 505, 603, 702),
        _P.INFO: (601, 704),
    }.items()
    for code in codes
}


class EventPhase(StrEnum):
    RAISED = "raised"
    CLEARED = "cleared"


class Level(StrEnum):
    """What a session may do; each includes the one before."""

    DIAGNOSTICS = "diagnostics"
    SERVICE = "service"
    OS = "os"

    @property
    def rank(self) -> int:
        return list(Level).index(self)

    def covers(self, needed: "Level") -> bool:
        return self.rank >= needed.rank


class RequestReason(StrEnum):
    """Why a specialist asks for access."""

    INSPECTION = "inspection"
    REPAIR = "repair"
    CALIBRATION = "calibration"
    SOFTWARE = "software"
    TRAINING = "training"


class ClientKind(StrEnum):
    """What a specialist works with."""

    COMMAND_LINE = "command-line"
    BROWSER = "browser"


class SessionState(StrEnum):
    """Life of an access session; the legal transitions are SESSION_TRANSITIONS."""

    REQUESTED = "requested"  # committed in the portal; not yet accepted by the device
    ACCEPTED = "accepted"  # the device holds the request
    WAITING = "waiting"  # in use now; the device will ring when it ends
    CHALLENGED = "challenged"  # the device's challenge awaits the specialist's signature
    PRESENCE = "presence"  # signature good; a person at the injector must approve
    ACTIVE = "active"
    REFUSED = "refused"
    EXPIRED = "expired"
    ENDED = "ended"

    @property
    def over(self) -> bool:
        return self in (SessionState.REFUSED, SessionState.EXPIRED, SessionState.ENDED)


_S = SessionState
SESSION_TRANSITIONS: dict[SessionState, frozenset[SessionState]] = {
    _S.REQUESTED: frozenset(
        {_S.ACCEPTED, _S.WAITING, _S.CHALLENGED, _S.REFUSED, _S.EXPIRED, _S.ENDED}
    ),
    _S.ACCEPTED: frozenset({_S.WAITING, _S.CHALLENGED, _S.REFUSED, _S.EXPIRED, _S.ENDED}),
    _S.WAITING: frozenset({_S.CHALLENGED, _S.REFUSED, _S.EXPIRED, _S.ENDED}),
    _S.CHALLENGED: frozenset({_S.PRESENCE, _S.ACTIVE, _S.REFUSED, _S.EXPIRED, _S.ENDED}),
    _S.PRESENCE: frozenset({_S.ACTIVE, _S.REFUSED, _S.EXPIRED, _S.ENDED}),
    _S.ACTIVE: frozenset({_S.ENDED}),
    _S.REFUSED: frozenset(),
    _S.EXPIRED: frozenset(),
    _S.ENDED: frozenset(),
}


class SessionReason(StrEnum):
    """Why a session was refused, expired or ended. Coded: no text goes up."""

    # refused
    IN_USE = "in_use"
    POLICY = "policy"
    REMOTE_OFF = "remote_off"
    NOT_ROSTERED = "not_rostered"
    ROSTER_EXPIRED = "roster_expired"
    OUT_OF_SCOPE = "out_of_scope"  # rostered, but not for this product line, level or data
    UNTRAINED = "untrained"  # vetting or training has ended
    NOT_ENTITLED = "not_entitled"  # the injector's own entitlement does not cover it
    COMMAND_LINE_ONLY = "command_line_only"  # the site takes no answer from a browser for this
    UNKNOWN_SERVICE = "unknown_service"
    LEVEL_TOO_LOW = "level_too_low"
    BAD_SIGNATURE = "bad_signature"
    REPLAYED = "replayed"
    LATE = "late"
    WRONG_DEVICE = "wrong_device"
    UNKNOWN_SESSION = "unknown_session"
    BUSY = "busy"
    REFUSED_AT_PANEL = "refused_at_panel"
    PATIENT_ON_TABLE = "patient_on_table"  # somebody at the panel says: not now
    PIN_LOCKED = "pin_locked"
    AUDIT_UNWRITABLE = "audit_unwritable"
    # expired
    NO_APPROVAL = "no_approval"
    FOUR_EYES = "four_eyes"  # one person approved, and no second one in time
    NO_ANSWER = "no_answer"
    UNREACHABLE = "unreachable"
    # ended
    LIFE_OVER = "life_over"
    IDLE = "idle"
    ENDED_BY_SPECIALIST = "ended_by_specialist"
    ENDED_BY_PORTAL = "ended_by_portal"
    ENDED_BY_HOSPITAL = "ended_by_hospital"
    STOPPED_AT_PANEL = "stopped_at_panel"
    PRESENCE_NOT_RENEWED = "presence_not_renewed"
    BECAME_IN_USE = "became_in_use"
    AGENT_RESTARTED = "agent_restarted"


class ExecutionState(StrEnum):
    """Life of a job's run on one device; the legal transitions are EXECUTION_TRANSITIONS."""

    QUEUED = "queued"
    SENT = "sent"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    REJECTED = "rejected"
    CANCELLED = "cancelled"

    @property
    def over(self) -> bool:
        return not EXECUTION_TRANSITIONS[self]


_E = ExecutionState
EXECUTION_TRANSITIONS: dict[ExecutionState, frozenset[ExecutionState]] = {
    _E.QUEUED: frozenset(
        {_E.SENT, _E.RUNNING, _E.SUCCEEDED, _E.FAILED, _E.REJECTED, _E.TIMED_OUT, _E.CANCELLED}
    ),
    _E.SENT: frozenset(
        {_E.RUNNING, _E.SUCCEEDED, _E.FAILED, _E.REJECTED, _E.TIMED_OUT, _E.CANCELLED}
    ),
    _E.RUNNING: frozenset({_E.SUCCEEDED, _E.FAILED, _E.REJECTED, _E.TIMED_OUT, _E.CANCELLED}),
    _E.SUCCEEDED: frozenset(),
    _E.FAILED: frozenset(),
    _E.TIMED_OUT: frozenset(),
    _E.REJECTED: frozenset(),
    _E.CANCELLED: frozenset(),
}


class JobKind(StrEnum):
    COLLECT_DIAGNOSTICS = "collect-diagnostics"


class JobReason(StrEnum):
    """Why an execution is where it is."""

    IN_USE = "in_use"  # deferred until the injector is free
    UNKNOWN_KIND = "unknown_kind"
    POLICY = "policy"
    REMOTE_OFF = "remote_off"
    DISK_FULL = "disk_full"
    INTERNAL = "internal"
    DEADLINE = "deadline"
    SCHEMA = "schema"  # the bundle held something its schema does not allow
    TOO_LARGE = "too_large"  # the bundle
    ALTERED = "altered"  # the bundle is not the one announced: size or digest


class RefusalReason(StrEnum):
    """Why the portal decided against a message from an outbox; told in dn/refused."""

    MALFORMED = "malformed"
    UNKNOWN_TYPE = "unknown_type"
    UNKNOWN_VERSION = "unknown_version"
    TOO_LARGE = "too_large"
    KEY_CONFLICT = "key_conflict"  # the same key came with another digest: an alarm as well
    CHAIN_BROKEN = "chain_broken"
    UNKNOWN_REFERENCE = "unknown_reference"
    ILLEGAL_TRANSITION = "illegal_transition"
    INTERNAL = "internal"  # a fault of the portal's, logged there; the outbox must flow anyway


class Outcome(StrEnum):
    ALLOWED = "allowed"
    REFUSED = "refused"
    FAILED = "failed"
