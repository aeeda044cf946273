"""Showing again who one is, before what would hurt most where a screen was left open.

`confirmed` lets a view through when the person signed in, or confirmed it, within the last five
minutes; else allauth's middleware keeps the form and sends them to the page that asks.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

from allauth.account.internal.flows.reauthentication import STATE_SESSION_KEY
from allauth.core.exceptions import ReauthenticationRequired
from django.conf import settings
from django.contrib.sessions.backends.base import SessionBase
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.translation import gettext as _

from fleet.accounts import factors
from fleet.accounts.models import User
from fleet.core import clock
from fleet.core.errors import PortalError


class NotRecent(PortalError):
    """A program of a page asks for something that wants a recent confirmation."""

    code = "confirm"
    status = 403

    def __init__(self) -> None:
        super().__init__(
            _("Confirm in the portal who you are, then send this again: /account/confirm/")
        )


View = Callable[..., HttpResponseBase]


def is_recent(session: SessionBase, user: User) -> bool:
    """Whether this person showed who they are within REAUTHENTICATION_TIMEOUT."""
    now = clock.now().timestamp()
    ages = [
        now - record.get("at", 0)
        for record in factors.records(session, user)
        # A provider that remembers the person for hours has not seen them now.
        if record.get("method") != "socialaccount" and record.get("fresh") is not False
    ]
    # A record of the future is of a clock that was set back: it proves nothing.
    return any(-60 <= age < limit_s() for age in ages)


def limit_s() -> int:
    return int(settings.ACCOUNT_REAUTHENTICATION_TIMEOUT)


def confirmed(view: View) -> View:
    """For views under `page`. Raises ReauthenticationRequired, which the middleware takes."""

    @wraps(view)
    def wrapped(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        user = request.user
        if not isinstance(user, User) or not is_recent(request.session, user):
            # A form that was kept here, and given up, must not be sent by a later confirmation.
            request.session.pop(STATE_SESSION_KEY, None)
            raise ReauthenticationRequired
        return view(request, *args, **kwargs)

    return wrapped
