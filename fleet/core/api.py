"""How the API says that something cannot be: `{"error": code, "detail": text with the remedy}`.

The code and the keys are for programs and never change; the text is in the reader's language.
"""

from collections.abc import Callable, Iterator
from typing import Any

from django.core.exceptions import PermissionDenied, RequestDataTooBig
from django.http import Http404, HttpRequest, JsonResponse
from django.utils.translation import gettext as _
from rest_framework import exceptions
from rest_framework.renderers import JSONRenderer
from rest_framework.response import Response
from rest_framework.views import exception_handler as drf_handler

from fleet.core.errors import PortalError

_FIELDS_NAMED = 5
# Where programs read the answer, not people.
_FOR_PROGRAMS = ("/api/", "/enrol/", "/-/", "/metrics")


def exception_handler(error: Exception, context: dict[str, Any]) -> Response | None:
    """Ours, Django's and the framework's errors in one form. None: our own fault, a 500."""
    # JSON whatever was asked for: the description of the API is to be had in YAML too.
    context["request"].accepted_renderer = JSONRenderer()
    context["request"].accepted_media_type = JSONRenderer.media_type
    if isinstance(error, PortalError):
        return Response(body(error), status=error.status)
    if isinstance(error, exceptions.NotFound):  # of the pages of a list, and of nothing else
        detail = _("There is no such page. Begin with page 1 and follow “next”.")
        return Response({"error": "not_found", "detail": detail}, status=404)
    if isinstance(error, Http404):
        return Response(plain("not_found"), status=404)
    if isinstance(error, RequestDataTooBig):
        return Response(plain("too_large"), status=413)
    if isinstance(error, PermissionDenied):
        return Response(plain("not_allowed"), status=403)
    response = drf_handler(error, context)
    if response is None or not isinstance(error, exceptions.APIException):
        return response
    if isinstance(error, exceptions.ValidationError):
        named = ", ".join(list(_paths(error.detail))[:_FIELDS_NAMED])
        response.data = {
            "error": "invalid",
            "detail": _("This is wrong: %(fields)s. Correct it and send it again.")
            % {"fields": named},
            "fields": error.detail,
        }
    else:
        response.data = {"error": error.default_code, "detail": _detail(error, context)}
    return response


def body(error: PortalError) -> dict[str, str]:
    """`reason` is there when the portal refused what a person asked of a device and the code does
    not say why: the same stands in the audit."""
    told = {"error": error.code, "detail": error.message}
    return told | {"reason": error.reason} if error.reason not in ("", error.code) else told


def plain(code: str, **values: Any) -> dict[str, str]:
    """The body of an error that needs no more than its code to be explained."""
    texts: dict[str, str] = {
        "bad_request": _("The request is not complete or not valid. Correct it and send it again."),
        "unknown_name": _(
            "The portal does not answer under this name. Use the one you were given; whoever runs "
            "the portal adds another to PATENCY_ORIGINS."
        ),
        "not_allowed": _("Your role does not include this. Ask an administrator."),
        "not_found": _("There is nothing here, or not for you. Check the identifier."),
        "method_not_allowed": _("This cannot be done here. Possible are: %(methods)s."),
        "timeout": _("The request took too long to arrive. Send it again."),
        "too_large": _("The request is too large. Send less at once."),
        "server_error": _(
            "Something went wrong on our side, and has been recorded. Try again in a moment; "
            "if it stays, tell device support."
        ),
        "busy": _("The portal is busy. Try again in a moment."),
        "second_factor": _(
            "Your account needs a second factor. Open the portal in the browser and set it up."
        ),
    }
    return {"error": code, "detail": texts[code] % values if values else texts[code]}


def wants_json(request: HttpRequest) -> bool:
    return request.path.startswith(_FOR_PROGRAMS)


def answer(code: str, status: int, **values: Any) -> JsonResponse:
    """An error outside the framework's views."""
    return JsonResponse(plain(code, **values), status=status)


def _paths(detail: Any, path: str = "") -> Iterator[str]:
    """The names of the wrong fields: `level`, `filter.site`, `services.0`."""
    if isinstance(detail, dict):
        for name, inner in detail.items():
            here = path if name == "non_field_errors" else f"{path}.{name}" if path else str(name)
            yield from _paths(inner, here)
    elif isinstance(detail, list) and any(isinstance(one, dict | list) for one in detail):
        for number, inner in enumerate(detail):
            if inner:
                yield from _paths(inner, f"{path}.{number}" if path else str(number))
    else:
        yield path or _("the whole")


def _detail(error: exceptions.APIException, context: dict[str, Any]) -> str:
    for kind, words in _WORDS.items():
        if isinstance(error, kind):
            return words(context)
    return str(error.detail)  # ours: of the sign-in and of the parser


# What the framework says in its own words, without a remedy.
_WORDS: dict[type[exceptions.APIException], Callable[[dict[str, Any]], str]] = {
    exceptions.NotAuthenticated: lambda _context: _(
        "Who you are is not known. Send “Authorization: Bearer TOKEN”; "
        "a token is made in the portal, under “Account”."
    ),
    exceptions.PermissionDenied: lambda _context: _(
        "This needs a token, or the page's own form: the browser's cookie alone does not do. "
        "Reload the page and try again, or send “Authorization: Bearer TOKEN”."
    ),
    exceptions.MethodNotAllowed: lambda context: plain(
        "method_not_allowed", methods=", ".join(context["view"].allowed_methods)
    )["detail"],
    exceptions.NotAcceptable: lambda context: (
        _("There is no such form of the answer. Send “Accept: %(types)s”, or no “Accept” at all.")
        % {"types": ", ".join(r.media_type for r in context["view"].renderer_classes)}
    ),
    exceptions.UnsupportedMediaType: lambda _context: _(
        "Send JSON, and say so: “Content-Type: application/json”."
    ),
}
