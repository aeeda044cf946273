"""Reads of telemetry; every queryset passes `restrict` before it comes here or in the caller."""

from datetime import datetime

from django.db.models import QuerySet

from fleet.accounts.models import User
from fleet.accounts.permissions import Action, restrict
from fleet.inventory.models import Device
from fleet.telemetry.models import Condition, Event, Sample


def events(user: User, device: Device | None = None) -> QuerySet[Event]:
    """Events that the user may see, newest first."""
    rows = restrict(Event.objects.select_related("device"), user, Action.EVENT_VIEW)
    return rows if device is None else rows.filter(device=device)


def conditions(user: User, device: Device | None = None) -> QuerySet[Condition]:
    """What is wrong now where the user may see it, newest first."""
    rows = restrict(
        Condition.objects.select_related("device__site", "device__product_line", "organisation"),
        user,
        Action.EVENT_VIEW,
    )
    return rows if device is None else rows.filter(device=device)


def samples(user: User, device: Device, *, since: datetime) -> QuerySet[Sample]:
    """Stored samples of a device from `since` on, oldest first."""
    rows = restrict(Sample.objects.all(), user, Action.DEVICE_VIEW)
    return rows.filter(device=device, at__gte=since).order_by("at")
