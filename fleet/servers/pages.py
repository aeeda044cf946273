"""The pages of access servers, for the vendor's administrators, and the public allow-list."""

from dataclasses import dataclass
from datetime import date
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect
from django.utils.cache import patch_cache_control
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from fleet.core import clock
from fleet.core.errors import Conflict, Invalid
from fleet.enrolment import endings
from fleet.enrolment.endings import Ending
from fleet.pages.http import page, person, show
from fleet.servers import selectors, services
from fleet.servers.forms import AddForm, ChangeForm, RetireForm
from fleet.servers.labels import TROUBLES
from fleet.servers.models import AccessServer
from fleet.servers.selectors import Change, Listed

KEPT_S = 300  # how long a copy of the allow-list may be kept by caches on the way


@dataclass(frozen=True, slots=True)
class Row:
    """An access server with its link's trouble in words, empty while it is linked, and the end of
    its certificates when that is near."""

    server: AccessServer
    trouble: str | Promise
    ending: Ending | None


def _row(server: AccessServer) -> Row:
    trouble = TROUBLES.get(server.trouble, "") if not server.linked else ""
    return Row(server, trouble, endings.of_server(server, clock.now()))


@page
@require_safe
def servers(request: HttpRequest) -> HttpResponse:
    services.manager(person(request))
    rows = [_row(server) for server in AccessServer.objects.all()]
    context = {"rows": rows, "today": clock.now().date()}
    return show(request, "servers/list.html", context, fragments={"list": "servers/table.html"})


@page
@require_http_methods(["GET", "POST"])
def server_new(request: HttpRequest) -> HttpResponse:
    actor = services.manager(person(request))
    now = clock.now()
    form = AddForm(request.POST or None, initial={"listed_on": services.earliest(now.date())})
    if request.method == "POST" and form.is_valid():
        fields = dict(form.cleaned_data)
        try:
            row = services.add(
                actor=actor, listed_on=fields.pop("listed_on"), fields=fields, now=now
            )
        except (Conflict, Invalid) as error:
            form.add_error(None, error.message)
        else:
            messages.success(request, _("Added. Now make its bundle, and start it there."))
            return redirect("server", row.name)
    status = 400 if form.errors else 200
    return show(request, "servers/new.html", {"form": form}, status=status)


@page
@require_http_methods(["GET", "POST"])
def server(request: HttpRequest, name: str) -> HttpResponse:
    actor = services.manager(person(request))
    row = services.get(name)
    initial = {field: getattr(row, field) for field in services.CHANGEABLE}
    form = ChangeForm(request.POST or None, initial=initial)
    if request.method == "POST" and form.is_valid():
        try:
            services.change(actor=actor, name=name, fields=form.cleaned_data, now=clock.now())
        except Invalid as error:
            form.add_error(None, error.message)
        else:
            messages.success(request, _("Saved."))
            return redirect("server", name)
    return _server(request, row, form)


def _server(
    request: HttpRequest, row: AccessServer, form: ChangeForm, retire: RetireForm | None = None
) -> HttpResponse:
    today = clock.now().date()
    context = {
        "row": _row(row),
        "form": form,
        "retire": retire or RetireForm(initial={"unlisted_on": services.earliest(today)}),
        "today": today,
    }
    wrong = form.errors or (retire is not None and retire.errors)
    return show(request, "servers/server.html", context, status=400 if wrong else 200)


@page
@require_POST
def server_use(request: HttpRequest, name: str) -> HttpResponse:
    """Use it, or stop using it: `enabled` is 1 or 0."""
    actor = services.manager(person(request))
    enabled = request.POST.get("enabled") == "1"
    services.set_enabled(actor=actor, name=name, enabled=enabled, now=clock.now())
    text = _("Injectors are told within seconds.")
    messages.success(request, text)
    return redirect("server", name)


@page
@require_POST
def server_retire(request: HttpRequest, name: str) -> HttpResponse:
    actor = services.manager(person(request))
    row = services.get(name)
    form = RetireForm(request.POST)
    if form.is_valid():
        on = form.cleaned_data["unlisted_on"]
        try:
            services.retire(actor=actor, name=name, on=on, now=clock.now())
        except Invalid as error:
            form.add_error(None, error.message)
        else:
            messages.success(request, _("Published: hospitals read the day on the allow-list."))
            return redirect("server", name)
    initial = {field: getattr(row, field) for field in services.CHANGEABLE}
    return _server(request, row, ChangeForm(initial=initial), form)


# --- the allow-list: for anybody ------------------------------------------------------------------


@require_safe
def allow_list(request: HttpRequest) -> HttpResponse:
    """What a hospital's firewall must let out (R-CON-3), with what changes when."""
    today = clock.now().date()
    entries = selectors.listing()
    changes = selectors.changes(entries)
    context = {
        "entries": [entry for entry in entries if not _over(entry, today)],
        "today": today,
        "coming": [change for change in reversed(changes) if change.on > today],
        "past": [change for change in changes if change.on <= today],
        "notice_days": settings.PATENCY_NOTICE_DAYS,
    }
    return show(request, "servers/allow_list.html", context)


def _over(entry: Listed, today: date) -> bool:
    return entry.unlisted_on is not None and entry.unlisted_on <= today


@require_safe
def allow_list_json(request: HttpRequest) -> HttpResponse:
    """The same for programs. Fields are added, never taken away."""
    today = clock.now().date()
    entries = selectors.listing()
    contents = {
        "v": 1,
        "today": today.isoformat(),
        "notice_days": settings.PATENCY_NOTICE_DAYS,
        "hosts": [_as_json(entry, today) for entry in entries if not _over(entry, today)],
        "changes": [_change_json(change) for change in selectors.changes(entries)],
    }
    return _public(JsonResponse(contents, json_dumps_params={"indent": 1}))


def _as_json(entry: Listed, today: date) -> dict[str, Any]:
    return {
        "name": entry.name,
        "host": entry.host,
        "address": entry.address,
        "port": entry.port,
        "protocol": "tcp",
        "place": entry.place,
        "region": entry.region,
        "from": entry.listed_on.isoformat() if entry.listed_on else None,
        "until": entry.unlisted_on.isoformat() if entry.unlisted_on else None,
        "now": entry.allowed(today),
    }


def _change_json(change: Change) -> dict[str, Any]:
    return {
        "on": change.on.isoformat(),
        "change": "add" if change.added else "remove",
        "host": change.entry.host,
        "address": change.entry.address,
        "port": change.entry.port,
    }


@require_safe
def allow_list_text(request: HttpRequest) -> HttpResponse:
    """One host a line, for people with a terminal and firewalls that read lists."""
    today = clock.now().date()
    lines = [
        f"# Patency: outbound TCP from injectors, as of {today.isoformat()}",
        "# host address port from until",
    ]
    for entry in selectors.listing():
        if not _over(entry, today):
            begins = entry.listed_on.isoformat() if entry.listed_on else "-"
            ends = entry.unlisted_on.isoformat() if entry.unlisted_on else "-"
            lines.append(f"{entry.host} {entry.address or '-'} {entry.port} {begins} {ends}")
    text = "\n".join(lines) + "\n"
    return _public(HttpResponse(text, content_type="text/plain; charset=utf-8"))


def _public(response: HttpResponse) -> HttpResponse:
    """The same for everybody, and for a while."""
    patch_cache_control(response, public=True, max_age=KEPT_S)
    return response
