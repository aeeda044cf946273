"""Housekeeping of decisions."""

from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import F, Max
from django.db.models.functions import Greatest

from fleet.mqtt.models import Decision, Outbox

# Devices keep acknowledged messages for seven days; a decision outlives them.
DECISIONS_FOR = timedelta(days=14)
_AT_ONCE = 2000


def forget_old_decisions(now: datetime) -> int:
    """Delete some of the oldest decisions; each outbox's `floor` then stands for them.

    Returns how many. What is at or below the floor counts as decided, so nothing is applied twice.
    """
    rows = Decision.objects.filter(decided_at__lt=now - DECISIONS_FOR).order_by("pk")
    old = list(rows.values_list("pk", flat=True)[:_AT_ONCE])
    if not old:
        return 0
    with transaction.atomic():
        return _forget(old)


def _forget(old: list[int]) -> int:
    floors = (
        Decision.objects.filter(pk__in=old, outbox__isnull=False)
        .order_by()
        .values_list("device", "outbox")
        .annotate(last=Max("seq"))
    )
    for device, outbox, last in list(floors):
        Outbox.objects.filter(device=device, outbox=outbox).update(floor=Greatest(F("floor"), last))
    count, _by_model = Decision.objects.filter(pk__in=old).delete()
    return count
