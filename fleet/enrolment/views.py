"""Enrolment over HTTPS."""

from django.http import HttpRequest, JsonResponse


def enrol(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"error": "not_found"}, status=404)
