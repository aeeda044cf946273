"""Getting in: password, then the second factor; or a passkey alone. And out again."""

import json
from typing import Any

from allauth.account.internal.flows.login import perform_password_login
from allauth.account.internal.stagekit import clear_login
from allauth.account.models import Login
from allauth.mfa.base.views import AuthenticateView
from allauth.mfa.models import Authenticator
from allauth.mfa.webauthn.views import LoginWebAuthnView
from django.conf import settings
from django.contrib.auth.views import LogoutView
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.utils.decorators import method_decorator
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods

from fleet.accounts import sign_ins
from fleet.accounts.forms import CodeForm, PasskeyForm, PasskeySignInForm, SignInForm

_LONGEST = 2000  # characters of an address to go back to


def safe_next(request: HttpRequest, otherwise: str = "") -> str:
    """Where to go afterwards: a path of ours that the form or the address names, or `otherwise`."""
    target = request.POST.get("next") or request.GET.get("next") or ""
    # A path and nothing else: Django would take another word for the name of a view.
    if (
        len(target) <= _LONGEST
        and target.startswith("/")
        and url_has_allowed_host_and_scheme(
            target, allowed_hosts={request.get_host()}, require_https=request.is_secure()
        )
    ):
        return target
    return otherwise


def as_json(options: Any) -> str:
    """What a browser is asked about a passkey, for an attribute of the page."""
    return json.dumps(options, default=dict)


@sensitive_post_parameters("password")
@never_cache
@require_http_methods(["GET", "POST"])
def sign_in(request: HttpRequest) -> HttpResponse:
    if request.user.is_authenticated:
        return HttpResponseRedirect(safe_next(request, settings.LOGIN_REDIRECT_URL))
    if request.method == "GET":
        clear_login(request)  # whoever comes back to the beginning begins anew
        form = SignInForm(request=request)
    else:
        form = SignInForm(request.POST, request=request)
        if form.is_valid() and form.user is not None:
            sign_ins.begin_briefly(request.session)
            login = Login(
                user=form.user, redirect_url=safe_next(request, settings.LOGIN_REDIRECT_URL)
            )
            answer: HttpResponse = perform_password_login(
                request, {"username": form.user.username}, login
            )
            return answer
    context = {"form": form, "next": safe_next(request)}
    return render(request, "accounts/sign_in.html", context)


class _CodeView(AuthenticateView):
    form_class = CodeForm  # type: ignore[assignment]  # ours counts in the database
    webauthn_form_class = PasskeyForm
    template_name = "accounts/code.html"

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        context: dict[str, Any] = super().get_context_data(**kwargs)
        types = set(
            Authenticator.objects.filter(user=self.stage.login.user).values_list("type", flat=True)
        )
        if "js_data" in context:
            context["options"] = as_json(context["js_data"]["request_options"])
        context["with_app"] = Authenticator.Type.TOTP in types
        context["with_passkey"] = Authenticator.Type.WEBAUTHN in types
        return context


code = _CodeView.as_view()


@method_decorator(never_cache, name="dispatch")
class _PasskeyView(LoginWebAuthnView):
    """GET gives a program of ours the challenge, POST takes what the passkey signed."""

    form_class = PasskeySignInForm

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        sign_ins.begin_briefly(request.session)
        return super().dispatch(request, *args, **kwargs)

    def form_valid(self, form: PasskeySignInForm) -> HttpResponse:
        from allauth.mfa.webauthn.internal.flows import perform_passwordless_login

        authenticator = form.cleaned_data["credential"]
        form.save()
        login = Login(
            user=authenticator.user,
            redirect_url=safe_next(self.request, settings.LOGIN_REDIRECT_URL),
        )
        answer: HttpResponse = perform_passwordless_login(self.request, authenticator, login)
        return answer


passkey = _PasskeyView.as_view()
sign_out = LogoutView.as_view()
