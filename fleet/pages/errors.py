"""Error pages: what went wrong, what to do about it, in the reader's language.

A program that calls an address of its own gets the same as JSON (fleet.core.api).
"""

from collections.abc import Callable

from django.core.exceptions import DisallowedHost
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.shortcuts import render
from django.utils.translation import gettext as _

from fleet.core import api


def error_page(
    request: HttpRequest, status: int, text: str = "", *, title: str = ""
) -> HttpResponse:
    titles = {
        400: _("This cannot be understood"),
        403: _("Not for your role"),
        404: _("Nothing here"),
        405: _("Not done this way"),
        409: _("Not possible now"),
        429: _("Too many tries"),
        500: _("Something went wrong on our side"),
    }
    texts = {
        400: _("The request is not complete or not valid. Go back, reload the page and try again."),
        403: _("Your role does not include this. Ask an administrator."),
        404: _("There is nothing here, or not for you. Check the address."),
        405: _("This address answers a button or a form of ours. Go back and use that one."),
        500: _("It has been recorded. Try again in a moment; if it stays, tell device support."),
    }
    context = {
        "status": status,
        "title": title or titles.get(status, titles[400]),
        "text": text or texts.get(status, texts[400]),
    }
    return render(request, "pages/error.html", context, status=status)


def bad_request(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    code = "unknown_name" if isinstance(exception, DisallowedHost) else "bad_request"
    if api.wants_json(request):
        return api.answer(code, 400)
    return error_page(request, 400, api.plain(code)["detail"] if code == "unknown_name" else "")


def permission_denied(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    if api.wants_json(request):
        return api.answer("not_allowed", 403)
    return error_page(request, 403)


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    if api.wants_json(request):
        return api.answer("not_found", 404)
    return error_page(request, 404)


def server_error(request: HttpRequest) -> HttpResponse:
    if api.wants_json(request):
        return api.answer("server_error", 500)
    return error_page(request, 500)


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    return error_page(
        request,
        403,
        _("This form was open for too long. Go back, reload the page and try again."),
        title=_("This form has expired"),
    )


def explain_methods(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """Middleware: Django's answer to the wrong method is an empty page, with no way back."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        if not isinstance(response, HttpResponseNotAllowed) or response.content:
            return response
        methods = response["Allow"]
        if api.wants_json(request):
            told: HttpResponse = api.answer("method_not_allowed", 405, methods=methods)
        else:
            told = error_page(request, 405)
        told["Allow"] = methods
        return told

    return middleware
