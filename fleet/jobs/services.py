"""What people do with jobs, and what time does."""

import hashlib
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from django.conf import settings
from django.db import transaction
from django.utils.translation import gettext as _

from agent.wire import messages
from agent.wire.catalogue import ExecutionState, JobKind, JobReason, Outcome
from agent.wire.messages import Job as JobMessage
from fleet.accounts.models import User
from fleet.accounts.permissions import Action, everywhere, require
from fleet.audit import services as audit
from fleet.core import clock, ports
from fleet.core.errors import Conflict, Invalid, NotAllowed, NotFound
from fleet.core.ids import new_hex32
from fleet.inventory.departures import Departure
from fleet.inventory.models import Device
from fleet.jobs import outbound
from fleet.jobs.ending import close, locked
from fleet.jobs.models import OPEN_STATES, Execution, Job
from fleet.jobs.transitions import record, tell
from fleet.jobs.wanted import wanted

MAX_HOURS = 168
MAX_DEVICES = 1000
DEFAULT_LIFE = timedelta(hours=24)  # injectors are in use all day; the night must be in it


def create(
    *,
    actor: User,
    kind: JobKind | str,
    hours: int,
    devices: Iterable[Device],
    now: datetime,
    chosen: dict[str, Any] | None = None,
    life: timedelta = DEFAULT_LIFE,
    once: str | None = None,
) -> Job:
    """Queue a job for devices that the caller has taken from `restrict`. `hours` is how far back
    diagnostics reach; `chosen` is the filter as it was asked; with the same `once` the same job is
    made once, and returned again. Raises NotAllowed, Invalid, Conflict."""
    require(actor, Action.JOB_CREATE)
    targets = list(devices)
    _check(actor, targets, hours)
    job = Job(
        kind=_kind(kind).value,
        hours=hours,
        filter=chosen or {},
        once=once or None,
        created_by=actor,
        created_at=now,
        not_after=now + life,
    )
    with transaction.atomic():
        if once and (earlier := Job.objects.filter(once=once).first()) is not None:
            return _same(earlier, job, targets)
        job.save(force_insert=True)
        executions = [_execution(job, device) for device in targets]
        Execution.objects.bulk_create(executions)
        for execution in executions:
            record(execution, actor=actor.username, now=now)
            ports.send_down(execution.device_id, outbound.job_message(execution))
            tell(execution)
    return job


def _same(earlier: Job, job: Job, devices: list[Device]) -> Job:
    """The job that the form made the first time, if this is no more than its second time."""
    asked = earlier.executions.values_list("device_id", flat=True)
    if all(
        getattr(earlier, name) == getattr(job, name)
        for name in ("kind", "hours", "filter", "created_by_id")
    ) and set(asked) == {device.pk for device in devices}:
        return earlier
    raise Conflict(
        _("This form has made a job already, and now says something else. Open “New job” again.")
    )


def _check(actor: User, devices: list[Device], hours: int) -> None:
    if not devices:
        raise Invalid(_("No injector was chosen. Choose at least one."))
    if len(devices) > MAX_DEVICES or len({device.pk for device in devices}) != len(devices):
        raise Invalid(_("Choose at most 1,000 injectors, each once."))
    if any(device.retired_at is not None for device in devices):
        raise Invalid(_("One of these injectors is retired. Leave it out."))
    if not 1 <= hours <= MAX_HOURS:
        raise Invalid(_("Diagnostics reach from 1 to 168 hours back. Choose another number."))
    if not everywhere(actor) and any(
        device.organisation_id != actor.organisation_id for device in devices
    ):
        raise NotAllowed(_("One of these injectors belongs to another organisation."))


def _kind(kind: JobKind | str) -> JobKind:
    try:
        return JobKind(kind)
    except ValueError:
        raise Invalid(
            _("There is no such kind of job. Choose one of: %(kinds)s.")
            % {"kinds": ", ".join(JobKind)}
        ) from None


def _execution(job: Job, device: Device) -> Execution:
    private = X25519PrivateKey.generate()
    execution = new_hex32()
    payload = messages.encode(
        JobMessage(
            execution=execution,
            kind=JobKind(job.kind),
            hours=job.hours,
            not_after=clock.to_ms(job.not_after),
            key=private.public_key().public_bytes_raw(),
        )
    )
    return Execution(
        id=execution,
        job=job,
        device=device,
        organisation=device.organisation,
        message=payload,
        message_digest=hashlib.sha256(payload).hexdigest(),
        private_key=private.private_bytes_raw(),
        created_at=job.created_at,
        not_after=job.not_after,
    )


def cancel(*, actor: User, execution: Execution, now: datetime) -> Execution:
    """Cancel an execution; one that is over stays as it is, and a Conflict says so.

    Raises NotAllowed, Conflict.
    """
    require(actor, Action.JOB_CANCEL)
    if not everywhere(actor) and execution.organisation_id != actor.organisation_id:
        raise NotAllowed(_("This injector belongs to another organisation."))
    with transaction.atomic():
        execution.refresh_from_db(fields=["state", "version"])
        if execution.state == ExecutionState.CANCELLED.value:
            return execution
        if execution.over:
            raise Conflict(_("It is over already: %(state)s.") % {"state": execution.state_label})
        close(execution, ExecutionState.CANCELLED, actor=actor.username, now=now)
    return execution


def leaving(device: Device, departure: Departure, actor: User, now: datetime) -> None:
    """The device leaves its owner or its site: what was to run on it does not."""
    for pk in Execution.objects.filter(device=device, state__in=OPEN_STATES).values_list(
        "pk", flat=True
    ):
        execution = locked(pk)
        if execution is not None and not execution.over:
            close(execution, ExecutionState.CANCELLED, actor=actor.username, now=now)


def tick(now: datetime) -> None:
    """Time out what is too late, send again what is owed, ask again for bundles that are due."""
    late = Execution.objects.filter(not_after__lte=now, state__in=OPEN_STATES)
    for pk in late.values_list("pk", flat=True)[:500]:
        with transaction.atomic():
            execution = locked(pk)
            if execution is not None and not execution.over and execution.not_after <= now:
                close(
                    execution,
                    ExecutionState.TIMED_OUT,
                    actor="portal",
                    reason=JobReason.DEADLINE,
                    now=now,
                )
    outbound.send_again(now)
    due = Execution.objects.filter(
        state=ExecutionState.RUNNING.value, bundle_size__isnull=False, device__online=True
    )
    for pk in due.values_list("pk", flat=True)[:100]:
        wanted.remind(pk)


def download(*, actor: User, execution: Execution, now: datetime) -> Path:
    """The bundle's file, once the download is on record. Raises NotAllowed, Conflict, NotFound."""
    require(actor, Action.BUNDLE_DOWNLOAD)
    if not everywhere(actor) and execution.organisation_id != actor.organisation_id:
        raise NotAllowed(_("This injector belongs to another organisation."))
    if not execution.bundle_path:
        raise Conflict(_("There is no bundle yet. Wait until the state is “succeeded”."))
    path = Path(settings.PATENCY_DATA) / execution.bundle_path
    if not path.is_file():
        raise NotFound(_("The bundle is no longer kept. Run the job again."))
    audit.record(
        organisation=execution.organisation,
        actor=actor,
        action="bundle:download",
        outcome=Outcome.ALLOWED,
        device=execution.device,
        execution=execution.pk,
        digest=execution.bundle_digest,
        now=now,
    )
    return path
