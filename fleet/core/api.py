"""How the API says that something cannot be: `{"error": code, "detail": text with the remedy}`."""

from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import Http404
from django.utils.translation import gettext as _
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.views import exception_handler as drf_handler

from fleet.core.errors import PortalError


def exception_handler(error: Exception, context: dict[str, Any]) -> Response | None:
    """Ours, Django's and the framework's errors in one form. None: our own fault, a 500."""
    if isinstance(error, PortalError):
        return Response({"error": error.code, "detail": error.message}, status=error.status)
    if isinstance(error, Http404):
        detail = _("There is nothing here, or not for you. Check the identifier.")
        return Response({"error": "not_found", "detail": detail}, status=404)
    if isinstance(error, PermissionDenied):
        detail = _("Your role does not include this. Ask an administrator.")
        return Response({"error": "not_allowed", "detail": detail}, status=403)
    response = drf_handler(error, context)
    if response is None or not isinstance(error, exceptions.APIException):
        return response
    if isinstance(error, exceptions.ValidationError):
        response.data = {
            "error": "invalid",
            "detail": _("Some of the input is wrong. Correct the fields named and send it again."),
            "fields": error.detail,
        }
    else:
        response.data = {"error": error.default_code, "detail": str(error.detail)}
    return response
