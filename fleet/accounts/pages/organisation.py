"""Signing in with the provider of one's organisation: by e-mail address, or by its own address."""

from typing import Any

from allauth.core.exceptions import ImmediateHttpResponse
from allauth.socialaccount.adapter import get_adapter
from allauth.socialaccount.providers.oauth2.client import OAuth2Error
from allauth.socialaccount.providers.oauth2.views import OAuth2CallbackView
from django import forms
from django.conf import settings
from django.contrib.auth import REDIRECT_FIELD_NAME
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_safe
from requests import RequestException

from fleet.accounts import oidc, providers, sign_ins
from fleet.accounts.models import IdentityProvider, User
from fleet.accounts.pages.entrance import safe_next
from fleet.accounts.sealing import UnreadableError
from fleet.core import clock


class EmailForm(forms.Form):
    email = forms.EmailField(
        label=gettext_lazy("E-mail address"),
        max_length=254,
        widget=forms.EmailInput(
            attrs={"class": "form-control", "autocomplete": "email", "autofocus": "autofocus"}
        ),
    )

    def clean_email(self) -> str:
        email = str(self.cleaned_data["email"])
        self.row = providers.for_email(email)
        if self.row is None:
            raise forms.ValidationError(
                _("No organisation signs in here with such an address. Use your user name and "
                  "password, or ask an administrator.")
            )  # fmt: skip
        return email


@never_cache
@require_http_methods(["GET", "POST"])
def organisation(request: HttpRequest) -> HttpResponse:
    form = EmailForm(request.POST if request.method == "POST" else None)
    if form.is_bound and form.is_valid() and form.row is not None:
        return _begin(request, form.row, hint=form.cleaned_data["email"])
    context = {"form": form, "next": safe_next(request)}
    return render(request, "accounts/organisation.html", context)


@never_cache
@require_http_methods(["GET", "POST"])
def provider(request: HttpRequest, provider_id: str) -> HttpResponse:
    """The address that an organisation gives its people. Nothing begins without the button: a
    stranger's page must not be able to sign somebody in."""
    row = _row(provider_id)
    if request.method == "POST":
        return _begin(request, row, again=isinstance(request.user, User))
    return render(request, "accounts/provider.html", {"provider": row, "next": safe_next(request)})


@never_cache
@require_safe
def provider_back(request: HttpRequest, provider_id: str) -> HttpResponse:
    """The browser comes back with a code."""
    row = _row(provider_id)
    view = OAuth2CallbackView.adapter_view(  # type: ignore[no-untyped-call]
        oidc.ProviderTalk(request, row)
    )
    return _guarded(request, row, lambda: view(request))


def _row(provider_id: str) -> IdentityProvider:
    row = providers.enabled(provider_id)
    if row is None:
        raise Http404
    return row


def _begin(
    request: HttpRequest, row: IdentityProvider, *, hint: str = "", again: bool = False
) -> HttpResponse:
    sign_ins.begin_briefly(request.session)

    def go() -> HttpResponse:
        talk = get_adapter(request).get_provider(request, row.pk)
        target = safe_next(request, settings.LOGIN_REDIRECT_URL)
        answer = talk.begin(request, next_url=target, hint=hint, again=again)
        # Not a redirect: after a form, the content security policy lets none lead elsewhere.
        context = {"provider": row, "target": answer["Location"]}
        return render(request, "accounts/provider_go.html", context)

    return _guarded(request, row, go)


def _guarded(request: HttpRequest, row: IdentityProvider, call: Any) -> HttpResponse:
    """Run it, and say in plain words what went wrong with the provider or with its answer."""
    try:
        answer: HttpResponse = call()
        return answer
    except ImmediateHttpResponse as answered:
        return answered.response
    except providers.Refused as refusal:
        reason, told, status = refusal.reason, refusal.message, 403
        if reason == "provider_wrong":
            told = _wrong(row)
    except (oidc.AwayError, RequestException):
        reason, status = "provider_away", 503
        told = _("%(provider)s cannot be reached now. Try again in a moment; if it stays, tell the "
                 "IT of your organisation.") % {"provider": row.name}  # fmt: skip
    except (OAuth2Error, UnreadableError, KeyError, ValueError):
        reason, told, status = "provider_wrong", _wrong(row), 403
    if reason != "cancelled":
        providers.refuse(row, reason, now=clock.now())
    context = {"provider": row, "told": told, "next": request.GET.get(REDIRECT_FIELD_NAME, "")}
    return render(request, "accounts/provider_refused.html", context, status=status)


def _wrong(row: IdentityProvider) -> str:
    return _("What %(provider)s answered is not valid, so nobody was signed in. Begin again; if it "
             "stays, tell an administrator.") % {"provider": row.name}  # fmt: skip
