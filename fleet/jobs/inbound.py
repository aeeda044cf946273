"""What devices say about executions, applied inside the ingest's transaction."""

from datetime import datetime

from django.db import transaction

from agent.wire.bundle import MAX_BUNDLE
from agent.wire.catalogue import ExecutionState, JobReason, RefusalReason
from agent.wire.messages import Accepted
from agent.wire.messages import Execution as Progress
from fleet.core import ports
from fleet.core.errors import MessageRefused
from fleet.inventory.models import Device
from fleet.jobs import outbound
from fleet.jobs.ending import close
from fleet.jobs.models import Execution
from fleet.jobs.transitions import claim, may_move, move, tell
from fleet.jobs.wanted import wanted


def execution(device: Device, message: Progress, received_at: datetime) -> None:
    """A step of a job on a device. Raises MessageRefused."""
    row = _execution(device, message.execution)
    if (message.key is None) != (message.bundle is None):
        raise MessageRefused(RefusalReason.MALFORMED)
    if message.key is not None and message.state is not ExecutionState.RUNNING:
        raise MessageRefused(RefusalReason.MALFORMED)
    if row.over:
        _after_the_end(row, message)
        return
    if message.state is ExecutionState.SUCCEEDED:
        # The bundle says so, not the device: the last of it is acknowledged once it is stored,
        # so that an honest device cannot be through before we are.
        raise MessageRefused(RefusalReason.ILLEGAL_TRANSITION)
    if message.state.value == row.state:
        _same_state(row, message)
    else:
        _changed(row, message, received_at)
    if message.bundle is not None:
        _announced(row, message, received_at)


def _changed(row: Execution, message: Progress, received_at: datetime) -> None:
    if not may_move(row, message.state):
        raise MessageRefused(RefusalReason.ILLEGAL_TRANSITION)
    move(
        row,
        message.state,
        actor=row.device_id,
        reason=message.reason,
        now=received_at,
        accepted_at=row.accepted_at or received_at,
    )
    if message.state.over:
        transaction.on_commit(lambda: wanted.drop(row.pk), robust=True)


def _same_state(row: Execution, message: Progress) -> None:
    """The same again, or deferred for another reason."""
    reason = message.reason.value if message.reason else ""
    if reason != row.reason and claim(row, {"reason": reason}):
        tell(row)


def _announced(row: Execution, message: Progress, received_at: datetime) -> None:
    """The bundle is ready at the device: fetch it, unless it is too large."""
    bundle = message.bundle
    if bundle is None or message.key is None:
        return
    if not 1 <= bundle.size <= MAX_BUNDLE:
        close(
            row,
            ExecutionState.FAILED,
            actor="portal",
            reason=JobReason.TOO_LARGE,
            now=received_at,
        )
        return
    fields = {
        "device_key": message.key,
        "bundle_digest": bundle.digest,
        "bundle_size": bundle.size,
    }
    if any(getattr(row, name) != value for name, value in fields.items()):
        claim(row, fields)
        tell(row)
    transaction.on_commit(lambda: wanted.want(row.pk), robust=True)


def _after_the_end(row: Execution, message: Progress) -> None:
    """Over here. Over there too: nothing is owed any more. Otherwise the two crossed, and the
    device is told again."""
    if message.state.over:
        Execution.objects.filter(pk=row.pk, cancel_owed=True).update(cancel_owed=False)
        return
    Execution.objects.filter(pk=row.pk).update(cancel_owed=True)
    ports.send_down(row.device_id, outbound.cancel_message(row))


def accepted(device: Device, message: Accepted, received_at: datetime) -> None:
    """The device holds a job or a cancellation. Raises MessageRefused."""
    row = _execution(device, message.ref)
    if message.of == "cancel":
        Execution.objects.filter(pk=row.pk, cancel_owed=True).update(cancel_owed=False)
        return
    if message.of != "job" or message.digest != row.message_digest:
        raise MessageRefused(RefusalReason.UNKNOWN_REFERENCE)
    if row.state == ExecutionState.QUEUED.value:
        move(
            row,
            ExecutionState.SENT,
            actor=row.device_id,
            now=received_at,
            accepted_at=received_at,
        )


def _execution(device: Device, id: str) -> Execution:
    row = (
        Execution.objects.select_related("organisation", "device")
        .filter(pk=id, device=device)
        .first()
    )
    if row is None:
        raise MessageRefused(RefusalReason.UNKNOWN_REFERENCE)
    return row
