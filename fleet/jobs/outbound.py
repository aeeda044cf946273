"""What is owed to a device: jobs that it does not hold, and cancellations it has not confirmed."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from django.db.models import Q

from agent.wire import messages
from agent.wire.catalogue import ExecutionState
from agent.wire.messages import Cancel, Message
from agent.wire.messages import Job as JobMessage
from fleet.core import ports
from fleet.inventory.models import Device
from fleet.jobs.models import Execution

REPEAT_AFTER = timedelta(seconds=3)

_JOB_OWED = Q(state=ExecutionState.QUEUED.value)
# A device that restarted takes its bundle up again when it gets the job again.
_BUNDLE_OWED = Q(state=ExecutionState.RUNNING.value)
_CANCEL_OWED = Q(cancel_owed=True)


def pending(device: Device) -> list[Message]:
    """Everything owed to a device that just connected, oldest first."""
    rows = Execution.objects.filter(_JOB_OWED | _BUNDLE_OWED | _CANCEL_OWED, device=device)
    return [_message(row) for row in rows.order_by("created_at", "pk")]


def send_again(now: datetime) -> None:
    """Repeat to devices on line what they have had time to confirm and have not."""
    settled = now - REPEAT_AFTER
    late = Execution.objects.filter(
        Q(_JOB_OWED, created_at__lte=settled) | Q(_CANCEL_OWED, ended_at__lte=settled),
        device__online=True,
    )
    for row in _few(late):
        ports.send_down(row.device_id, _message(row))


def _few(rows: Iterable[Execution], limit: int = 500) -> list[Execution]:
    """At most `limit`, and not more than a handful for one device: it works them off in turn."""
    chosen: list[Execution] = []
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.device_id] = counts.get(row.device_id, 0) + 1
        if counts[row.device_id] <= 8:
            chosen.append(row)
        if len(chosen) == limit:
            break
    return chosen


def _message(execution: Execution) -> Message:
    return cancel_message(execution) if execution.cancel_owed else job_message(execution)


def job_message(execution: Execution) -> Message:
    return messages.decode_down(JobMessage.TYPE, JobMessage.VERSION, bytes(execution.message))


def cancel_message(execution: Execution) -> Cancel:
    return Cancel(execution=execution.pk)
