"""Signing a command line in: type its code, see what asks, decide."""

from datetime import timedelta
from typing import Any

from django import forms
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_http_methods

from fleet.accounts import device_codes
from fleet.accounts.backends import client_address
from fleet.accounts.models import DeviceCode, User
from fleet.accounts.pages.tokens import SCOPE_WORDS, TokenForm
from fleet.accounts.recent import confirmed
from fleet.core import clock, widgets
from fleet.core.errors import PortalError
from fleet.pages.http import page, person, show


class CodeTypedForm(forms.Form):
    code = forms.CharField(
        label=gettext_lazy("Code"),
        max_length=20,
        help_text=gettext_lazy("Eight letters, as the command line shows them."),
        widget=widgets.text(),
    )


class DecideForm(forms.Form):
    scopes = forms.MultipleChoiceField(
        label=gettext_lazy("It may"), widget=forms.CheckboxSelectMultiple, required=False
    )
    days = forms.ChoiceField(
        label=gettext_lazy("Valid for"),
        choices=TokenForm.LIVES[:3],
        initial="30",
        widget=widgets.select(),
    )

    def __init__(self, *args: Any, row: DeviceCode, user: User, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        offered = device_codes.scopes_for(row, user)
        field = self.fields["scopes"]
        if isinstance(field, forms.MultipleChoiceField):
            field.choices = [(scope.value, SCOPE_WORDS[scope]) for scope in offered]
            field.initial = [scope.value for scope in offered]


@page
@require_http_methods(["GET", "POST"])
@confirmed
def connect(request: HttpRequest) -> HttpResponse:
    """GET, also by the address that the command line shows, only fills the code in: who follows a
    stranger's link still sees what asks before anything is decided."""
    if request.method == "GET":
        form = CodeTypedForm(initial={"code": request.GET.get("code", "")[:20]})
        return show(request, "accounts/connect.html", {"form": form})
    form = CodeTypedForm(request.POST)
    if not form.is_valid():
        return show(request, "accounts/connect.html", {"form": form}, status=400)
    try:
        return _decide(request, person(request), form.cleaned_data["code"])
    except PortalError as error:
        form.add_error("code", error.message)
        return show(request, "accounts/connect.html", {"form": form}, status=error.status)


def _decide(request: HttpRequest, user: User, typed: str) -> HttpResponse:
    now = clock.now()
    row = device_codes.find(user, typed, address=client_address(request), now=now)
    decision = request.POST.get("decision", "")
    if decision == "deny":
        device_codes.deny(user, row, now=now)
        return _done(request, _("Denied. The command line gets nothing."))
    if decision == "approve":
        form = DecideForm(request.POST, row=row, user=user)
        if form.is_valid():
            life = timedelta(days=int(form.cleaned_data["days"]))
            device_codes.approve(user, row, scopes=form.cleaned_data["scopes"], life=life, now=now)
            return _done(request, _("Done. Go back to the command line: it is signed in."))
    else:
        form = DecideForm(row=row, user=user)
    context = {"row": row, "form": form, "code": device_codes.shown(row.user_code)}
    return show(request, "accounts/connect_decide.html", context)


def _done(request: HttpRequest, told: str) -> HttpResponse:
    return show(request, "accounts/connect_done.html", {"told": told})
