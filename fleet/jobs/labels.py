"""Words for the codes of jobs, for people."""

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from agent.wire.catalogue import ExecutionState, JobKind, JobReason

Labels = str | Promise

KINDS: dict[JobKind, Labels] = {
    JobKind.COLLECT_DIAGNOSTICS: _("Collect diagnostics"),
}

STATES: dict[ExecutionState, Labels] = {
    ExecutionState.QUEUED: _("Queued"),
    ExecutionState.SENT: _("Held by the injector"),
    ExecutionState.RUNNING: _("Running"),
    ExecutionState.SUCCEEDED: _("Succeeded"),
    ExecutionState.FAILED: _("Failed"),
    ExecutionState.TIMED_OUT: _("Out of time"),
    ExecutionState.REJECTED: _("Rejected"),
    ExecutionState.CANCELLED: _("Cancelled"),
}

REASONS: dict[JobReason, Labels] = {
    JobReason.IN_USE: _("Deferred: the injector is in use"),
    JobReason.UNKNOWN_KIND: _("The injector does not know this kind of job"),
    JobReason.POLICY: _("The site’s policy does not allow it"),
    JobReason.REMOTE_OFF: _("Remote connection is switched off at the injector"),
    JobReason.DISK_FULL: _("The injector’s disk is full"),
    JobReason.INTERNAL: _("Something went wrong at the injector"),
    JobReason.DEADLINE: _("The time allowed is over"),
    JobReason.SCHEMA: _("The bundle held something that its schema does not allow"),
    JobReason.TOO_LARGE: _("The bundle is larger than allowed"),
    JobReason.ALTERED: _("The bundle is not the one the injector announced"),
}
