"""What follows on what allauth did: the audit entry, and the end of a person's other sessions.

allauth tells by signals; these receivers only pass on. Whoever gains or loses a factor, or changes
the password, is signed out everywhere else: a thief's session does not outlive its discovery.
"""

from typing import Any

from allauth.account import signals as account
from allauth.account.internal.flows.login import record_authentication
from allauth.mfa import signals as mfa
from allauth.mfa.models import Authenticator
from django.contrib.auth.signals import user_logged_out
from django.http import HttpRequest

from agent.wire.catalogue import Outcome
from fleet.accounts import factors, sign_ins
from fleet.accounts.models import User
from fleet.audit import services as audit
from fleet.core import clock


def connect() -> None:
    account.user_logged_in.connect(_signed_in, dispatch_uid="accounts")
    account.password_changed.connect(_password_changed, dispatch_uid="accounts")
    user_logged_out.connect(_signed_out, dispatch_uid="accounts")
    mfa.authenticator_added.connect(_added, dispatch_uid="accounts")
    mfa.authenticator_removed.connect(_removed, dispatch_uid="accounts")
    mfa.authenticator_reset.connect(_reset, dispatch_uid="accounts")


def how(request: HttpRequest, user: User) -> str:
    """With what this session was opened, as a code: `password`, `password_totp`, `passkey`, …"""
    shown = []
    for record in factors.records(request.session, user):
        method = record.get("method")
        if method == "mfa":
            shown.append("passkey" if record.get("type") == "webauthn" else str(record["type"]))
        elif method == "socialaccount":
            shown.append("provider")
        elif method == "password":
            shown.append("password")
    return "_".join(dict.fromkeys(shown))[:32] or "unknown"


def _record(user: User, action: str, reason: str | None = None) -> None:
    audit.record(
        organisation=user.organisation,
        actor=user,
        action=action,
        outcome=Outcome.ALLOWED,
        reason=reason,
        now=clock.now(),
    )


def _signed_in(request: HttpRequest, user: User, **_more: Any) -> None:
    _record(user, "account:sign_in", how(request, user))


def _signed_out(request: HttpRequest, user: User | None, **_more: Any) -> None:
    if user is not None:
        _record(user, "account:sign_out")


def _password_changed(request: HttpRequest, user: User, **_more: Any) -> None:
    _record(user, "account:password")
    _end_others(request, user)


def _added(request: HttpRequest, user: User, authenticator: Authenticator, **_more: Any) -> None:
    _record(user, "account:factor_add", str(authenticator.type))
    if authenticator.type == Authenticator.Type.RECOVERY_CODES:
        return  # they come with the first factor
    # It was just shown: a code was typed, a passkey was used.
    record_authentication(request, user, "mfa", id=authenticator.pk, type=authenticator.type)
    _end_others(request, user)


def _removed(request: HttpRequest, user: User, authenticator: Authenticator, **_more: Any) -> None:
    _record(user, "account:factor_remove", str(authenticator.type))
    _end_others(request, user)


def _reset(request: HttpRequest, user: User, **_more: Any) -> None:
    _record(user, "account:codes_new")
    _end_others(request, user)


def _end_others(request: HttpRequest, user: User) -> None:
    sign_ins.end_others(user, keep=request.session.session_key, now=clock.now())
