"""What becomes of a bundle: announced, fetched in attempts, stored or turned away."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from django.conf import settings
from django.db import transaction
from django.db.models import F
from django.http import FileResponse

from agent.wire.catalogue import ExecutionState, JobReason
from fleet.jobs.ending import close, locked
from fleet.jobs.models import Execution
from fleet.jobs.transitions import move

FOLDER = "bundles"  # under PATENCY_DATA


@dataclass(frozen=True, slots=True)
class Attempt:
    """What it takes to fetch a bundle once. `number` is the stream's, never used before."""

    execution: str
    device: str
    number: int
    private_key: bytes
    device_key: bytes
    binding: bytes  # SHA-256 of the job message
    digest: str
    size: int
    not_after: datetime


def begin_attempt(pk: str) -> Attempt | None:
    """Take the next stream number for an announced bundle; None when none is due."""
    with transaction.atomic():
        rows = Execution.objects.filter(
            pk=pk, state=ExecutionState.RUNNING.value, bundle_size__isnull=False
        )
        if not rows.update(attempt=F("attempt") + 1):
            return None
        row = rows.get()
        return Attempt(
            execution=row.pk,
            device=row.device_id,
            number=row.attempt,
            private_key=bytes(row.private_key),
            device_key=bytes(row.device_key),
            binding=bytes.fromhex(row.message_digest),
            digest=row.bundle_digest,
            size=row.bundle_size or 0,
            not_after=row.not_after,
        )


def file_name(execution: str) -> str:
    return f"{execution}.zip"


def folder() -> Path:
    """Where bundles are kept; made if need be."""
    folder = Path(settings.PATENCY_DATA) / FOLDER
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def arrived(attempt: Attempt, *, now: datetime) -> bool:
    """The checked bundle stands under its name: the execution has succeeded. False when it is over
    otherwise, or another bundle is announced by now, and the file is not wanted."""
    with transaction.atomic():
        execution = locked(attempt.execution)
        if execution is None or execution.state != ExecutionState.RUNNING.value:
            return False
        if execution.bundle_digest != attempt.digest:
            return False
        return move(
            execution,
            ExecutionState.SUCCEEDED,
            actor=execution.device_id,
            digest=execution.bundle_digest,
            now=now,
            bundle_path=f"{FOLDER}/{file_name(execution.pk)}",
        )


def failed(attempt: Attempt, reason: JobReason, *, now: datetime) -> None:
    """The bundle is not what it should be, and would not be the next time."""
    with transaction.atomic():
        execution = locked(attempt.execution)
        if execution is None or execution.over:
            return
        if execution.bundle_digest == attempt.digest:
            close(execution, ExecutionState.FAILED, actor="portal", reason=reason, now=now)


def response(path: Path, execution: Execution) -> FileResponse:
    """The file under a name that a person can file, the same wherever it comes from."""
    name = f"{execution.device.serial}-{execution.created_at:%Y-%m-%d}-{execution.pk[:8]}.zip"
    return FileResponse(
        path.open("rb"), as_attachment=True, filename=name, content_type="application/zip"
    )
