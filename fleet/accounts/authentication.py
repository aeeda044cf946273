"""Who calls the API: a bearer token, or a page of ours with the browser's session."""

from django.utils import translation
from django.utils.translation import gettext as _
from rest_framework.authentication import BaseAuthentication, SessionAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.permissions import SAFE_METHODS
from rest_framework.request import Request

from fleet.accounts import recent, services
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


class BrowserAuthentication(SessionAuthentication):
    """Django's session with its CSRF token. What changes something wants, as the pages do, that
    the person has shown lately who they are; a second factor is asked for by the middleware."""

    def authenticate(self, request: Request) -> tuple[User, None] | None:
        """Raises NotRecent."""
        found: tuple[User, None] | None = super().authenticate(request)
        if found is None or request.method in SAFE_METHODS:
            return found
        if not recent.is_recent(request.session, found[0]):
            raise recent.NotRecent
        return found
