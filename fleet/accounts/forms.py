"""The forms people show who they are with. Each counts what is wrong, and says when to stop."""

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

from allauth.core import context
from allauth.mfa.base.internal.flows import post_authentication
from allauth.mfa.models import Authenticator
from allauth.mfa.recovery_codes.internal.auth import RecoveryCodes
from allauth.mfa.webauthn.forms import AddWebAuthnForm, AuthenticateWebAuthnForm, LoginWebAuthnForm
from django import forms
from django.conf import settings
from django.contrib.auth import authenticate
from django.core.exceptions import ValidationError
from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from fido2.utils import websafe_decode

from fleet.accounts import factors, services
from fleet.accounts.backends import client_address
from fleet.accounts.models import User
from fleet.accounts.services import Guess
from fleet.core import clock
from fleet.core.errors import Invalid, TooMany

_LONGEST_CREDENTIAL = 20_000  # characters of JSON

WRONG_PASSWORD = gettext_lazy(
    "The user name or the password is wrong. Check both; capital letters matter."
)


def _text(autocomplete: str, **attributes: str) -> forms.TextInput:
    return forms.TextInput(
        attrs={"class": "form-control", "autocomplete": autocomplete, **attributes}
    )


def _password(autocomplete: str) -> forms.PasswordInput:
    return forms.PasswordInput(attrs={"class": "form-control", "autocomplete": autocomplete})


class SignInForm(forms.Form):
    username = forms.CharField(
        label=gettext_lazy("User name"),
        max_length=64,
        widget=_text("username", autocapitalize="none", autofocus="autofocus"),
    )
    password = forms.CharField(
        label=gettext_lazy("Password"), strip=False, widget=_password("current-password")
    )

    def __init__(self, *args: Any, request: HttpRequest, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.request = request
        self.user: User | None = None

    def clean(self) -> dict[str, Any]:
        answers: dict[str, Any] = super().clean() or self.cleaned_data
        username, password = answers.get("username"), answers.get("password")
        if username is None or password is None:
            return answers
        _check_rate(username, self.request, clock.now(), Guess.PASSWORD)
        user = authenticate(self.request, username=username, password=password)
        if not isinstance(user, User):
            raise ValidationError(WRONG_PASSWORD, code="invalid_login")
        self.user = user
        return answers


class CodeForm(forms.Form):
    """A code of the authenticator app, or a recovery code."""

    code = forms.CharField(
        label=gettext_lazy("Code"),
        max_length=20,
        widget=_text("one-time-code", inputmode="numeric", autofocus="autofocus"),
    )
    reauthenticated = False

    def __init__(self, *args: Any, user: User, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.user = user
        self.authenticator: Authenticator | None = None

    def clean_code(self) -> str:
        code = "".join(self.cleaned_data["code"].split()).replace("-", "")
        _guarded(
            self.user, Guess.CODE, lambda now: self._accept(code, now), _("This code is wrong.")
        )
        return code

    def _accept(self, code: str, now: datetime) -> bool:
        rows = Authenticator.objects.filter(user=self.user)
        totp = rows.filter(type=Authenticator.Type.TOTP).first()
        if totp is not None and factors.accept_totp(totp, code, now=now):
            self.authenticator = totp
            return True
        recovery = rows.filter(type=Authenticator.Type.RECOVERY_CODES).first()
        if recovery is not None and _accept_recovery(recovery, code):
            self.authenticator = recovery
            return True
        return False

    def save(self) -> None:
        if self.authenticator is None:
            raise AssertionError("not validated")
        self.authenticator.refresh_from_db()
        self.authenticator.user = self.user
        post_authentication(
            context.request, self.authenticator, reauthenticated=self.reauthenticated
        )


class ConfirmCodeForm(CodeForm):
    reauthenticated = True


def _accept_recovery(authenticator: Authenticator, code: str) -> bool:
    try:
        return RecoveryCodes(authenticator).validate_code(code)
    except ValueError:  # sealed under another key
        return False


class ConfirmPasswordForm(forms.Form):
    password = forms.CharField(
        label=gettext_lazy("Password"), strip=False, widget=_password("current-password")
    )

    def __init__(self, *args: Any, user: User, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.user = user

    def clean_password(self) -> str:
        password = str(self.cleaned_data["password"])
        _guarded(
            self.user,
            Guess.PASSWORD,
            lambda _now: self.user.check_password(password),
            _("This is not your password."),
        )
        return password


class PasskeyForm(AuthenticateWebAuthnForm):
    """A passkey as second factor."""

    def clean_credential(self) -> Authenticator:
        _check_origin(self.cleaned_data["credential"])
        return super().clean_credential()


class ConfirmPasskeyForm(PasskeyForm):
    reauthenticated = True


class PasskeySignInForm(LoginWebAuthnForm):
    """A passkey alone: it says whose it is, and has verified its person."""

    def clean_credential(self) -> Authenticator:
        _check_origin(self.cleaned_data["credential"])
        return super().clean_credential()


class NewPasskeyForm(AddWebAuthnForm):
    name = forms.CharField(
        label=gettext_lazy("Name"),
        max_length=60,
        required=False,
        help_text=gettext_lazy("To know it by later, such as “telephone”."),
        widget=_text("off"),
    )

    def clean(self) -> dict[str, Any]:
        credential = self.cleaned_data.get("credential")
        if credential:
            _check_origin(credential)
        # Its person must have been verified: it is meant to stand alone.
        self.cleaned_data["passwordless"] = True
        return super().clean()


def _check_origin(credential: Any) -> None:
    """The browser signs the address of the page that asked; ours alone will do (allauth takes
    any page of the host). Raises ValidationError."""
    try:
        data = json.loads(websafe_decode(credential["response"]["clientDataJSON"]))
        origin = data["origin"]
    except (KeyError, TypeError, ValueError, RecursionError):
        origin = None
    if origin not in settings.PATENCY_ORIGINS or len(str(credential)) > _LONGEST_CREDENTIAL:
        raise ValidationError(
            _("This passkey was used on another page. Reload this one and try again.")
        )


def _guarded(user: User, kind: Guess, accept: Callable[[datetime], bool], wrong: str) -> None:
    """Try what the person typed, unless there were too many wrong ones. Raises ValidationError."""
    now, request = clock.now(), context.request
    _check_rate(user.username, request, now, kind)
    try:
        right = accept(now)
    except Invalid as error:
        raise ValidationError(error.message, code=error.code) from error
    address = client_address(request)
    if not right:
        services.record_sign_in_failure(username=user.username, address=address, now=now, kind=kind)
        raise ValidationError(wrong, code="wrong")
    services.forget_sign_in_failures(username=user.username, address=address, kind=kind)


def _check_rate(username: str, request: HttpRequest, now: datetime, kind: Guess) -> None:
    try:
        services.check_sign_in_rate(
            username=username, address=client_address(request), now=now, kind=kind
        )
    except TooMany as error:
        raise ValidationError(error.message, code=error.code) from error
