"""When a certificate ends, and how soon that is: the same days wherever it is said.

A certificate that ends takes every injector behind it off line at once, so that its end is told in
time, and more loudly as it comes near.
"""

from datetime import date, datetime, timedelta
from enum import StrEnum
from pathlib import Path

from cryptography import x509

SOON = timedelta(days=60)
URGENT = timedelta(days=14)


class Urgency(StrEnum):
    NONE = "none"  # nothing to say
    SOON = "soon"
    URGENT = "urgent"
    OVER = "over"


def urgency(ends_at: datetime, now: datetime) -> Urgency:
    left = ends_at - now
    if left <= timedelta(0):
        return Urgency.OVER
    if left <= URGENT:
        return Urgency.URGENT
    return Urgency.SOON if left <= SOON else Urgency.NONE


def days_left(ends_at: datetime, now: datetime) -> int:
    """Whole days; 0 on the last, and when it is over."""
    return max(0, (ends_at - now).days)


def of_file(path: Path) -> datetime:
    """When the certificate in a PEM file ends. Raises: OSError, ValueError."""
    return x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc


class Reminder:
    """Remembers what was said: each thing once a day, and again when it has become more urgent."""

    def __init__(self) -> None:
        self._said: dict[str, tuple[date, Urgency]] = {}

    def due(self, what: str, ends_at: datetime, now: datetime) -> Urgency | None:
        """How urgent it is when it is to be said now; None when there is nothing to say."""
        how = urgency(ends_at, now)
        if how is Urgency.NONE:
            self._said.pop(what, None)
            return None
        saying = (now.date(), how)
        if self._said.get(what) == saying:
            return None
        self._said[what] = saying
        return how
