"""Housekeeping of samples."""

from datetime import datetime, timedelta

from fleet.telemetry.models import Sample

RAW_FOR = timedelta(days=7)
_AT_ONCE = 2000  # rows: a deletion must not hold the write lock for long


def forget_old_samples(now: datetime) -> int:
    """Delete some of what is older than RAW_FOR. Returns how many; call again while it is not 0."""
    old = Sample.objects.filter(received_at__lt=now - RAW_FOR).values_list("pk", flat=True)
    count, _by_model = Sample.objects.filter(pk__in=list(old[:_AT_ONCE])).delete()
    return count
