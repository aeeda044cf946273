"""Words for what the audit records, for people. The codes are what is hashed and never change."""

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

Text = str | Promise

ACTIONS: dict[str, Text] = {
    "access:answer": _("Signature passed on"),
    "access:end": _("Session ended from here"),
    "account:lock": _("Sign-in locked for 15 minutes"),
    "account:sign_in": _("Sign-in"),
    "agent:enrol": _("Agent enrolled"),
    "agent:start": _("Agent started"),
    "audit:forged": _("Audit record that does not verify"),
    "audit:fork": _("Two versions of the audit record"),
    "audit:gap": _("Gap in the audit record"),
    "audit:resume": _("Audit record taken up again"),
    "audit:server_head": _("Portal’s audit head received"),
    "bundle:download": _("Bundle downloaded"),
    "claim:create": _("Claim made"),
    "claim:misused": _("Claim misused"),
    "claim:revoke": _("Claim revoked"),
    "clinical:no_patient": _("Declared: no patient connected"),
    "credential:alarm": _("Alarm about a credential"),
    "credential:alarm_closed": _("Alarm about a credential closed"),
    "credential:renew": _("Certificate renewed"),
    "credential:revoke": _("Credential revoked"),
    "device:enrol": _("Device enrolled"),
    "device:enrol_again": _("Device enrolled again"),
    "device:move": _("Device moved to another site"),
    "device:receive": _("Device received from another organisation"),
    "device:retire": _("Device retired"),
    "device:transfer": _("Device transferred to another organisation"),
    "device:wrong_line": _("Device of another product line"),
    "gate:refused": _("Connection refused"),
    "job:accept": _("Job held by the injector"),
    "job:cancel": _("Job cancelled"),
    "job:create": _("Job created"),
    "job:fail": _("Job failed"),
    "job:receive": _("Job received"),
    "job:reject": _("Job rejected"),
    "job:run": _("Job running"),
    "job:succeed": _("Job succeeded"),
    "job:time_out": _("Job out of time"),
    "message:ignore": _("Message ignored"),
    "message:key_conflict": _("Message that contradicts an earlier one"),
    "message:refused": _("Message refused"),
    "outbox:gap": _("Messages of the injector are missing"),
    "network:change": _("Network settings changed at the injector"),
    "outbox:rename": _("Outbox begun anew"),
    "outbox:room": _("Room for all messages again"),
    "outbox:shed": _("Messages given up for lack of room"),
    "pin:check": _("PIN checked"),
    "pin:set": _("PIN set"),
    "policy:set": _("Policy set"),
    "presence:approve": _("Approved on site"),
    "presence:renew": _("Presence renewed"),
    "remote:off": _("Remote connection switched off"),
    "remote:on": _("Remote connection switched on"),
    "roster:import": _("Roster imported"),
    "roster:update": _("Roster updated"),
    "server:add": _("Access server added"),
    "server:change": _("Access server changed"),
    "server:disable": _("Access server no longer used"),
    "server:enable": _("Access server used"),
    "server:retire": _("Access server retired"),
    "session:accept": _("Request received"),
    "session:answer": _("Signature checked"),
    "session:challenge": _("Challenge made"),
    "session:end": _("Session ended"),
    "session:expire": _("Session expired"),
    "session:forged": _("Signature of the injector that does not verify"),
    "session:hold": _("Session held"),
    "session:presence": _("Approval on site asked for"),
    "session:refuse": _("Session refused"),
    "session:request": _("Access asked for"),
    "session:resume": _("Session resumed"),
    "session:start": _("Session started"),
    "session:wait": _("Waiting for the injector to be free"),
    "token:create": _("API token created"),
    "token:revoke": _("API token revoked"),
}

OUTCOMES: dict[str, Text] = {
    "allowed": pgettext_lazy("outcome", "Allowed"),
    "refused": pgettext_lazy("outcome", "Refused"),
    "failed": pgettext_lazy("outcome", "Failed"),
}

# Why the portal itself refused; the reasons of sessions and jobs have their words there.
REASONS: dict[str, Text] = {
    "account_closed": _("The account is closed"),
    "not_allowed": _("The role does not include this"),
    "second_session": _("There is an open session with this injector already"),
    "services_unknown": _("The injector has not said yet what services it has"),
    "too_many_failures": _("Too many failed sign-ins"),
    "wrong_password": _("Wrong password"),
}

# What selectors.timeline may find that the two sides do not agree on.
DIFFERENCES: dict[str, Text] = {
    "request": _("The injector acted on a request that the portal did not send."),
    "answer": _("The injector acted on a signature that the portal did not pass on."),
    "device_silent": _("The injector’s own record has not arrived yet."),
    "device_open": _("Over here, but the injector has not recorded the end yet."),
    "server_open": _("Over at the injector, but still open here."),
    "start": _("Only one side recorded that the session became active."),
}

# Who acts without being a person with a user name.
ACTORS: dict[str, Text] = {
    "agent": _("Agent"),
    "panel": _("Somebody at the panel"),
    "portal": _("Portal"),
}
