"""How an execution is ended from here."""

from datetime import datetime

from django.db import transaction

from agent.wire.catalogue import ExecutionState, JobReason
from fleet.core import ports
from fleet.jobs import outbound
from fleet.jobs.models import Execution
from fleet.jobs.transitions import move
from fleet.jobs.wanted import wanted


def locked(pk: str) -> Execution | None:
    """The row with what a change of it needs; in a transaction that holds the write lock."""
    return Execution.objects.select_related("device", "organisation").filter(pk=pk).first()


def close(
    execution: Execution,
    to: ExecutionState,
    *,
    actor: str,
    now: datetime,
    reason: JobReason | None = None,
) -> bool:
    """End an execution, in the caller's transaction; the device is told until it has confirmed.
    False when it had changed meanwhile."""
    if not move(execution, to, actor=actor, reason=reason, now=now, cancel_owed=True):
        return False
    ports.send_down(execution.device_id, outbound.cancel_message(execution))
    transaction.on_commit(lambda: wanted.drop(execution.pk), robust=True)
    return True
