"""What a person gets in with: authenticator app, passkeys, recovery codes, password, sessions."""

from typing import Any

from allauth.account.internal.flows.login import record_authentication
from allauth.account.internal.flows.reauthentication import STATE_SESSION_KEY
from allauth.account.views import PasswordChangeView
from allauth.core.internal.httpkit import deserialize_request
from allauth.mfa.models import Authenticator
from allauth.mfa.recovery_codes.internal.auth import RecoveryCodes
from allauth.mfa.recovery_codes.views import GenerateRecoveryCodesView, ViewRecoveryCodesView
from allauth.mfa.totp.views import ActivateTOTPView, DeactivateTOTPView
from allauth.mfa.webauthn.internal import auth as webauthn
from allauth.mfa.webauthn.views import AddWebAuthnView, RemoveWebAuthnView
from django.contrib import messages
from django.forms import Form
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.urls import resolve, reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from fleet.accounts import factors, providers, sign_ins
from fleet.accounts.forms import (
    ConfirmCodeForm,
    ConfirmPasskeyForm,
    ConfirmPasswordForm,
    NewPasskeyForm,
)
from fleet.accounts.models import User
from fleet.accounts.pages.entrance import as_json, safe_next
from fleet.accounts.recent import confirmed
from fleet.core import clock
from fleet.pages.http import page, person, show

_Type = Authenticator.Type


@page
@require_safe
def security(request: HttpRequest) -> HttpResponse:
    user = person(request)
    rows = list(Authenticator.objects.filter(user=user).order_by("created_at"))
    codes_row = next((row for row in rows if row.type == _Type.RECOVERY_CODES), None)
    context = {
        "app": next((row for row in rows if row.type == _Type.TOTP), None),
        "passkeys": [row for row in rows if row.type == _Type.WEBAUTHN],
        "codes": codes_row,
        "codes_left": _codes_left(codes_row),
        "needed": factors.needed(user),
        "with_password": user.has_usable_password(),
        "session_count": len(sign_ins.open_sessions(user)),
    }
    return show(request, "accounts/security.html", context)


def _codes_left(row: Authenticator | None) -> int:
    try:
        return len(RecoveryCodes(row).get_unused_codes()) if row is not None else 0
    except ValueError:  # sealed under another key
        return 0


@page
@require_safe
def second_factor(request: HttpRequest) -> HttpResponse:
    """For whoever needs one and has none yet: the two ways."""
    if factors.satisfied(request.session, person(request)):
        return redirect("mfa_index")
    return show(request, "accounts/second_factor.html", {})


# --- confirming -----------------------------------------------------------------------------------


@sensitive_post_parameters("password")
@page
@require_http_methods(["GET", "POST"])
def confirm(request: HttpRequest) -> HttpResponseBase:
    """Asks again who one is, then goes on with what was interrupted."""
    user = person(request)
    forms = _ways(request, user)
    for name, form in forms.items():
        if form.is_bound and form.is_valid():
            if name == "password":
                record_authentication(request, user, "password", reauthenticated=True)
            else:
                form.save()
            return _resume(request)
    context: dict[str, Any] = {
        "forms": forms,
        "next": safe_next(request),
        "provider": providers.of(user),
    }
    if "passkey" in forms:
        context["options"] = as_json(webauthn.begin_authentication(user))
    status = 400 if request.method == "POST" else 200
    return show(request, "accounts/confirm.html", context, status=status)


def _ways(request: HttpRequest, user: User) -> dict[str, Any]:
    """The forms that this person can confirm with. A password is none while the session still
    lacks a second factor that it needs."""
    data = request.POST if request.method == "POST" else None
    types = set(Authenticator.objects.filter(user=user).values_list("type", flat=True))
    ways: dict[str, Any] = {}
    if _Type.WEBAUTHN in types:
        ways["passkey"] = ConfirmPasskeyForm(_if("credential", data), user=user)
    if types & {_Type.TOTP, _Type.RECOVERY_CODES}:
        ways["code"] = ConfirmCodeForm(_if("code", data), user=user)
    with_password = user.has_usable_password() and providers.required_of(user) is None
    if with_password and factors.satisfied(request.session, user):
        ways["password"] = ConfirmPasswordForm(_if("password", data), user=user)
    return ways


def _if(field: str, data: Any) -> Any:
    return data if data is not None and field in data else None


def _resume(request: HttpRequest) -> HttpResponseBase:
    """The interrupted form, as it was sent; or the page that it belongs to."""
    target = safe_next(request, reverse("mfa_index"))
    state = request.session.pop(STATE_SESSION_KEY, None)
    if isinstance(state, dict) and "request" in state:
        interrupted = deserialize_request(state["request"], request)
        if interrupted.path == target:
            match = request.resolver_match = resolve(interrupted.path)
            answer: HttpResponseBase = match.func(interrupted, *match.args, **match.kwargs)
            return answer
    return HttpResponseRedirect(target)


# --- factors --------------------------------------------------------------------------------------


class _NewPasskeyView(AddWebAuthnView):
    form_class = NewPasskeyForm
    template_name = "accounts/passkey_new.html"

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        context: dict[str, Any] = super().get_context_data(**kwargs)
        context["form"] = kwargs.get("form") or self.get_form()
        context["options"] = as_json(webauthn.begin_registration(person(self.request), True))
        return context


class _RemovePasskeyView(RemoveWebAuthnView):
    template_name = "accounts/passkey_remove.html"

    def form_valid(self, form: Form) -> HttpResponse:
        if not factors.may_remove(self.object, person(self.request)):
            messages.error(
                self.request,
                _("Your organisation asks for a second factor. Add another one before you "
                  "remove this."),
            )  # fmt: skip
            return redirect("mfa_index")
        answer: HttpResponse = super().form_valid(form)
        return answer


app_new = page(confirmed(ActivateTOTPView.as_view(template_name="accounts/app_new.html")))
app_remove = page(confirmed(DeactivateTOTPView.as_view(template_name="accounts/app_remove.html")))
codes = page(confirmed(ViewRecoveryCodesView.as_view(template_name="accounts/codes.html")))
codes_new = page(
    confirmed(GenerateRecoveryCodesView.as_view(template_name="accounts/codes_new.html"))
)
passkey_new = page(confirmed(_NewPasskeyView.as_view()))
passkey_remove = page(confirmed(_RemovePasskeyView.as_view()))


class _PasswordView(PasswordChangeView):
    template_name = "accounts/password.html"

    def get_form(self, form_class: Any = None) -> Any:
        form = super().get_form(form_class)  # type: ignore[no-untyped-call]
        labels = {
            "oldpassword": gettext_lazy("Present password"),
            "password1": gettext_lazy("New password"),
            "password2": gettext_lazy("New password again"),
        }
        for name, label in labels.items():
            form.fields[name].label = label
            form.fields[name].help_text = ""
            form.fields[name].widget.attrs = {
                "class": "form-control",
                "autocomplete": "current-password" if name == "oldpassword" else "new-password",
            }
        form.fields["password1"].help_text = _("At least 12 characters.")
        return form


_change = _PasswordView.as_view()


@sensitive_post_parameters("oldpassword", "password1", "password2")
@page
@require_http_methods(["GET", "POST"])
def password(request: HttpRequest) -> HttpResponseBase:
    if not person(request).has_usable_password():
        return redirect("mfa_index")
    return _change(request)


# --- sessions -------------------------------------------------------------------------------------


@page
@require_safe
def sessions(request: HttpRequest) -> HttpResponse:
    rows = [
        {
            "row": row,
            "device": sign_ins.device_name(row.user_agent),
            "current": row.session_key == request.session.session_key,
        }
        for row in sign_ins.open_sessions(person(request))
    ]
    return show(request, "accounts/sessions.html", {"rows": rows})


@page
@require_POST
def session_end(request: HttpRequest, sign_in: int) -> HttpResponse:
    sign_ins.end(person(request), sign_in, now=clock.now())
    messages.success(request, _("That session is ended."))
    return redirect("sign-ins")


@page
@require_POST
def sessions_end(request: HttpRequest) -> HttpResponse:
    count = sign_ins.end_others(person(request), keep=request.session.session_key, now=clock.now())
    told = ngettext(
        "%(count)s other session is ended.", "%(count)s other sessions are ended.", count
    )
    messages.success(request, told % {"count": count})
    return redirect("sign-ins")
