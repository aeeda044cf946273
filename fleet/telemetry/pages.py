"""The start page: what is wrong now, wherever the reader may look."""

from collections.abc import Iterable
from typing import Any

from django.db.models import Count, Q
from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from agent.wire.catalogue import EventPriority, SessionState
from fleet.access import endings as rosters
from fleet.access.selectors import open_sessions_for
from fleet.accounts.models import User
from fleet.accounts.permissions import Action, allowed, everywhere, restrict
from fleet.core import clock
from fleet.enrolment import alarms, endings
from fleet.inventory.models import Device
from fleet.pages.http import page, person, show, watch_groups
from fleet.telemetry.models import Condition
from fleet.telemetry.selectors import conditions

MAX_ROWS = 100  # of each kind; a longer list is one to filter, on the devices page
_ORDER = [EventPriority.HIGH, EventPriority.MEDIUM, EventPriority.LOW, EventPriority.INFO]


@page
@require_safe
def now(request: HttpRequest) -> HttpResponse:
    user = person(request)
    devices = restrict(
        Device.objects.select_related("site", "product_line").filter(retired_at=None),
        user,
        Action.DEVICE_VIEW,
    )
    counts = devices.aggregate(total=Count("pk"), online=Count("pk", filter=Q(online=True)))
    sessions = list(open_sessions_for(user)[:MAX_ROWS])
    wrong = list(conditions(user)[: MAX_ROWS * 4])
    sounded = list(alarms.standing(user)[:MAX_ROWS])
    ending: list[Any] = []
    if _runs_it(user):
        ending = [*rosters.standing(clock.now()), *endings.standing(clock.now())]
    context = {
        "counts": counts,
        "groups": _by_priority(wrong),
        "total": len(wrong) + len(sounded) + len(ending),
        "alarms": sounded,
        "endings": ending,
        "high": len(sounded) + _count(EventPriority.HIGH, wrong, ending),
        "medium": _count(EventPriority.MEDIUM, wrong, ending),
        "offline": list(devices.filter(online=False).order_by("last_seen_at")[:MAX_ROWS]),
        "active": [s for s in sessions if s.state == SessionState.ACTIVE],
        "waiting": [s for s in sessions if s.state != SessionState.ACTIVE],
        "watch": watch_groups(user),
    }
    return show(request, "telemetry/now.html", context, fragments={"board": "telemetry/board.html"})


def _runs_it(user: User) -> bool:
    """Whether the roster and the certificates of portal and access servers are the reader's
    affair."""
    return allowed(user, Action.SERVER_MANAGE) and everywhere(user)


def _count(priority: EventPriority, *rows: Iterable[Any]) -> int:
    return sum(row.priority == priority for each in rows for row in each)


def _by_priority(rows: list[Condition]) -> list[tuple[str, list[Condition]]]:
    groups = [(p.value, [row for row in rows if row.priority == p]) for p in _ORDER]
    return [(priority, members[:MAX_ROWS]) for priority, members in groups if members]
