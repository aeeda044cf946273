"""Is the process alive, is it ready, and its measures."""

from django.db import DatabaseError, connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from fleet.core import readiness


@csrf_exempt  # so that a POST is told that there is none, and not that its form is too old
@require_safe
@never_cache
def live(request: HttpRequest) -> JsonResponse:
    """200 while the process answers."""
    return JsonResponse({"live": True})


@csrf_exempt  # so that a POST is told that there is none, and not that its form is too old
@require_safe
@never_cache
def ready(request: HttpRequest) -> JsonResponse:
    """200 when every part works, 503 with what does not; and what warns."""
    parts, warnings = readiness.report(), list[str]()
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM django_migrations LIMIT 1")
        parts["database"] = True
        warnings = readiness.warnings()
    except DatabaseError:
        parts["database"] = False
    ready = all(parts.values())
    told = {"ready": ready, "parts": parts, "warnings": warnings}
    return JsonResponse(told, status=200 if ready else 503)


@csrf_exempt  # so that a POST is told that there is none, and not that its form is too old
@require_safe
@never_cache
def metrics(request: HttpRequest) -> HttpResponse:
    """Prometheus text format. Counts only: no serial, no person."""
    return HttpResponse(generate_latest(), content_type=CONTENT_TYPE_LATEST)
