"""Bearer tokens for the API."""

from django.utils import translation
from django.utils.translation import gettext as _
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from fleet.accounts import services
from fleet.accounts.models import User
from fleet.core import clock


def bearer(header: str) -> str | None:
    """The token of an `Authorization: Bearer …` header, or None when it is something else."""
    scheme, _space, secret = header.partition(" ")
    if scheme.lower() != "bearer":
        return None
    return secret.strip()


class TokenAuthentication(BaseAuthentication):
    def authenticate(self, request: Request) -> tuple[User, None] | None:
        secret = bearer(request.headers.get("Authorization", ""))
        if secret is None:
            return None
        user = services.use_token(secret, now=clock.now()) if len(secret) <= 200 else None
        if user is None:
            raise AuthenticationFailed(
                _("This token is unknown or has expired. Ask an administrator for a new one.")
            )
        if "Accept-Language" not in request.headers:
            translation.activate(user.language)
        return user, None

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"
