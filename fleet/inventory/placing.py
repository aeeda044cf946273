"""Whose a row is: the organisation that had the device at the row's own moment (R-CON-9).

Theory of operation. An outbox outlives a transfer: what a device recorded at its former owner's and
had not sent comes in under the new one's. So a row of a device that has changed hands is not filed
by the day it arrives but by the moment it was made, which the portal works out by itself, since a
device's wall clock may say anything:

* Each message names its boot and the time since then. From the hellos of a boot the portal knows
  when it began, by its own clock; the earliest reading counts, as every delay makes it later. That
  places a row to some seconds, however wrong the device's date is.
* Of a boot that the portal never heard, there is the wall clock, put right by as much as it was
  wrong when it was last heard. It is believed to a day, and not beyond what can be: a row was made
  after the device was enrolled, and before the present boot began.

What comes out is a span. When one organisation alone had the device in all of it, the row is that
one's. Otherwise it belongs to nobody: it is kept for the vendor, and no hospital sees it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from agent.wire.messages import Hello
from fleet.core import clock
from fleet.inventory import metrics
from fleet.inventory.models import Boot, Device, Ownership

SLACK = timedelta(seconds=10)  # of a moment told by a boot that was heard
DRIFT = 1e-4  # of the time between that moment and the reading
DOUBT = timedelta(days=1)  # of a moment told by a wall clock that nobody could check
KEPT = 16  # boots of a device that are remembered
_LONGEST_MS = 100 * 365 * 86_400_000  # a boot does not last longer, whatever a message says


@dataclass(frozen=True, slots=True)
class Reading:
    """What was heard of a boot: when it began by our clock, when that was heard, and by how many
    milliseconds our clock was ahead of the device's."""

    started_at: datetime
    heard_at: datetime
    ahead_ms: int


@dataclass(frozen=True, slots=True)
class Interval:
    """`ends_at` None: still."""

    organisation: str
    starts_at: datetime
    ends_at: datetime | None


@dataclass(frozen=True, slots=True)
class Stamp:
    """Of a message, a sample or an audit entry, as the device wrote it."""

    at: int
    boot: str
    uptime_ms: int


def span(
    stamp: Stamp,
    boots: Mapping[str, Reading],
    *,
    since: datetime,
    received_at: datetime,
) -> tuple[datetime, datetime]:
    """The earliest and the latest moment at which it can have been made. Pure.

    `boots` are those heard of the device, the newest last; `since` is when it was enrolled."""
    known = boots.get(stamp.boot)
    if known is not None:
        made = known.started_at + timedelta(milliseconds=min(stamp.uptime_ms, _LONGEST_MS))
        slack = SLACK + abs(made - known.heard_at) * DRIFT
        made = min(made, received_at)
        return made - slack, min(made + slack, received_at)
    newest = next(iter([*boots.values()][-1:]), None)
    latest = newest.started_at if newest is not None else received_at
    ahead_ms = newest.ahead_ms if newest is not None else 0
    made = clock.from_ms(max(0, stamp.at + ahead_ms))
    if made + DOUBT < since or made - DOUBT > latest:
        return since, latest  # its clock was wrong then: no more is known than this
    return max(made - DOUBT, since), min(made + DOUBT, latest)


def owner_within(intervals: Sequence[Interval], earliest: datetime, latest: datetime) -> str | None:
    """The one organisation that had it in all of the span, or None. Pure.

    What is said to be from before the first of them is the first one's: the device was on its way.
    """
    latest = max(latest, intervals[0].starts_at) if intervals else latest
    found = {
        each.organisation
        for each in intervals
        if each.starts_at <= latest and (each.ends_at is None or each.ends_at > earliest)
    }
    return found.pop() if len(found) == 1 else None


class Placer:
    """Places the rows of one transaction; a device that never changed hands costs no look-up."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[dict[str, Reading], list[Interval]]] = {}

    def owner(self, device: Device, stamp: Stamp, received_at: datetime) -> str | None:
        """The id of the organisation that the row is of; None when nobody can tell."""
        if device.transferred_at is None:
            return device.organisation_id
        boots, intervals = self._of(device.pk)
        since = intervals[0].starts_at if intervals else device.created_at
        found = owner_within(intervals, *span(stamp, boots, since=since, received_at=received_at))
        if found is None:
            metrics.UNPLACED.inc()
        return found

    def _of(self, device: str) -> tuple[dict[str, Reading], list[Interval]]:
        known = self._known.get(device)
        if known is None:
            heard = Boot.objects.filter(device=device).order_by("pk")
            boots = {row.boot: Reading(row.started_at, row.heard_at, row.ahead_ms) for row in heard}
            rows = Ownership.objects.filter(device=device).order_by("starts_at", "pk")
            intervals = [Interval(row.organisation_id, row.starts_at, row.ends_at) for row in rows]
            known = self._known[device] = boots, intervals
        return known


def heard(device: Device, message: Hello, received_at: datetime) -> None:
    """The device has said hello: what that tells of its boot, unless as much is known already."""
    began = received_at - timedelta(milliseconds=min(message.uptime_ms, _LONGEST_MS))
    reading = {
        "started_at": began,
        "heard_at": received_at,
        "ahead_ms": clock.to_ms(received_at) - message.at,
    }
    rows = Boot.objects.filter(device=device, boot=message.boot)
    before = rows.values_list("started_at", flat=True).first()
    if before is None:
        Boot.objects.create(device=device, boot=message.boot, **reading)
        older = Boot.objects.filter(device=device).order_by("-pk").values_list("pk", flat=True)
        Boot.objects.filter(pk__in=list(older[KEPT:])).delete()
    elif began < before:
        rows.update(**reading)
