"""The one way an execution changes: claimed, counted, audited, hinted; see EXECUTION_TRANSITIONS.

    queued ─▶ sent ─▶ running ─▶ succeeded
       └───────┴─────────┴─────▶ failed | rejected | timed_out | cancelled

`sent` means that the device holds the job; with the reason `in_use`, that it waits for the end of
the injector's use. `succeeded` is never the device's word alone: it is the bundle, checked and
stored. Whatever else ends an execution here leaves a Cancel owed to the device.
"""

from datetime import datetime
from typing import Any

from django.db.models import F

from agent.wire.catalogue import EXECUTION_TRANSITIONS, ExecutionState, JobReason, Outcome
from fleet.audit import services as audit
from fleet.core import ports
from fleet.jobs.models import Execution

ACTIONS: dict[ExecutionState, str] = {
    ExecutionState.QUEUED: "job:create",
    ExecutionState.SENT: "job:accept",
    ExecutionState.RUNNING: "job:run",
    ExecutionState.SUCCEEDED: "job:succeed",
    ExecutionState.FAILED: "job:fail",
    ExecutionState.TIMED_OUT: "job:time_out",
    ExecutionState.REJECTED: "job:reject",
    ExecutionState.CANCELLED: "job:cancel",
}
_FAILED = frozenset({ExecutionState.FAILED, ExecutionState.TIMED_OUT})


class IllegalTransitionError(ValueError):
    """The table has no such arrow: a fault of the caller's, or a device's lie."""


def may_move(execution: Execution, to: ExecutionState) -> bool:
    return to in EXECUTION_TRANSITIONS[ExecutionState(execution.state)]


def move(
    execution: Execution,
    to: ExecutionState,
    *,
    actor: str,
    now: datetime,
    reason: JobReason | None = None,
    digest: str | None = None,
    **fields: Any,
) -> bool:
    """Take the execution to a new state, in the caller's transaction. `digest` for the audit is the
    job message's unless it is given.

    False when the row is no longer in the state that `execution` says; nothing was changed then.
    Raises IllegalTransitionError.
    """
    if not may_move(execution, to):
        raise IllegalTransitionError(f"{execution.state} to {to}")
    fields |= {"state": to.value, "reason": reason.value if reason else ""}
    if to is ExecutionState.RUNNING:
        fields["started_at"] = now
    if to.over:
        fields |= {"ended_at": now, "private_key": b""}
    if not claim(execution, fields):
        return False
    record(execution, actor=actor, reason=reason, digest=digest, now=now)
    tell(execution)
    return True


def claim(execution: Execution, fields: dict[str, Any]) -> bool:
    """Write the fields if the row is still in the state that `execution` says."""
    rows = Execution.objects.filter(pk=execution.pk, state=execution.state)
    if rows.update(version=F("version") + 1, **fields) != 1:
        return False
    for name, value in fields.items():
        setattr(execution, name, value)
    execution.version += 1
    return True


def record(
    execution: Execution,
    *,
    actor: str,
    now: datetime,
    reason: JobReason | None = None,
    digest: str | None = None,
) -> None:
    state = ExecutionState(execution.state)
    refused = Outcome.REFUSED if state is ExecutionState.REJECTED else Outcome.ALLOWED
    audit.record(
        organisation=execution.organisation,
        actor=actor,
        action=ACTIONS[state],
        outcome=Outcome.FAILED if state in _FAILED else refused,
        device=execution.device,
        execution=execution.pk,
        reason=reason.value if reason else None,
        digest=digest or execution.message_digest,
        now=now,
    )


def tell(execution: Execution) -> None:
    """Hint to the pages of the execution, its device and its organisation."""
    payload = {
        "kind": "execution",
        "execution": execution.pk,
        "job": execution.job_id,
        "device": execution.device_id,
        "state": execution.state,
        "version": execution.version,
    }
    for group in (
        f"execution.{execution.pk}",
        f"device.{execution.device_id}",
        f"organisation.{execution.organisation_id}",
    ):
        ports.hint(group, payload)
