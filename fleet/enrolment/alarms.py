"""Alarms about credentials: sounded once, shown until a person has seen to it."""

from datetime import datetime

from django.db import IntegrityError, transaction
from django.db.models import QuerySet

from agent.wire.catalogue import Outcome
from fleet.accounts.models import User
from fleet.accounts.permissions import Action, require, restrict
from fleet.audit import services as audit
from fleet.core import ports
from fleet.enrolment import metrics
from fleet.enrolment.models import Alarm, AlarmKind
from fleet.inventory.models import Device

SOUNDED = "credential:alarm"
CLOSED = "credential:alarm_closed"


def sound(device: Device, kind: AlarmKind, *, now: datetime) -> bool:
    """Raise the alarm, unless it stands already."""
    try:
        with transaction.atomic():
            Alarm.objects.create(
                device=device, organisation=device.organisation, kind=kind, raised_at=now
            )
            audit.record(
                organisation=device.organisation,
                actor="portal",
                action=SOUNDED,
                outcome=Outcome.REFUSED,
                device=device,
                reason=kind.value,
                now=now,
            )
            _hint(device)
    except IntegrityError:
        return False
    metrics.ALARMS.labels(kind.value).inc()
    return True


def of(device_id: str, kind: AlarmKind, now: datetime) -> None:
    """Sound it for the device of this id. Nobody is cut: nobody knows who is who."""
    device = Device.objects.select_related("organisation").filter(pk=device_id).first()
    if device is not None:
        sound(device, kind, now=now)


def standing(user: User, device: Device | None = None) -> QuerySet[Alarm]:
    """What stands, for one device or for all, where the user may see it; newest first."""
    rows = Alarm.objects.select_related("device__site", "device__product_line")
    rows = restrict(rows, user, Action.EVENT_VIEW).filter(closed_at=None)
    return rows if device is None else rows.filter(device=device)


def acknowledge(*, actor: User, device: Device, now: datetime) -> int:
    """An administrator has looked into the device's alarms. Returns how many. Raises NotAllowed."""
    require(actor, Action.DEVICE_REVOKE)
    return close(device, actor=actor, now=now)


def close(device: Device, *, actor: User, now: datetime) -> int:
    """Close what stands, because what it was about is settled."""
    with transaction.atomic():
        rows = Alarm.objects.filter(device=device, closed_at=None)
        count = rows.update(closed_at=now, closed_by=actor)
        if count:
            audit.record(
                organisation=device.organisation,
                actor=actor,
                action=CLOSED,
                outcome=Outcome.ALLOWED,
                device=device,
                now=now,
            )
            _hint(device)
    return count


def _hint(device: Device) -> None:
    payload = {"kind": "event", "device": device.pk}  # as any news of what is wrong
    ports.hint(f"device.{device.pk}", payload)
    ports.hint(f"organisation.{device.organisation_id}", payload)
    ports.hint("fleet", payload)
