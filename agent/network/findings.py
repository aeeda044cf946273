"""From what was observed to one finding: what is wrong, in a code with the facts that belong to it.

Pure, and the one place that decides it; the agent at work and the doctor ask the same question.
`agent.network.words` says a finding in plain words with its remedy.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

from agent.network.route import Carrier, Stage

# X509_V_ERR_*, as OpenSSL numbers what it finds in a chain.
NOT_YET_VALID = 9
EXPIRED = 10
HOSTNAME_MISMATCH = 62
IP_MISMATCH = 64

CLOCK_BOUND_S = 300.0  # a clock further off than this is said to be wrong


class Failure(StrEnum):
    """How an attempt ended at its stage."""

    TIMEOUT = "timeout"
    REFUSED = "refused"  # TCP reset in answer to SYN
    NO_ROUTE = "no_route"
    CUT = "cut"  # reset or end in the middle
    UNKNOWN = "unknown"  # the name server says: no such name
    UNANSWERED = "unanswered"  # the name server says nothing, or that it cannot say
    CERTIFICATE = "certificate"  # of the server
    ALERT = "alert"  # TLS alert from the other side
    ANSWER = "answer"  # plain HTTP where TLS is due
    STATUS = "status"  # an HTTP status that is no success
    PROTOCOL = "protocol"  # neither of the above can be read from what came
    CODE = "code"  # CONNACK with a code


class Code(StrEnum):
    """What is wrong. Published in docs/cli.md: none changes its meaning."""

    NAME_UNKNOWN = "name_unknown"
    NAME_SERVER = "name_server"
    NO_ROUTE = "no_route"
    PORT_REFUSED = "port_refused"
    PORT_BLOCKED = "port_blocked"
    PROXY_NAME = "proxy_name"
    PROXY_UNREACHABLE = "proxy_unreachable"
    PROXY_SILENT = "proxy_silent"
    PROXY_NOT_HTTP = "proxy_not_http"
    PROXY_WANTS_CREDENTIALS = "proxy_wants_credentials"
    PROXY_REFUSES_CREDENTIALS = "proxy_refuses_credentials"
    PROXY_SCHEME = "proxy_scheme"
    PROXY_FORBIDS = "proxy_forbids"
    PROXY_CANNOT_REACH = "proxy_cannot_reach"
    PROXY_STATUS = "proxy_status"
    CAPTIVE_PORTAL = "captive_portal"
    TLS_INSPECTED = "tls_inspected"
    WRONG_SERVER = "wrong_server"
    CLOCK_BEHIND = "clock_behind"
    CLOCK_AHEAD = "clock_ahead"
    SERVER_EXPIRED = "server_expired"
    EXPIRED_OR_CLOCK = "expired_or_clock"
    TLS_CUT = "tls_cut"
    TLS_SILENT = "tls_silent"
    TLS_FAILED = "tls_failed"
    OWN_EXPIRED = "own_expired"
    OWN_REVOKED = "own_revoked"
    OWN_REFUSED = "own_refused"
    OWN_SUPERSEDED = "own_superseded"
    WEBSOCKET_REFUSED = "websocket_refused"
    MQTT_CUT = "mqtt_cut"
    MQTT_SILENT = "mqtt_silent"
    MQTT_BLOCKED = "mqtt_blocked"
    CARRIERS_CUT = "carriers_cut"
    MQTT_REFUSED = "mqtt_refused"
    CUT_OFF = "cut_off"
    IDLE_CUT = "idle_cut"


@dataclass(frozen=True, slots=True)
class Observation:
    """What one attempt met. Times are seconds since 1970; None where it is not known."""

    stage: Stage
    failure: Failure
    server: str = ""  # host:port
    proxy: str = ""  # host:port, empty without one
    carrier: Carrier = Carrier.MQTT
    verify_code: int = 0
    issuer: str = ""  # of the certificate that was shown
    subject: str = ""
    not_before: float | None = None
    not_after: float | None = None
    now: float | None = None  # of this injector's clock
    server_date: float | None = None
    alert: str = ""
    status: int = 0
    location: str = ""  # host that an HTTP answer leads to
    schemes: tuple[str, ...] = ()
    credentials: bool = False  # whether they were sent to the proxy
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """`facts` are for the words: short strings, some of them from the network."""

    code: Code
    facts: dict[str, str] = field(default_factory=dict)

    @property
    def answered(self) -> bool:
        """Whether HTTP came back with a status."""
        return self.facts.get("status", "-") != "-"


def classify(seen: Observation) -> Finding:
    """The one finding that fits."""
    facts = {"server": seen.server, "proxy": seen.proxy, "error": seen.detail or seen.failure.value}
    match seen.stage:
        case Stage.NAME | Stage.TCP:
            return Finding(_reach(seen), facts)
        case Stage.PROXY:
            return Finding(
                _proxy(seen),
                facts | {"status": str(seen.status), "schemes": ", ".join(seen.schemes)},
            )
        case _ if seen.failure is Failure.CERTIFICATE:
            return _certificate(seen, facts)
        case _ if seen.failure is Failure.ALERT and seen.alert:
            return Finding(_alert(seen.alert), facts | {"error": seen.alert})
        case Stage.TLS:
            return Finding(_handshake(seen), facts | {"location": seen.location})
        case Stage.UPGRADE:
            return Finding(Code.WEBSOCKET_REFUSED, facts | {"status": str(seen.status or "-")})
        case Stage.MQTT:
            return Finding(_mqtt(seen), facts)
    return Finding(Code.CUT_OFF, facts)


def _reach(seen: Observation) -> Code:
    if seen.stage is Stage.NAME:
        if seen.proxy:
            return Code.PROXY_NAME
        return Code.NAME_UNKNOWN if seen.failure is Failure.UNKNOWN else Code.NAME_SERVER
    if seen.proxy:
        return Code.PROXY_UNREACHABLE
    if seen.failure is Failure.NO_ROUTE:
        return Code.NO_ROUTE
    return Code.PORT_BLOCKED if seen.failure is Failure.TIMEOUT else Code.PORT_REFUSED


def _proxy(seen: Observation) -> Code:
    if seen.failure is not Failure.STATUS:
        by_failure = {Failure.TIMEOUT: Code.PROXY_SILENT, Failure.PROTOCOL: Code.PROXY_NOT_HTTP}
        return by_failure.get(seen.failure, Code.PROXY_UNREACHABLE)
    if seen.status in (401, 407):  # tinyproxy says 401 to credentials that are wrong
        if seen.schemes and "basic" not in seen.schemes:
            return Code.PROXY_SCHEME
        wrong = seen.credentials
        return Code.PROXY_REFUSES_CREDENTIALS if wrong else Code.PROXY_WANTS_CREDENTIALS
    if seen.status in (403, 405):
        return Code.PROXY_FORBIDS
    if seen.status in (500, 502, 503, 504):  # tinyproxy says 500 of a server it cannot reach
        return Code.PROXY_CANNOT_REACH
    return Code.PROXY_STATUS


def _certificate(seen: Observation, facts: dict[str, str]) -> Finding:
    facts = facts | {"issuer": seen.issuer or "?", "subject": seen.subject or "?"}
    if seen.verify_code in (HOSTNAME_MISMATCH, IP_MISMATCH):
        return Finding(Code.WRONG_SERVER, facts)
    if seen.verify_code in (NOT_YET_VALID, EXPIRED):
        # OpenSSL looks at times only once the chain ends at our own authority.
        return Finding(_dated(seen), facts | _dates(seen))
    return Finding(Code.TLS_INSPECTED, facts)


def dated(seen: Observation) -> bool:
    """Whether the server's certificate was refused for its dates alone: then what time it really is
    says whose fault it is."""
    return seen.failure is Failure.CERTIFICATE and seen.verify_code in (NOT_YET_VALID, EXPIRED)


def _dated(seen: Observation) -> Code:
    off = None
    if seen.server_date is not None and seen.now is not None:
        off = clock_off(seen.now, seen.server_date)
        if off is None:
            return Code.SERVER_EXPIRED
    if seen.verify_code == NOT_YET_VALID:
        return Code.CLOCK_BEHIND  # nobody shows a certificate that begins tomorrow
    if off is not None:
        return Code.CLOCK_AHEAD if off > 0 else Code.CLOCK_BEHIND
    return Code.EXPIRED_OR_CLOCK


def clock_off(now: float, true: float) -> float | None:
    """How many seconds `now` is ahead of `true`; None when it is close enough."""
    off = now - true
    return off if abs(off) > CLOCK_BOUND_S else None


def clock(now: float, true: float | None, floor: float) -> Finding | None:
    """What is wrong with a clock that shows `now`, where a server says `true` and something signed
    is dated `floor`; None when nothing is known to be."""
    off = None if true is None else clock_off(now, true)
    if true is not None and off is not None:
        code = Code.CLOCK_AHEAD if off > 0 else Code.CLOCK_BEHIND
        return Finding(code, {"now": day(now), "true": day(true)})
    if now < floor - CLOCK_BOUND_S:
        return Finding(Code.CLOCK_BEHIND, {"now": day(now), "true": day(floor)})
    return None


def _dates(seen: Observation) -> dict[str, str]:
    given = {
        "now": seen.now,
        "true": seen.not_before if seen.server_date is None else seen.server_date,
        "begins": seen.not_before,
        "ends": seen.not_after,
    }
    return {name: day(value) for name, value in given.items()}


def day(seconds: float | None) -> str:
    """`2026-11-24 15:30 UTC`, or `?`."""
    if seconds is None:
        return "?"
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (OverflowError, ValueError, OSError):
        return "?"


def _alert(alert: str) -> Code:
    if "CERTIFICATE_EXPIRED" in alert:
        return Code.OWN_EXPIRED
    if "CERTIFICATE_REVOKED" in alert:
        return Code.OWN_REVOKED
    about_us = ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED")
    return Code.OWN_REFUSED if any(word in alert for word in about_us) else Code.TLS_FAILED


def _handshake(seen: Observation) -> Code:
    return {
        Failure.ANSWER: Code.CAPTIVE_PORTAL,
        Failure.CUT: Code.TLS_CUT,
        Failure.TIMEOUT: Code.TLS_SILENT,
    }.get(seen.failure, Code.TLS_FAILED)


def _mqtt(seen: Observation) -> Code:
    return {
        Failure.CODE: Code.MQTT_REFUSED,
        Failure.TIMEOUT: Code.MQTT_SILENT,
    }.get(seen.failure, Code.MQTT_CUT)


_CUT = frozenset({Code.TLS_CUT, Code.TLS_SILENT, Code.MQTT_CUT, Code.MQTT_SILENT})


def blames_carrier(finding: Finding) -> bool:
    """Whether another carrier may get through where this one met `finding`."""
    return finding.code in _CUT


def hung_up(finding: Finding) -> bool:
    """Whether the connection ended without a word once the handshake was done."""
    websocket = finding.code is Code.WEBSOCKET_REFUSED and not finding.answered
    return finding.code is Code.MQTT_CUT or websocket


def together(first: Finding, other: Finding | None) -> Finding:
    """What `first`, met by MQTT, means once the websocket met `other`, or nothing wrong.

    A gate closes on a certificate that was revoked without a word, and so does a firewall on what
    it does not like: from here the two look alike, and `agent.network.doubt` settles it.
    """
    if not blames_carrier(first):
        return first
    if other is None:
        return Finding(Code.MQTT_BLOCKED, first.facts)
    if hung_up(first) and hung_up(other):
        return Finding(Code.CARRIERS_CUT, first.facts)
    return first


_REFUSALS = {
    "credential_revoked": Code.OWN_REVOKED,
    "credential_superseded": Code.OWN_SUPERSEDED,
    "credential_lapsed": Code.OWN_REFUSED,
    "claim_refused": Code.OWN_REFUSED,
    "claim_taken": Code.OWN_REFUSED,
}


def judgement(reason: str) -> Code | None:
    """What the portal's refusal to give the certificate again says of it; None where it says
    nothing."""
    return _REFUSALS.get(reason)
