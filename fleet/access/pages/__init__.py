"""Asking for access, following a session, and the service report that stays of it."""

from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404, redirect
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from agent.wire import challenge
from agent.wire.catalogue import Level, SessionState
from fleet.access import afterwards, passes, selectors, services
from fleet.access.forms import RequestForm
from fleet.access.models import Session
from fleet.accounts.models import Role, User
from fleet.accounts.permissions import Action, everywhere, restrict
from fleet.accounts.recent import confirmed
from fleet.core import clock
from fleet.core.errors import Conflict, Invalid
from fleet.inventory.models import Device
from fleet.pages.http import page, paginate, person, show, watch_groups

MAX_OWED = 10  # sessions without their ticket that are listed; all of them are counted
_S = SessionState
_FIRST_PORT = 2222  # of the specialist's own machine, in the commands that the page suggests
# What a person follows; ACCEPTED and WAITING are parts of reaching the injector.
_STEPS: list[tuple[str | Promise, frozenset[SessionState]]] = [
    (gettext_lazy("Asked for"), frozenset({_S.REQUESTED})),
    (gettext_lazy("At the injector"), frozenset({_S.ACCEPTED, _S.WAITING})),
    (gettext_lazy("Signature"), frozenset({_S.CHALLENGED})),
    (gettext_lazy("Approval on site"), frozenset({_S.PRESENCE})),
    (gettext_lazy("Active"), frozenset({_S.ACTIVE})),
    (gettext_lazy("Ended"), frozenset({_S.ENDED, _S.REFUSED, _S.EXPIRED})),
]


@page
@require_http_methods(["GET", "POST"])
@confirmed
def request_access(request: HttpRequest, device: str) -> HttpResponse:
    user = person(request)
    rows = Device.objects.select_related("site", "product_line", "organisation")
    row = get_object_or_404(restrict(rows, user, Action.ACCESS_REQUEST), pk=device)
    if request.method == "POST":
        form = RequestForm(request.POST, offered=row.services)
        if form.is_valid() and (session := _ask(form, user, row)) is not None:
            return redirect("session", session.pk)
        return show(request, "access/request.html", _request_context(row, form), status=400)
    form = RequestForm(offered=row.services, initial={"level": _lowest(row)})
    return show(request, "access/request.html", _request_context(row, form))


def _request_context(device: Device, form: RequestForm) -> dict[str, Any]:
    return {"device": device, "form": form, "order": [level.value for level in Level]}


def _lowest(device: Device) -> str:
    """The lowest level at which the device has a service."""
    needed = [Level(level) for level in device.services.values()]
    return min(needed, key=lambda level: level.rank).value if needed else ""


def _ask(form: RequestForm, user: User, device: Device) -> Session | None:
    try:
        return services.request(
            actor=user,
            device=device,
            level=form.cleaned_data["level"],
            services=form.cleaned_data["services"],
            reason=form.cleaned_data["reason"],
            ticket=form.cleaned_data["ticket"] or None,
            note=form.cleaned_data["note"],
            life=form.life,
            now=clock.now(),
        )
    except (Conflict, Invalid) as error:
        form.add_error(None, error.message)
        return None


@page
@require_safe
def sessions(request: HttpRequest) -> HttpResponse:
    user = person(request)
    only_open = request.GET.get("state") == "open"
    rows = selectors.open_sessions_for(user) if only_open else selectors.sessions_for(user)
    owed = selectors.tickets_owed(user)
    first = list(owed[: MAX_OWED + 1])
    context = {
        "page": paginate(request, rows),
        "owed": first[:MAX_OWED],
        "owed_count": len(first) if len(first) <= MAX_OWED else owed.count(),
        "only_open": only_open,
        "watch": watch_groups(user),
    }
    return show(request, "access/list.html", context, fragments={"list": "access/table.html"})


@dataclass(frozen=True, slots=True)
class Step:
    name: str | Promise
    state: str  # done, current, bad or later


def steps(session: Session) -> list[Step]:
    """The session's way, with what is behind and where it stands (R-ACC-3 to R-ACC-7)."""
    state = SessionState(session.state)
    reached = _reached(session)
    shown = []
    for number, (name, states) in enumerate(_STEPS):
        if _S.PRESENCE in states and not session.presence and session.challenge is not None:
            continue  # nobody is asked at this level
        if state in states:
            failed = state in (_S.REFUSED, _S.EXPIRED)
            label = session.state_label if state.over else name
            shown.append(Step(label, "bad" if failed else "done" if state.over else "current"))
        else:
            shown.append(Step(name, "done" if number <= reached else "later"))
    return shown


def _reached(session: Session) -> int:
    """The index of the furthest step that the session has been through."""
    if session.active_at is not None:
        return 4
    if session.answered_at is not None:
        return 2
    if session.challenge is not None or session.accepted_at is not None:
        return 1
    number = next(n for n, (_name, states) in enumerate(_STEPS) if session.state in states)
    return number - 1 if number < 5 else 0


@page
@require_safe
def session(request: HttpRequest, session: str) -> HttpResponse:
    user = person(request)
    row = get_object_or_404(selectors.sessions_for(user), pk=session)
    mine, now = row.specialist_id == user.pk, clock.now()
    context = {
        "session": row,
        "steps": steps(row),
        # From the exact bytes that the device signed; the client and the panel compute their own.
        "code": challenge.code(bytes(row.challenge)) if row.challenge and not row.over else "",
        "mine": mine,
        "may_end": not row.over and _may_end(user, row),
        "may_give_ticket": afterwards.may_give_ticket(user, row),
        "may_write_handover": afterwards.may_write_handover(user, row, now),
        "may_ask_again": afterwards.may_ask_again(user, row),
        "timeline": selectors.timeline(row),
        "commands": _commands(row),
        "in_browser": passes.offered(user, row),
    }
    return show(
        request, "access/session.html", context, fragments={"session": "access/session_body.html"}
    )


def _commands(session: Session) -> list[tuple[str, str]]:
    """(service, what to type to reach it) of an active session; see docs/cli.md."""
    serial = session.device.serial
    return [
        (
            name,
            f"patency shell {serial}"
            if name == "console"
            else f"patency forward {serial} {name} {_FIRST_PORT + number}",
        )
        for number, name in enumerate(session.services)
    ]


def _may_end(user: User, session: Session) -> bool:
    """Whether the button is shown; access.services.end decides."""
    if user.role == Role.HOSPITAL:
        return session.organisation_id == user.organisation_id
    return session.specialist_id == user.pk or (
        user.role == Role.ADMINISTRATOR and everywhere(user)
    )


@page
@require_POST
def session_end(request: HttpRequest, session: str) -> HttpResponse:
    user = person(request)
    rows = restrict(Session.objects.select_related("device"), user, Action.ACCESS_END)
    row = get_object_or_404(rows, pk=session)
    was_over = row.over
    services.end(actor=user, session=row, now=clock.now())
    if was_over:
        messages.info(request, _("The session was over already."))
    else:
        messages.success(
            request, _("The session is ended. The injector is told until it confirms.")
        )
    return redirect("session", row.pk)


@page
@require_POST
@confirmed
def session_browser(request: HttpRequest, session: str) -> HttpResponse:
    """Send the specialist's browser to the access origin, with a ticket for this session."""
    user = person(request)
    row = get_object_or_404(selectors.sessions_for(user), pk=session)
    if not passes.offered(user, row):
        messages.error(request, _("This session cannot be opened in the browser."))
        return redirect("session", row.pk)
    response = HttpResponseRedirect(passes.link(actor=user, session=row, now=clock.now()))
    response["Cache-Control"] = "no-store"
    response["Referrer-Policy"] = "no-referrer"
    return response
