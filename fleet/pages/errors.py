"""Error pages: what went wrong, what to do about it, in the reader's language."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext as _


def error_page(request: HttpRequest, status: int, text: str = "") -> HttpResponse:
    titles = {
        400: _("This cannot be understood"),
        403: _("Not for your role"),
        404: _("Nothing here"),
        409: _("Not possible now"),
        429: _("Too many tries"),
        500: _("Something went wrong on our side"),
    }
    texts = {
        400: _("The request is not complete or not valid. Go back, reload the page and try again."),
        403: _("Your role does not include this. Ask an administrator."),
        404: _("There is nothing here, or not for you. Check the address."),
        500: _("It has been recorded. Try again in a moment; if it stays, tell device support."),
    }
    context = {
        "status": status,
        "title": titles.get(status, titles[400]),
        "text": text or texts.get(status, texts[400]),
    }
    return render(request, "pages/error.html", context, status=status)


def bad_request(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return error_page(request, 400)


def permission_denied(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return error_page(request, 403)


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return error_page(request, 404)


def server_error(request: HttpRequest) -> HttpResponse:
    return error_page(request, 500)


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    return error_page(
        request, 403, _("This form was open for too long. Go back, reload the page and try again.")
    )
