"""The list of devices, and the page of one."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_safe

from agent.wire.catalogue import ClinicalState, Level
from fleet.access.labels import LEVELS
from fleet.access.selectors import sessions_for
from fleet.accounts.models import User
from fleet.accounts.permissions import Action, allowed, restrict
from fleet.core import clock
from fleet.enrolment import alarms, credentials
from fleet.inventory.models import Device, ProductLine, Site
from fleet.inventory.search import DeviceFilter, find
from fleet.jobs.selectors import executions_for
from fleet.pages.http import is_partial, page, paginate, person, show, watch_groups
from fleet.telemetry import charts
from fleet.telemetry.labels import CLINICAL_STATES
from fleet.telemetry.models import Sample
from fleet.telemetry.selectors import conditions, events, samples

RECENT = 20  # events and the like on a device's page
HISTORY = timedelta(hours=1)
MAX_SAMPLES = 2000
TABLE_ROWS = 30


@page
@require_safe
def devices(request: HttpRequest) -> HttpResponse:
    """Search and filter. Works as a plain form; htmx only saves the reload."""
    user = person(request)
    visible = restrict(
        Device.objects.select_related("site", "product_line", "organisation"),
        user,
        Action.DEVICE_VIEW,
    )
    chosen = DeviceFilter.read(request.GET)
    context: dict[str, Any] = {
        "page": paginate(request, find(visible, chosen)),
        "chosen": chosen,
        "watch": watch_groups(user),
    }
    if not is_partial(request, "list"):
        context |= {
            "product_lines": ProductLine.objects.all(),
            "sites": restrict(
                Site.objects.select_related("organisation"), user, Action.DEVICE_VIEW
            ),
            "states": [(state.value, CLINICAL_STATES[state]) for state in ClinicalState],
        }
    return show(
        request, "inventory/devices.html", context, fragments={"list": "inventory/list.html"}
    )


@page
@require_safe
def device(request: HttpRequest, device: str) -> HttpResponse:
    user = person(request)
    row = get_object_or_404(_visible(request), pk=device)
    may = {
        "watch": allowed(user, Action.DEVICE_WATCH),
        "request": allowed(user, Action.ACCESS_REQUEST) and row.retired_at is None,
        "job": allowed(user, Action.JOB_CREATE) and row.retired_at is None,
    }
    head = {
        "device": row,
        "conditions": conditions(user, row),
        "alarms": alarms.standing(user, row),
        "may": may,
    }
    for target in ("head", "wrong"):
        if is_partial(request, target):
            return render(request, f"inventory/device_{target}.html", head)
    activity = {
        "device": row,
        "events": events(user, row)[:RECENT],
        "sessions": sessions_for(user).filter(device=row)[:5],
        "executions": executions_for(user).filter(device=row)[:5],
    }
    if is_partial(request, "activity"):
        return render(request, "inventory/device_activity.html", activity)
    services = [(name, LEVELS[Level(level)]) for name, level in sorted(row.services.items())]
    context = {
        **head,
        **activity,
        **_measures(user, row),
        "services": services,
        "certificate": credentials.current(row),
    }
    return show(request, "inventory/device.html", context)


def _visible(request: HttpRequest) -> Any:
    return restrict(
        Device.objects.select_related("site", "product_line", "organisation"),
        person(request),
        Action.DEVICE_VIEW,
    )


@dataclass(frozen=True, slots=True)
class Row:
    """One sample as a row of the table: a value, or None, for each column."""

    sample: Sample
    cells: list[tuple[str, float | None]]


def _measures(user: User, device: Device) -> dict[str, Any]:
    """Charts and readings by what the newest sample holds; the newest samples as a table."""
    rows = restrict(Sample.objects.filter(device=device), user, Action.DEVICE_VIEW)
    newest = list(rows.order_by("-at")[:TABLE_ROWS])
    values = newest[0].values if newest else {}
    shown = charts.charts(values or charts.DEFAULT_METRICS)
    columns = [series for chart in shown for series in chart.series]
    return {
        "charts": [(chart, charts.as_json(chart.series), values) for chart in shown],
        "columns": columns,
        "rows": [
            Row(sample, [(s.metric, sample.values.get(s.metric)) for s in columns])
            for sample in newest
        ],
        "newest": newest[0] if newest else None,
        "readings": charts.readings(values),
    }


@page
@require_safe
def device_samples(request: HttpRequest, device: str) -> HttpResponse:
    """The stored samples of the last hour, for the charts; oldest first, bounded."""
    row = get_object_or_404(_visible(request), pk=device)
    since = clock.now() - HISTORY
    rows = samples(person(request), row, since=since).order_by("-at")[:MAX_SAMPLES]
    found = [
        {"at": clock.to_ms(sample.at), "state": sample.state, "values": sample.values}
        for sample in reversed(rows)
    ]
    return JsonResponse({"samples": found})
