"""What holds for every request of a signed-in person: language, second factor, last seen."""

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import translation

from fleet.accounts import factors, sign_ins
from fleet.accounts.models import User
from fleet.core import api, clock

# Names of routes that a session without the second factor it needs may still use: they set one
# up, or show nothing of anybody.
OPEN_WITHOUT_FACTOR = frozenset(
    {
        "account_login", "account_logout", "account_reauthenticate", "second-factor",
        "mfa_activate_totp", "mfa_add_webauthn", "language", "live", "ready", "metrics", "enrol",
        "allow-list", "allow-list-json", "allow-list-text", "openid_connect_login",
        "openid_connect_callback", "organisation",
    }
)  # fmt: skip

Respond = Callable[[HttpRequest], HttpResponse]


class UserLanguageMiddleware:
    """The signed-in person's language, over what the browser asked for."""

    def __init__(self, get_response: Respond) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        user = request.user
        if isinstance(user, User):
            translation.activate(user.language)
            request.LANGUAGE_CODE = translation.get_language() or user.language
        response = self.get_response(request)
        response.setdefault("Content-Language", translation.get_language() or "en")
        return response


class SecondFactorMiddleware:
    """Who needs a second factor, and has not shown one in this session, gets to the pages that
    set one up and to no other. Tokens are not sessions: they were made in one that had it."""

    def __init__(self, get_response: Respond) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_view(
        self, request: HttpRequest, view: Any, args: Any, kwargs: Any
    ) -> HttpResponse | None:
        user = request.user
        if not isinstance(user, User) or factors.satisfied(request.session, user):
            return None
        match = request.resolver_match
        if match is not None and match.url_name in OPEN_WITHOUT_FACTOR:
            return None
        if api.wants_json(request):
            return api.answer("second_factor", 403)
        if factors.has(user):
            query = urlencode({"next": request.get_full_path()}) if request.method == "GET" else ""
            return redirect(f"{reverse('account_reauthenticate')}?{query}")
        return redirect("second-factor")


class SeenMiddleware:
    """Keeps “last seen” in the list of a person's sessions."""

    def __init__(self, get_response: Respond) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        if isinstance(request.user, User) and request.session.session_key:
            sign_ins.touch(request.session.session_key, now=clock.now())
        return response
