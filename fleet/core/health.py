"""Is the process alive, is it ready, and its measures."""

import ipaddress
from collections.abc import Callable

from django.conf import settings
from django.db import DatabaseError, connection
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
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
    """Prometheus text format, for programs on this machine. Counts only: no serial, no person.

    To everybody else it is not there: neither at the gate's port, which is open to the internet,
    nor through a proxy. Monitoring from elsewhere has an address of its own (PATENCY_METRICS).
    """
    if not _from_here(request):
        raise Http404
    return HttpResponse(generate_latest(), content_type=CONTENT_TYPE_LATEST)


def probes_need_no_name(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """Middleware: what asks on this machine whether the portal is well asks an address, not one of
    the names that browsers use."""

    def middleware(request: HttpRequest) -> HttpResponse:
        if request.path in ("/-/live", "/-/ready") and _is_loopback(request):
            request.META["HTTP_HOST"] = settings.ALLOWED_HOSTS[0]
        return get_response(request)

    return middleware


# What proxies add: behind one, everybody's address is the proxy's.
_FORWARDED = ("HTTP_FORWARDED", "HTTP_X_FORWARDED_FOR", "HTTP_X_REAL_IP", "HTTP_VIA")


def _from_here(request: HttpRequest) -> bool:
    """A program on this machine, over the plain port."""
    if request.scheme != "http" or any(name in request.META for name in _FORWARDED):
        return False
    return _is_loopback(request)


def _is_loopback(request: HttpRequest) -> bool:
    try:
        return ipaddress.ip_address(request.META.get("REMOTE_ADDR", "")).is_loopback
    except ValueError:
        return False
