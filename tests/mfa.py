"""The second factor in tests: an authenticator app, and sessions that were opened with it."""

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from django.test import Client

    from fleet.accounts.models import User

SECRET = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
BACKEND = "fleet.accounts.backends.ThrottledBackend"


def code(secret: str = SECRET, *, step: int = 0) -> str:
    """What the app shows, `step` times 30 s from now."""
    from allauth.mfa.totp.internal.auth import format_hotp_value, hotp_value

    return format_hotp_value(hotp_value(secret, int(time.time()) // 30 + step))


def give_app(user: "User", secret: str = SECRET) -> None:
    from fleet.accounts import factors

    if not factors.has(user):
        factors.set_up_totp(user, secret)


def open_session(
    client: "Client", user: "User", *, factor: bool = True, age_s: float = 0
) -> dict[str, Any]:
    """Sign in without the forms, `age_s` ago; returns the session's contents."""
    client.force_login(user, backend=BACKEND)
    session = client.session
    at = time.time() - age_s
    shown: list[dict[str, Any]] = [{"method": "password", "at": at}]
    if factor:
        give_app(user)
        shown.append({"method": "mfa", "type": "totp", "at": at})
    session["account_authentication_methods"] = shown
    session["account_authentication_methods_user"] = str(user.pk)
    session.save()
    return dict(session.items())
