"""Words for the codes that the panel shows, in the language in use, and lengths of time."""

from agent.i18n import _
from agent.panel.view import SessionView
from agent.wire.catalogue import (
    ClientKind,
    ClinicalState,
    Level,
    RequestReason,
    SessionReason,
    SessionState,
)


def level(code: Level) -> str:
    return {
        Level.DIAGNOSTICS: _("Read diagnostics"),
        Level.SERVICE: _("Service"),
        Level.OS: _("Full access to the system"),
    }[code]


def why(code: RequestReason) -> str:
    return {
        RequestReason.INSPECTION: _("Inspection"),
        RequestReason.REPAIR: _("Repair"),
        RequestReason.CALIBRATION: _("Calibration"),
        RequestReason.SOFTWARE: _("Software"),
        RequestReason.TRAINING: _("Training"),
    }[code]


def clinical(code: ClinicalState) -> str:
    return {
        ClinicalState.INITIALISING: _("Starting"),
        ClinicalState.IDLE: _("Idle"),
        ClinicalState.FILLING: _("Filling"),
        ClinicalState.PRIMING: _("Priming"),
        ClinicalState.READY: _("Ready"),
        ClinicalState.ARMED: _("Armed"),
        ClinicalState.INJECTING: _("Injecting"),
        ClinicalState.HOLD: _("Hold"),
        ClinicalState.COMPLETE: _("Complete"),
        ClinicalState.SERVICE: _("Service"),
        ClinicalState.FAULT: _("Fault"),
    }[code]


def over(state: SessionState, reason: SessionReason | None) -> str:
    """How the last request or session came to its end."""
    ended = {
        SessionReason.LIFE_OVER: _("The last session ended: its time was over."),
        SessionReason.IDLE: _("The last session ended: nothing had happened for a while."),
        SessionReason.ENDED_BY_SPECIALIST: _("The last session was ended by the specialist."),
        SessionReason.ENDED_BY_PORTAL: _("The last session was ended by the manufacturer."),
        SessionReason.ENDED_BY_HOSPITAL: _("The last session was ended by the hospital."),
        SessionReason.STOPPED_AT_PANEL: _("The last session was stopped here."),
        SessionReason.PRESENCE_NOT_RENEWED: _(
            "The last session ended: nobody confirmed that they were still here."
        ),
        SessionReason.BECAME_IN_USE: _("The last session ended: the injector came into use."),
        SessionReason.PATIENT_ON_TABLE: _("The last request was put off: a patient was here."),
        SessionReason.REFUSED_AT_PANEL: _("The last request was refused here."),
        SessionReason.NO_APPROVAL: _("The last request was refused: nobody approved it in time."),
        SessionReason.FOUR_EYES: _(
            "The last request was refused: nobody else approved it as well in time."
        ),
        SessionReason.NO_ANSWER: _("The last request lapsed: the specialist did not sign it."),
        SessionReason.IN_USE: _("The last request was refused: the injector was in use."),
        SessionReason.PIN_LOCKED: _("The last request was refused: too many wrong PINs."),
        SessionReason.REMOTE_OFF: _("The last request was refused: remote connection is off."),
        SessionReason.BAD_SIGNATURE: _("The last request was refused: its signature was wrong."),
    }
    if reason in ended:
        return ended[reason]
    if state is SessionState.ENDED:
        return _("The last session has ended.")
    return _("The last request was refused by the injector.")


def report(it: SessionView) -> str:
    """The last session or request, for whoever comes to the panel afterwards."""
    lines = [over(it.state, it.reason), f"{it.name}, {it.organisation} · {level(it.level)}"]
    if it.lasted_s is not None:
        lasted = _("{time}, {up} sent, {down} received").format(
            time=length(it.lasted_s), up=size(it.bytes_up), down=size(it.bytes_down)
        )
        lines.append(lasted)
    if it.approvers:
        numbers = ", ".join(map(str, it.approvers))
        lines.append(_("Approved by: {numbers}").format(numbers=numbers))
    return "\n".join(lines)


def client(kind: ClientKind) -> str:
    return {
        ClientKind.COMMAND_LINE: _("command line"),
        ClientKind.BROWSER: _("browser"),
    }[kind]


def length(seconds: int) -> str:
    """`45 s`, `30 min`, `1 h 30 min`."""
    if seconds < 60:
        return _("{count} s").format(count=seconds)
    minutes = round(seconds / 60)
    if minutes < 60:
        return _("{count} min").format(count=minutes)
    hours, minutes = divmod(minutes, 60)
    if not minutes:
        return _("{count} h").format(count=hours)
    return _("{hours} h {minutes} min").format(hours=hours, minutes=minutes)


def countdown(seconds: int) -> str:
    """`4:05`, or `1:02:05` above an hour."""
    minutes, seconds = divmod(max(0, seconds), 60)
    if minutes < 60:
        return f"{minutes}:{seconds:02d}"
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"


def size(count: int) -> str:
    """Bytes for people: `812 kB`, `3.4 MB`."""
    if count < 1_000_000:
        return _("{count} kB").format(count=round(count / 1000))
    return _("{count} MB").format(count=f"{count / 1_000_000:.1f}")


def spaced(code: str) -> str:
    """The code, wide enough to be read out."""
    return "  -  ".join(" ".join(part) for part in code.split("-"))
