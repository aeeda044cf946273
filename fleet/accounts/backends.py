"""Sign-in with user name and password, slowed down when somebody guesses."""

from typing import Any

from django.contrib.auth.backends import ModelBackend
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest

from fleet.accounts import services
from fleet.accounts.models import User
from fleet.core import clock
from fleet.core.errors import TooMany


def client_address(request: HttpRequest | None) -> str:
    """The peer's address. No forwarded header is believed: anybody can write one."""
    return str(request.META.get("REMOTE_ADDR", "")) if request is not None else ""


class ThrottledBackend(ModelBackend):
    def authenticate(
        self,
        request: HttpRequest | None,
        username: str | None = None,
        password: str | None = None,
        **kwargs: Any,
    ) -> User | None:
        """The user, or None. Raises PermissionDenied (no other backend is asked) when throttled."""
        if username is None or password is None:
            return None
        address, now = client_address(request), clock.now()
        try:
            services.check_sign_in_rate(username=username, address=address, now=now)
        except TooMany as error:
            raise PermissionDenied(error.message) from error
        user = super().authenticate(request, username=username, password=password, **kwargs)
        if not isinstance(user, User):
            services.record_sign_in_failure(username=username, address=address, now=now)
            return None
        services.forget_sign_in_failures(username=username, address=address)
        return user

    def get_user(self, user_id: int) -> User | None:
        # With the organisation: every permission asks for it.
        user = User.objects.select_related("organisation").filter(pk=user_id).first()
        return user if user is not None and user.is_active else None
