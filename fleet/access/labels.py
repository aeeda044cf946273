"""Words for the codes of access, for people."""

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from agent.wire.catalogue import Level, RequestReason, SessionReason, SessionState

Labels = str | Promise

STATES: dict[SessionState, Labels] = {
    SessionState.REQUESTED: _("Asked for"),
    SessionState.ACCEPTED: _("Received by the injector"),
    SessionState.WAITING: _("Waiting: the injector is in use"),
    SessionState.CHALLENGED: _("Waiting for the specialist’s signature"),
    SessionState.PRESENCE: _("Waiting for approval at the injector"),
    SessionState.ACTIVE: _("Active"),
    SessionState.REFUSED: _("Refused"),
    SessionState.EXPIRED: _("Expired"),
    SessionState.ENDED: _("Ended"),
}

LEVELS: dict[Level, Labels] = {
    Level.DIAGNOSTICS: _("Diagnostics (read only)"),
    Level.SERVICE: _("Service"),
    Level.OS: _("Operating system"),
}

REASONS: dict[RequestReason, Labels] = {
    RequestReason.INSPECTION: _("Inspection"),
    RequestReason.REPAIR: _("Repair"),
    RequestReason.CALIBRATION: _("Calibration"),
    RequestReason.SOFTWARE: _("Software"),
    RequestReason.TRAINING: _("Training"),
}

STATE_REASONS: dict[SessionReason, Labels] = {
    SessionReason.IN_USE: _("The injector is in use"),
    SessionReason.POLICY: _("The site’s policy does not allow it"),
    SessionReason.REMOTE_OFF: _("Remote connection is switched off at the injector"),
    SessionReason.NOT_ROSTERED: _("The specialist is not on the injector’s roster"),
    SessionReason.ROSTER_EXPIRED: _("The injector’s roster has expired"),
    SessionReason.OUT_OF_SCOPE: _(
        "The specialist may not work on this product line, at this level or with its data"
    ),
    SessionReason.UNTRAINED: _("The specialist’s vetting or training has ended"),
    SessionReason.NOT_ENTITLED: _("The injector’s entitlement does not cover it"),
    SessionReason.COMMAND_LINE_ONLY: _("The site takes the command line only for this"),
    SessionReason.UNKNOWN_SERVICE: _("The injector has no such service"),
    SessionReason.LEVEL_TOO_LOW: _("A service needs a higher level than was asked for"),
    SessionReason.BAD_SIGNATURE: _("The specialist’s signature is wrong"),
    SessionReason.REPLAYED: _("An answer was sent a second time"),
    SessionReason.LATE: _("The answer came too late"),
    SessionReason.WRONG_DEVICE: _("The answer was for another injector"),
    SessionReason.UNKNOWN_SESSION: _("The injector does not know this session"),
    SessionReason.BUSY: _("The injector has too many sessions"),
    SessionReason.PATIENT_ON_TABLE: _("Not now: a patient is on the table"),
    SessionReason.REFUSED_AT_PANEL: _("A person at the injector refused"),
    SessionReason.PIN_LOCKED: _("Too many wrong PINs at the injector"),
    SessionReason.AUDIT_UNWRITABLE: _("The injector cannot write its audit record"),
    SessionReason.NO_APPROVAL: _("Nobody at the injector approved in time"),
    SessionReason.FOUR_EYES: _("One person approved on site, and no second one in time"),
    SessionReason.NO_ANSWER: _("The specialist did not sign in time"),
    SessionReason.UNREACHABLE: _("The injector could not be reached in time"),
    SessionReason.LIFE_OVER: _("The agreed time is over"),
    SessionReason.IDLE: _("Nothing happened for too long"),
    SessionReason.ENDED_BY_SPECIALIST: _("Ended by the specialist"),
    SessionReason.ENDED_BY_PORTAL: _("Ended by an administrator of the portal"),
    SessionReason.ENDED_BY_HOSPITAL: _("Ended by the hospital"),
    SessionReason.STOPPED_AT_PANEL: _("Stopped at the injector’s panel"),
    SessionReason.PRESENCE_NOT_RENEWED: _("Presence at the injector was not renewed"),
    SessionReason.BECAME_IN_USE: _("The injector came into use"),
    SessionReason.AGENT_RESTARTED: _("The injector’s agent restarted"),
}
