"""Housekeeping of samples, and of what is wrong now."""

from datetime import datetime, timedelta

from fleet.accounts.models import User
from fleet.inventory.departures import Departure
from fleet.inventory.models import Device
from fleet.telemetry.models import Condition, Sample

RAW_FOR = timedelta(days=7)
_AT_ONCE = 2000  # rows: a deletion must not hold the write lock for long


def forget_old_samples(now: datetime) -> int:
    """Delete some of what is older than RAW_FOR. Returns how many; call again while it is not 0."""
    old = Sample.objects.filter(received_at__lt=now - RAW_FOR).values_list("pk", flat=True)
    count, _by_model = Sample.objects.filter(pk__in=list(old[:_AT_ONCE])).delete()
    return count


def leaving(device: Device, departure: Departure, actor: User, now: datetime) -> None:
    """The device leaves its owner: what is wrong with it now is no longer theirs to see, nor what
    was wrong the next one's. The events stay with those they happened to."""
    if departure is not Departure.MOVED:
        Condition.objects.filter(device=device).delete()
