"""Codes of a session in plain words, with what to do next; durations."""

import re

from agent.wire.catalogue import SessionReason, SessionState
from agent.wire.mux import ResetCode
from fleet.client.i18n import _, gettext_noop

REASONS: dict[SessionReason, str] = {
    SessionReason.IN_USE: gettext_noop(
        "The injector is in use. Wait until the examination is over."
    ),
    SessionReason.POLICY: gettext_noop(
        "The site's policy does not allow it. Talk to the hospital."
    ),
    SessionReason.REMOTE_OFF: gettext_noop(
        "Remote connection is switched off at the injector. "
        "Only the hospital can switch it on, at the panel."
    ),
    SessionReason.NOT_ROSTERED: gettext_noop(
        "You are not on the injector's roster, or with another key. "
        "Ask the keeper of the trust key to sign your key in."
    ),
    SessionReason.ROSTER_EXPIRED: gettext_noop(
        "The injector's roster has expired. Ask the keeper of the trust key to sign a new one."
    ),
    SessionReason.OUT_OF_SCOPE: gettext_noop(
        "You may not work on this product line, at this level or with its data."
    ),
    SessionReason.UNTRAINED: gettext_noop("Your vetting or training has ended."),
    SessionReason.NOT_ENTITLED: gettext_noop("The injector's entitlement does not cover it."),
    SessionReason.COMMAND_LINE_ONLY: gettext_noop("The site takes the command line only for this."),
    SessionReason.UNKNOWN_SERVICE: gettext_noop("The injector has no such service."),
    SessionReason.LEVEL_TOO_LOW: gettext_noop("A service needs a higher level."),
    SessionReason.BAD_SIGNATURE: gettext_noop(
        "The injector does not accept the signature. "
        "Check that the profile names the key that is on the roster."
    ),
    SessionReason.REPLAYED: gettext_noop("The answer was sent before. Make a new request."),
    SessionReason.LATE: gettext_noop("The answer came too late. Make a new request."),
    SessionReason.WRONG_DEVICE: gettext_noop(
        "The answer was for another injector. Make a new request."
    ),
    SessionReason.UNKNOWN_SESSION: gettext_noop(
        "The injector does not know this session. Make a new request."
    ),
    SessionReason.BUSY: gettext_noop(
        "The injector has another session. Try again when it has ended."
    ),
    SessionReason.PATIENT_ON_TABLE: gettext_noop(
        "Not now: a patient is on the table. Ask again later."
    ),
    SessionReason.REFUSED_AT_PANEL: gettext_noop(
        "A person at the injector refused. Telephone before asking."
    ),
    SessionReason.PIN_LOCKED: gettext_noop(
        "Too many wrong PINs at the injector. The hospital must wait or set a new one."
    ),
    SessionReason.AUDIT_UNWRITABLE: gettext_noop("The injector cannot write its audit record."),
    SessionReason.NO_APPROVAL: gettext_noop(
        "Nobody at the injector approved in time. Telephone and ask again."
    ),
    SessionReason.FOUR_EYES: gettext_noop(
        "One person at the injector approved, and no second one in time. Ask again."
    ),
    SessionReason.NO_ANSWER: gettext_noop(
        "The challenge was not signed in time. Make a new request."
    ),
    SessionReason.UNREACHABLE: gettext_noop("The injector could not be reached in time."),
    SessionReason.LIFE_OVER: gettext_noop("The agreed time is over."),
    SessionReason.IDLE: gettext_noop("Nothing happened for too long."),
    SessionReason.ENDED_BY_SPECIALIST: gettext_noop("You ended it."),
    SessionReason.ENDED_BY_PORTAL: gettext_noop("An administrator of the portal ended it."),
    SessionReason.ENDED_BY_HOSPITAL: gettext_noop("The hospital ended it."),
    SessionReason.STOPPED_AT_PANEL: gettext_noop("It was stopped at the injector's panel."),
    SessionReason.PRESENCE_NOT_RENEWED: gettext_noop("Presence at the injector was not renewed."),
    SessionReason.BECAME_IN_USE: gettext_noop("The injector came into use."),
    SessionReason.AGENT_RESTARTED: gettext_noop(
        "The injector's agent restarted. Make a new request."
    ),
}

RESETS: dict[ResetCode, str] = {
    ResetCode.CANCELLED: gettext_noop("The injector closed the connection."),
    ResetCode.REFUSED: gettext_noop("The session does not cover this service."),
    ResetCode.UNREACHABLE: gettext_noop("Nothing listens for this service at the injector."),
    ResetCode.BUSY: gettext_noop("Too many connections at once. Close one and try again."),
    ResetCode.GAP: gettext_noop("The connection was away for too long. Connect again."),
    ResetCode.SESSION_OVER: gettext_noop("The session is over."),
}

STATES: dict[SessionState, str] = {
    SessionState.REQUESTED: gettext_noop("on its way to the injector"),
    SessionState.ACCEPTED: gettext_noop("the injector has it"),
    SessionState.WAITING: gettext_noop("it waits until the injector is no longer in use"),
    SessionState.CHALLENGED: gettext_noop("it waits for your signature"),
    SessionState.PRESENCE: gettext_noop("it waits for approval at the injector"),
    SessionState.ACTIVE: gettext_noop("active"),
    SessionState.REFUSED: gettext_noop("refused"),
    SessionState.EXPIRED: gettext_noop("expired"),
    SessionState.ENDED: gettext_noop("over"),
}

_PART = re.compile(r"(\d+)(h|m|s)")
_SECONDS = {"h": 3600, "m": 60, "s": 1}


def reset(code: ResetCode) -> str:
    if code in RESETS:
        return _(RESETS[code])
    return _("The connection was cut ({code}).").format(code=code.name.lower())


def reason(code: str | None) -> str:
    """A session's reason in words; a code of a later version as it is."""
    if not code:
        return ""
    try:
        return _(REASONS[SessionReason(code)])
    except ValueError:
        return code


def state(code: str) -> str:
    """A session's state in words, to stand after a colon or in brackets."""
    return _(STATES[SessionState(code)])


def over(state: str, code: str | None) -> str:
    said = {
        SessionState.REFUSED.value: _("The session is refused."),
        SessionState.EXPIRED.value: _("The session is expired."),
    }.get(state, _("The session is over."))
    return f"{said} {reason(code)}".strip()


def seconds(text: str) -> int:
    """A duration such as `30m`, `1h30m` or `90s`, in seconds. Raises ValueError."""
    if not text or _PART.sub("", text):
        raise ValueError(
            _("{text} is no duration: write 30m, 1h30m or 90s").format(text=repr(text))
        )
    return sum(int(amount) * _SECONDS[unit] for amount, unit in _PART.findall(text))
