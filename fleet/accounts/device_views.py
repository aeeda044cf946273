"""Where a command line asks to be signed in: two calls, as RFC 8628 has them, form-encoded.

They know nobody and use no cookie. An error is RFC 6749's, with our `detail` beside it.
"""

from django.conf import settings
from django.http import HttpRequest, JsonResponse
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from fleet.accounts import device_codes
from fleet.accounts.backends import client_address
from fleet.core import clock
from fleet.core.errors import PortalError

CLIENT = "patency"
GRANT = "urn:ietf:params:oauth:grant-type:device_code"


@csrf_exempt
@require_POST
def authorize(request: HttpRequest) -> JsonResponse:
    if request.POST.get("client_id") != CLIENT:
        return _error("invalid_client", _("Say “client_id=patency”."), 401)
    try:
        started = device_codes.start(
            name=request.POST.get("name", ""),
            scopes=request.POST.get("scope", "").split(),
            address=client_address(request),
            now=clock.now(),
        )
    except PortalError as error:
        code = "invalid_scope" if error.code == "invalid" else error.code
        return _error(code, error.message, error.status)
    where = request.build_absolute_uri(reverse("connect"))
    if settings.SESSION_COOKIE_SECURE:  # a proxy may end TLS
        where = where.replace("http:", "https:", 1)
    return _fresh(
        JsonResponse(
            {
                "device_code": started.device_code,
                "user_code": started.user_code,
                "verification_uri": where,
                "verification_uri_complete": f"{where}?code={started.user_code}",
                "expires_in": started.expires_in_s,
                "interval": started.interval_s,
            }
        )
    )


@csrf_exempt
@require_POST
def token(request: HttpRequest) -> JsonResponse:
    if request.POST.get("client_id") != CLIENT:
        return _error("invalid_client", _("Say “client_id=patency”."), 401)
    if request.POST.get("grant_type") != GRANT:
        return _error("unsupported_grant_type", _("Say “grant_type=%s”.") % GRANT, 400)
    now = clock.now()
    try:
        secret, row = device_codes.ask(request.POST.get("device_code", ""), now=now)
    except PortalError as error:
        return _error(error.code, error.message, 400)
    life = row.token_life.total_seconds() if row.token_life is not None else 0
    return _fresh(
        JsonResponse(
            {
                "access_token": secret,
                "token_type": "Bearer",
                "expires_in": int(life),
                "scope": row.scopes,
            }
        )
    )


def _error(code: str, detail: str, status: int) -> JsonResponse:
    told = {"error": code, "error_description": detail, "detail": detail}
    return _fresh(JsonResponse(told, status=status))


def _fresh(answer: JsonResponse) -> JsonResponse:
    answer["Cache-Control"] = "no-store"
    return answer
