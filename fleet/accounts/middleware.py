"""The signed-in person's language, over what the browser asked for."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from django.utils import translation

from fleet.accounts.models import User


class UserLanguageMiddleware:
    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        user = request.user
        if isinstance(user, User):
            translation.activate(user.language)
            request.LANGUAGE_CODE = translation.get_language() or user.language
        response = self.get_response(request)
        response.setdefault("Content-Language", translation.get_language() or "en")
        return response
