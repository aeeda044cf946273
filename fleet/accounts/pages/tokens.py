"""One's own account: tokens, keys, language."""

from datetime import timedelta
from typing import Any

from django import forms
from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect
from django.utils import translation
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_POST, require_safe

from fleet.accounts import own
from fleet.accounts.models import Language, Role, User
from fleet.accounts.pages.entrance import safe_next
from fleet.accounts.permissions import Scope, scopes_of
from fleet.accounts.recent import confirmed
from fleet.core import clock, widgets
from fleet.core.errors import Invalid
from fleet.pages.http import page, person, show

SCOPE_WORDS: dict[Scope, Promise] = {
    Scope.READ: gettext_lazy("see what you see"),
    Scope.ACCESS: gettext_lazy("ask for access, and work on injectors"),
    Scope.JOBS: gettext_lazy("create jobs, and download bundles"),
    Scope.ADMIN: gettext_lazy("enrol, move and revoke injectors, and change access servers"),
}


class TokenForm(forms.Form):
    LIVES = [
        ("1", gettext_lazy("1 day")),
        ("30", gettext_lazy("30 days")),
        ("90", gettext_lazy("90 days")),
        ("365", gettext_lazy("1 year")),
    ]
    name = forms.CharField(
        label=gettext_lazy("Name"),
        max_length=own.MAX_NAME,
        help_text=gettext_lazy("What or where it is for, such as “laptop”."),
        widget=widgets.text(),
    )
    days = forms.ChoiceField(
        label=gettext_lazy("Valid for"),
        choices=LIVES,
        initial="30",
        widget=widgets.select(),
    )
    scopes = forms.MultipleChoiceField(
        label=gettext_lazy("It may"), widget=forms.CheckboxSelectMultiple, required=False
    )

    def __init__(self, *args: Any, user: User, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = self.fields["scopes"]
        if isinstance(field, forms.MultipleChoiceField):
            offered = scopes_of(Role(user.role))
            field.choices = [(scope.value, SCOPE_WORDS[scope]) for scope in offered]
            field.initial = [Scope.READ.value]


@page
@require_safe
def account(request: HttpRequest) -> HttpResponse:
    return _account(request, TokenForm(user=person(request)))


@page
@require_POST
@confirmed
def token_new(request: HttpRequest) -> HttpResponse:
    """Answers with the page itself: the secret is in this one response and nowhere else."""
    form = TokenForm(request.POST, user=person(request))
    if not form.is_valid():
        return _account(request, form, status=400)
    try:
        secret = own.create_token(
            person(request),
            name=form.cleaned_data["name"],
            life=timedelta(days=int(form.cleaned_data["days"])),
            scopes=form.cleaned_data["scopes"],
            now=clock.now(),
        )
    except Invalid as error:
        form.add_error(None, error.message)
        return _account(request, form, status=400)
    return _account(request, TokenForm(user=person(request)), secret=secret)


@page
@require_POST
def token_revoke(request: HttpRequest, token: int) -> HttpResponse:
    own.revoke_token(person(request), token, now=clock.now())
    messages.success(request, _("The token is revoked. Nothing can use it from now on."))
    return redirect("account")


def _account(
    request: HttpRequest, form: TokenForm, *, secret: str = "", status: int = 200
) -> HttpResponse:
    user = person(request)
    context = {
        "form": form,
        "secret": secret,
        "tokens": [
            (token, [SCOPE_WORDS[Scope(scope)] for scope in token.scopes.split()])
            for token in user.tokens.filter(expires_at__gt=clock.now())
        ],
        "keys": user.keys.all(),
    }
    return show(request, "accounts/account.html", context, status=status)


@require_POST
def language(request: HttpRequest) -> HttpResponse:
    """For anybody, signed in or not: a cookie, and the account's language when there is one."""
    chosen = request.POST.get("language", "")
    response = HttpResponseRedirect(safe_next(request, "/"))
    if chosen in Language.values:
        response.set_cookie(
            settings.LANGUAGE_COOKIE_NAME,
            chosen,
            max_age=365 * 24 * 3600,
            samesite="Lax",
            secure=settings.LANGUAGE_COOKIE_SECURE,
        )
        if isinstance(request.user, User):
            own.set_language(request.user, chosen)
        translation.activate(chosen)
    return response
