"""What people change about their own account."""

from collections.abc import Collection
from datetime import datetime, timedelta

from django.db import transaction
from django.utils.translation import gettext as _

from agent.wire.catalogue import Outcome
from fleet.accounts.models import ApiToken, Language, User
from fleet.accounts.services import issue_token
from fleet.audit import services as audit
from fleet.core.errors import Invalid, NotFound

MAX_TOKENS = 20
MAX_NAME = 80


def set_language(user: User, language: str) -> None:
    """Raises Invalid."""
    if language not in Language.values:
        raise Invalid(_("There is no such language. Choose one of the list."))
    user.language = language
    user.save(update_fields=["language"])


def create_token(
    user: User,
    *,
    name: str,
    life: timedelta,
    now: datetime,
    scopes: Collection[str] | None = None,
    reason: str | None = None,
) -> str:
    """A new token of the person's own; the secret is shown once. `reason` is for the audit.
    Raises Invalid."""
    name = name.strip()
    if not name or len(name) > MAX_NAME or not name.isprintable():
        raise Invalid(_("Give the token a name of at most 80 characters, to know it by later."))
    with transaction.atomic():
        if user.tokens.filter(expires_at__gt=now).count() >= MAX_TOKENS:
            raise Invalid(_("You have 20 tokens already. Revoke one first."))
        secret = issue_token(user, name, life, scopes=scopes, now=now)
        _record(user, "token:create", now, reason)
    return secret


def revoke_token(user: User, token_id: int, *, now: datetime) -> None:
    """Raises NotFound when the token is not the person's own."""
    with transaction.atomic():
        if not ApiToken.objects.filter(user=user, pk=token_id).delete()[0]:
            raise NotFound(_("There is no such token. It may have been revoked already."))
        _record(user, "token:revoke", now)


def _record(user: User, action: str, now: datetime, reason: str | None = None) -> None:
    audit.record(
        organisation=user.organisation,
        actor=user,
        action=action,
        outcome=Outcome.ALLOWED,
        reason=reason,
        now=now,
    )
