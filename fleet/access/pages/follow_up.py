"""What is left to do of a session: its ticket, the handover note, the same again."""

from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_http_methods, require_POST

from fleet.access import afterwards, selectors
from fleet.access.models import Session
from fleet.accounts.permissions import Action, restrict
from fleet.accounts.recent import confirmed
from fleet.core import clock, widgets
from fleet.core.errors import Conflict, Invalid
from fleet.pages.http import page, person, show


class TicketForm(forms.Form):
    ticket = forms.CharField(
        label=gettext_lazy("Ticket"),
        max_length=32,
        help_text=gettext_lazy("Letters, digits and “-”, at most 32."),
        widget=widgets.text(),
    )


class HandoverForm(forms.Form):
    text = forms.CharField(
        label=gettext_lazy("Handover note"),
        # Browsers send a line break as two characters; the service counts it as one.
        max_length=2 * afterwards.MAX_HANDOVER,
        help_text=gettext_lazy(
            "At most 2,000 characters. The hospital reads it. Nothing about a patient, and nobody "
            "of the hospital by name."
        ),
        widget=widgets.paragraph(rows=10, most=afterwards.MAX_HANDOVER),
    )


def _mine(request: HttpRequest, pk: str) -> Session:
    rows = selectors.sessions_for(person(request))
    return get_object_or_404(restrict(rows, person(request), Action.ACCESS_REQUEST), pk=pk)


@page
@require_http_methods(["GET", "POST"])
def session_ticket(request: HttpRequest, session: str) -> HttpResponse:
    row = _mine(request, session)
    form = TicketForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            afterwards.give_ticket(
                actor=person(request),
                session=row,
                ticket=form.cleaned_data["ticket"],
                now=clock.now(),
            )
        except (Conflict, Invalid) as error:
            form.add_error("ticket", error.message)
        else:
            messages.success(request, _("The ticket is on the session and in its report."))
            return redirect("session", row.pk)
    return _form(request, row, form, _("Give the ticket"), "")


@page
@require_http_methods(["GET", "POST"])
def session_handover(request: HttpRequest, session: str) -> HttpResponse:
    row = _mine(request, session)
    form = HandoverForm(request.POST or None, initial={"text": row.handover})
    if request.method == "POST" and form.is_valid():
        try:
            afterwards.write_handover(
                actor=person(request),
                session=row,
                text=form.cleaned_data["text"],
                now=clock.now(),
            )
        except (Conflict, Invalid) as error:
            form.add_error("text", error.message)
        else:
            messages.success(request, _("The handover note is kept. The hospital can read it."))
            return redirect("session", row.pk)
    warning = _(
        "Write what was done and what is left to do. No patient, no names of hospital staff, no "
        "passwords: this text is kept outside the injector."
    )
    return _form(request, row, form, _("Handover note"), warning)


def _form(
    request: HttpRequest, row: Session, form: forms.Form, title: str, warning: str
) -> HttpResponse:
    context: dict[str, Any] = {"session": row, "form": form, "title": title, "warning": warning}
    return show(request, "access/write.html", context, status=400 if form.errors else 200)


@page
@require_POST
@confirmed
def session_again(request: HttpRequest, session: str) -> HttpResponse:
    row = _mine(request, session)
    try:
        asked = afterwards.again(actor=person(request), session=row, now=clock.now())
    except (Conflict, Invalid) as error:
        messages.error(request, error.message)
        return redirect("session", row.pk)
    return redirect("session", asked.pk)
