"""Reads about people."""

import hashlib
from datetime import datetime

from fleet.accounts.models import ApiToken


def token_digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def live_token(secret: str, *, now: datetime) -> ApiToken | None:
    """The token with this secret, if it has not expired and its owner is active."""
    return (
        ApiToken.objects.select_related("user__organisation")
        .filter(digest=token_digest(secret), expires_at__gt=now, user__is_active=True)
        .first()
    )
