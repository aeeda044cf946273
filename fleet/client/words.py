"""Codes of a session in plain words, with what to do next; durations."""

import re

from agent.wire.catalogue import SessionReason, SessionState
from agent.wire.mux import ResetCode

REASONS: dict[SessionReason, str] = {
    SessionReason.IN_USE: "The injector is in use. Ask again when the examination is over.",
    SessionReason.POLICY: "The site's policy does not allow it. Talk to the hospital.",
    SessionReason.REMOTE_OFF: "Remote connection is switched off at the injector. "
    "Only the hospital can switch it on, at the panel.",
    SessionReason.NOT_ROSTERED: "You are not on the injector's roster, or with another key. "
    "Ask the keeper of the trust key to sign your key in.",
    SessionReason.ROSTER_EXPIRED: "The injector's roster has expired. "
    "Ask the keeper of the trust key to sign a new one.",
    SessionReason.OUT_OF_SCOPE: "You may not work on this product line or level.",
    SessionReason.UNKNOWN_SERVICE: "The injector has no such service.",
    SessionReason.LEVEL_TOO_LOW: "A service needs a higher level. Ask again with --level.",
    SessionReason.BAD_SIGNATURE: "The injector does not accept the signature. "
    "Check that the profile names the key that is on the roster.",
    SessionReason.REPLAYED: "The answer was sent before. Make a new request.",
    SessionReason.LATE: "The answer came too late. Make a new request.",
    SessionReason.WRONG_DEVICE: "The answer was for another injector. Make a new request.",
    SessionReason.UNKNOWN_SESSION: "The injector does not know this session. Make a new request.",
    SessionReason.BUSY: "The injector has another session. Try again when it has ended.",
    SessionReason.REFUSED_AT_PANEL: "A person at the injector refused. Telephone before asking.",
    SessionReason.PIN_LOCKED: "Too many wrong PINs at the injector. "
    "The hospital must wait or set a new one.",
    SessionReason.AUDIT_UNWRITABLE: "The injector cannot write its audit record.",
    SessionReason.NO_APPROVAL: "Nobody at the injector approved in time. Telephone and ask again.",
    SessionReason.NO_ANSWER: "The challenge was not signed in time. Make a new request.",
    SessionReason.UNREACHABLE: "The injector could not be reached in time.",
    SessionReason.LIFE_OVER: "The agreed time is over.",
    SessionReason.IDLE: "Nothing happened for too long.",
    SessionReason.ENDED_BY_SPECIALIST: "You ended it.",
    SessionReason.ENDED_BY_PORTAL: "An administrator of the portal ended it.",
    SessionReason.ENDED_BY_HOSPITAL: "The hospital ended it.",
    SessionReason.STOPPED_AT_PANEL: "It was stopped at the injector's panel.",
    SessionReason.PRESENCE_NOT_RENEWED: "Presence at the injector was not renewed.",
    SessionReason.BECAME_IN_USE: "The injector came into use.",
    SessionReason.AGENT_RESTARTED: "The injector's agent restarted. Make a new request.",
}

RESETS: dict[ResetCode, str] = {
    ResetCode.CANCELLED: "The injector closed the connection.",
    ResetCode.REFUSED: "The session does not cover this service.",
    ResetCode.UNREACHABLE: "Nothing listens for this service at the injector.",
    ResetCode.BUSY: "Too many connections at once. Close one and try again.",
    ResetCode.GAP: "The connection was away for too long. Connect again.",
    ResetCode.SESSION_OVER: "The session is over.",
}

_PART = re.compile(r"(\d+)(h|m|s)")
_SECONDS = {"h": 3600, "m": 60, "s": 1}


def reset(code: ResetCode) -> str:
    return RESETS.get(code, f"The connection was cut ({code.name.lower()}).")


def reason(code: str | None) -> str:
    """A session's reason in words; a code of a later version as it is."""
    if not code:
        return ""
    try:
        return REASONS[SessionReason(code)]
    except ValueError:
        return code


def over(state: str, code: str | None) -> str:
    verb = {
        SessionState.REFUSED.value: "refused",
        SessionState.EXPIRED.value: "expired",
    }.get(state, "over")
    return f"The session is {verb}. {reason(code)}".strip()


def seconds(text: str) -> int:
    """A duration such as `30m`, `1h30m` or `90s`, in seconds. Raises ValueError."""
    if not text or _PART.sub("", text):
        raise ValueError(f"{text!r} is no duration: write 30m, 1h30m or 90s")
    return sum(int(amount) * _SECONDS[unit] for amount, unit in _PART.findall(text))
