"""The page of an injector's credential: certificates, alarms, and what ends or moves it."""

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_POST, require_safe

from fleet.accounts.permissions import Action, allowed, restrict
from fleet.core import clock
from fleet.enrolment import alarms, credentials
from fleet.enrolment.forms import MoveForm
from fleet.inventory import departures
from fleet.inventory.models import Device, Site
from fleet.pages.http import page, person, show

_SHOWN = 20  # certificates


@page
@require_safe
def identity(request: HttpRequest, device: str) -> HttpResponse:
    user = person(request)
    row = _find(request, device, Action.DEVICE_VIEW)
    may = {
        "revoke": allowed(user, Action.DEVICE_REVOKE) and row.retired_at is None,
        "move": allowed(user, Action.DEVICE_MOVE) and row.retired_at is None,
    }
    context = {
        "device": row,
        "may": may,
        "alarms": alarms.standing(user, row),
        "current": credentials.current(row),
        "certificates": row.credentials.all()[:_SHOWN],
        "form": MoveForm(sites=_sites(request)) if may["move"] else None,
        "now": clock.now(),
    }
    return show(request, "enrolment/identity.html", context)


def _find(request: HttpRequest, device: str, action: Action) -> Device:
    rows = Device.objects.select_related("site", "product_line", "organisation")
    return get_object_or_404(restrict(rows, person(request), action), pk=device)


def _sites(request: HttpRequest) -> Any:
    rows = Site.objects.select_related("organisation").order_by("organisation__name", "name")
    return restrict(rows, person(request), Action.DEVICE_MOVE)


@page
@require_POST
def revoke(request: HttpRequest, device: str) -> HttpResponse:
    row = _find(request, device, Action.DEVICE_REVOKE)
    count = credentials.revoke(actor=person(request), device=row, now=clock.now())
    messages.success(
        request,
        ngettext(
            "%(count)d certificate is revoked and the injector is cut off.",
            "%(count)d certificates are revoked and the injector is cut off.",
            count,
        )
        % {"count": count}
        + " "
        + _back(),
    )
    return redirect("device-identity", row.pk)


@page
@require_POST
def acknowledge(request: HttpRequest, device: str) -> HttpResponse:
    row = _find(request, device, Action.DEVICE_REVOKE)
    alarms.acknowledge(actor=person(request), device=row, now=clock.now())
    messages.success(request, _("The alarm is closed."))
    return redirect("device-identity", row.pk)


@page
@require_POST
def move(request: HttpRequest, device: str) -> HttpResponse:
    row = _find(request, device, Action.DEVICE_MOVE)
    form = MoveForm(request.POST, sites=_sites(request))
    if not form.is_valid():
        messages.error(request, _("Choose the site that it goes to."))
        return redirect("device-identity", row.pk)
    departures.move(
        actor=person(request),
        device=row,
        site=form.cleaned_data["site"],
        room=form.cleaned_data["room"],
        asset_number=form.cleaned_data["asset_number"],
        now=clock.now(),
    )
    messages.success(request, _("The injector has moved and is cut off.") + " " + _back())
    return redirect("device-identity", row.pk)


@page
@require_POST
def retire(request: HttpRequest, device: str) -> HttpResponse:
    row = _find(request, device, Action.DEVICE_MOVE)
    departures.retire(actor=person(request), device=row, now=clock.now())
    messages.success(request, _("The injector is retired. What it reported stays on record."))
    return redirect("device-identity", row.pk)


def _back() -> str:
    return _("It comes back with a new bundle: manage.py claim --again.")
