"""The calls of the browser client: for pages of the access origin, by a pass for one session.

They stand apart from the rest of the API, so that a pass opens nothing else and no other call is
open to another origin. A session that is over can still be looked at: the client says how it ended.
"""

from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.cache import patch_vary_headers
from django.utils.translation import gettext as _
from django.views.decorators.csrf import csrf_exempt
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.authentication import BaseAuthentication
from rest_framework.decorators import api_view, authentication_classes, permission_classes
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response

from fleet.access import passes, services
from fleet.access.api import AnswerSerializer, SessionSerializer
from fleet.access.models import Session
from fleet.accounts.authentication import bearer
from fleet.accounts.models import User
from fleet.core import clock
from fleet.core.serializers import StrictSerializer

_MAX_TOKEN = 100  # characters
_HEADERS = "authorization, content-type, accept-language"
View = Callable[..., HttpResponseBase]


def from_access_origin(view: View, method: str) -> View:
    """Let scripts of the access origin, and of no other, make this call and read its answer."""

    @csrf_exempt  # no cookie is looked at
    def wrapped(request: HttpRequest, *args: Any, **options: Any) -> HttpResponseBase:
        origin = settings.PATENCY_ACCESS_ORIGIN
        is_theirs = bool(origin) and request.headers.get("Origin") == origin
        if request.method == "OPTIONS":
            response: HttpResponseBase = HttpResponse(status=204)
            if is_theirs:
                response["Access-Control-Allow-Methods"] = method
                response["Access-Control-Allow-Headers"] = _HEADERS
                response["Access-Control-Max-Age"] = "600"
        else:
            response = view(request, *args, **options)
        if is_theirs:
            response["Access-Control-Allow-Origin"] = origin
        response["Cache-Control"] = "no-store"
        patch_vary_headers(response, ["Origin"])
        return response

    return wrapped


class PassAuthentication(BaseAuthentication):
    """`request.auth` is the one session that the pass is for."""

    def authenticate(self, request: Request) -> tuple[User, Session]:
        token = bearer(request.headers.get("Authorization", "")) or ""
        found = passes.bearer_of(token, now=clock.now()) if 0 < len(token) <= _MAX_TOKEN else None
        if found is None:
            raise AuthenticationFailed(
                _("This pass is unknown or over. Open the session from its page in the portal.")
            )
        return found

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


class TicketSerializer(StrictSerializer):
    ticket = serializers.CharField(max_length=_MAX_TOKEN)


class PassSerializer(serializers.Serializer[Any]):
    session = serializers.CharField()
    token = serializers.CharField(help_text="A bearer token for this session, until it is over.")


@extend_schema(
    summary="Give up the ticket of a link for a pass to its session; for the browser client",
    request=TicketSerializer,
    responses=PassSerializer,
)
@api_view(["POST"])
@authentication_classes([])
@permission_classes([AllowAny])
def redeem(request: Request) -> Response:
    given = TicketSerializer(data=request.data)
    given.is_valid(raise_exception=True)
    found = passes.redeem(given.validated_data["ticket"], now=clock.now())
    if found is None:
        return Response(
            {
                "error": "not_authenticated",
                "detail": _("This link was used before, or is older than five minutes."),
            },
            status=401,
        )
    session, token = found
    return Response({"session": session.pk, "token": token})


def _mine(request: Request) -> Session:
    session = request.auth
    if not isinstance(session, Session):
        raise TypeError("a call of the browser client is authenticated by a pass")
    return session


@extend_schema(
    summary="The session of this pass; for the browser client", responses=SessionSerializer
)
@api_view(["GET"])
@authentication_classes([PassAuthentication])
def look(request: Request) -> Response:
    return Response(SessionSerializer(_mine(request)).data)


@extend_schema(
    summary="Pass the passkey's proof to the device; for the browser client",
    request=AnswerSerializer,
    responses=SessionSerializer,
)
@api_view(["POST"])
@authentication_classes([PassAuthentication])
def answer(request: Request) -> Response:
    session = _mine(request)
    given = AnswerSerializer(data=request.data)
    given.is_valid(raise_exception=True)
    answered = services.answer(
        actor=session.specialist,
        session=session,
        client_key=given.validated_data["client_key"],
        proof=given.validated_data["proof"],
        now=clock.now(),
    )
    return Response(SessionSerializer(answered).data)


@extend_schema(
    summary="End the session of this pass; for the browser client",
    request=None,
    responses=SessionSerializer,
)
@api_view(["POST"])
@authentication_classes([PassAuthentication])
def end(request: Request) -> Response:
    session = _mine(request)
    ended = services.end(actor=session.specialist, session=session, now=clock.now())
    return Response(SessionSerializer(ended).data)
