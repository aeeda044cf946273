"""What the doctor looked at, and what each look showed."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from agent.i18n import _
from agent.network import words
from agent.network.findings import Finding


class What(StrEnum):
    AGENT = "agent"
    CREDENTIAL = "credential"
    FILES = "files"
    CLOCK = "clock"
    NAME = "name"
    PORT = "port"
    PROXY = "proxy"
    TLS = "tls"
    WEBSOCKET = "websocket"
    MQTT = "mqtt"


class Verdict(StrEnum):
    GOOD = "good"
    ADVICE = "advice"  # something to know; it keeps nothing from working
    BAD = "bad"


class Said(StrEnum):
    """What a look can show that is no finding."""

    AGENT_OFF = "agent_off"
    AGENT_AWAY = "agent_away"
    AGENT_ONLINE = "agent_online"
    FILE_LOST = "file_lost"
    FILE_UNUSABLE = "file_unusable"
    CLOCK_GOOD = "clock_good"
    CLOCK_UNKNOWN = "clock_unknown"
    NOT_ENROLLED = "not_enrolled"
    VALID = "valid"
    TOOK = "took"
    ACCEPTED = "accepted"
    BORNE = "borne"


@dataclass(frozen=True, slots=True)
class Note:
    code: Said
    facts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Check:
    what: What
    verdict: Verdict
    shown: Finding | Note
    target: str = ""  # host:port
    took_s: float | None = None
    spare: bool = False  # of a server that is not needed now: another one serves


@dataclass(frozen=True, slots=True)
class Examination:
    """All of it. `at` in seconds since 1970, by this injector's clock."""

    at: float
    serial: str
    device: str  # empty before enrolment
    proxy: str
    proxy_user: str
    servers: tuple[str, ...]  # host:port, what the firewall must let through
    authority: str  # who must have issued the servers' certificates
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether the injector gets a connection, whatever else there is to note."""
        return all(check.verdict is not Verdict.BAD for check in self.checks)

    @property
    def noted(self) -> bool:
        """Whether somebody should do something all the same."""
        return any(check.verdict is Verdict.ADVICE and tell(check)[1] for check in self.checks)


def weigh(checks: Sequence[Check]) -> tuple[Check, ...]:
    """What was found, with its weight: where the injector gets a connection, a server that does not
    answer or a clock that is wrong is something to know, and keeps nothing from working."""
    if not any(_connects(check) for check in checks):
        return tuple(checks)
    return tuple(
        replace(check, verdict=Verdict.ADVICE, spare=bool(check.target))
        if check.verdict is Verdict.BAD
        else check
        for check in checks
    )


def _connects(check: Check) -> bool:
    return check.shown.code in (Said.AGENT_ONLINE, Said.ACCEPTED, Said.BORNE)


def title(what: What) -> str:
    return {
        What.AGENT: _("Agent"),
        What.CREDENTIAL: _("Certificate of this injector"),
        What.FILES: _("Files"),
        What.CLOCK: _("Clock"),
        What.NAME: _("Name"),
        What.PORT: _("Port"),
        What.PROXY: _("Proxy"),
        What.TLS: _("Secure connection"),
        What.WEBSOCKET: _("Websocket"),
        What.MQTT: _("MQTT"),
    }[what]


def verdict(verdict: Verdict) -> str:
    return {
        Verdict.GOOD: _("good"),
        Verdict.ADVICE: _("note"),
        Verdict.BAD: _("WRONG"),
    }[verdict]


def tell(check: Check) -> tuple[str, str]:
    """What it showed and what to do about it, in the language in use; the latter may be empty."""
    if isinstance(check.shown, Finding):
        remedy = words.remedy(check.shown)
        if check.spare:
            # It may be down at the manufacturer's, and then the hospital has nothing to look for.
            wait = _("Nothing must be done now: the injector has another server. If this lasts:")
            remedy = f"{wait} {remedy}"
        return words.what(check.shown), remedy
    return _said(check.shown.code).format(**check.shown.facts), ""


def _said(code: Said) -> str:
    return {
        Said.AGENT_OFF: _("The agent does not run; the doctor tries the connection itself."),
        Said.AGENT_AWAY: _("The agent runs and is not connected."),
        Said.AGENT_ONLINE: _("The agent is connected to {server} ({carrier})."),
        Said.FILE_LOST: "{trouble}",  # the words are those of who could not read it
        Said.FILE_UNUSABLE: "{trouble}",
        Said.CLOCK_GOOD: _("It agrees with the server's."),
        Said.CLOCK_UNKNOWN: _("It shows {now}; no server could be asked."),
        Said.NOT_ENROLLED: _("This injector is not enrolled yet."),
        Said.VALID: _("It is valid until {ends}."),
        Said.TOOK: _("{ms} ms"),
        Said.ACCEPTED: _("The server accepts this injector."),
        Said.BORNE: _("The server bears with this injector's certificate."),
    }[code]
