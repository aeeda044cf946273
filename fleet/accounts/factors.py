"""The second factor: who needs one, who has one, whether a session was opened with one.

Of the vendor's people it is required (R-ACC-1): they reach every hospital. What a session was
opened with stands in the session itself, where allauth keeps it, so that pages, API and websockets
ask the same question. A passkey that verified its person counts as both factors.
"""

import hmac
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from allauth.account.authentication import AUTHENTICATION_METHODS_SESSION_KEY
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import TOTP, format_hotp_value, hotp_value
from django.conf import settings
from django.db import transaction
from django.utils.translation import gettext as _

from fleet.accounts.models import OrganisationKind, User
from fleet.accounts.sealing import UnreadableError, unseal
from fleet.core.errors import Invalid

PERIOD_S = 30  # of a TOTP code
_MAIN = (Authenticator.Type.TOTP, Authenticator.Type.WEBAUTHN)
_RECORDS_OF = "account_authentication_methods_user"  # allauth's key for whose the records are


def needed(user: User) -> bool:
    return user.organisation.kind == OrganisationKind.VENDOR


def has(user: User) -> bool:
    return Authenticator.objects.filter(user=user, type__in=_MAIN).exists()


def records(session: Mapping[str, Any], user: User) -> list[dict[str, Any]]:
    """What this person showed in this session: allauth's {"method", "at", …}, oldest first."""
    if session.get(_RECORDS_OF) != str(user.pk):
        return []
    found = session.get(AUTHENTICATION_METHODS_SESSION_KEY)
    return found if isinstance(found, list) else []


def passed(session: Mapping[str, Any], user: User) -> bool:
    """Whether this session was opened with a second factor, ours or one that we trust."""
    return any(
        record.get("method") == "mfa" or record.get("second_factor") is True
        for record in records(session, user)
    )


def satisfied(session: Mapping[str, Any], user: User) -> bool:
    """Whether this session may do more than set a second factor up."""
    return not needed(user) or passed(session, user)


def is_last(authenticator: Authenticator) -> bool:
    """Whether nothing but recovery codes would be left without it."""
    others = Authenticator.objects.filter(user_id=authenticator.user_id, type__in=_MAIN)
    return not others.exclude(pk=authenticator.pk).exists()


def may_remove(authenticator: Authenticator, user: User) -> bool:
    return not (needed(user) and is_last(authenticator))


def set_up_totp(user: User, secret: str) -> None:
    """Give a person the authenticator app with this secret (base32): the demo's do not scan."""
    TOTP.activate(user, secret)


def totp_code(secret: str, *, now: datetime) -> str:
    """The six digits that an app with this secret (base32) shows."""
    return format_hotp_value(hotp_value(secret, int(now.timestamp()) // PERIOD_S))


def totp_counter(secret: str, code: str, now: datetime) -> int | None:
    """The time step that the code belongs to, or None: none near `now`."""
    step = int(now.timestamp()) // PERIOD_S
    tolerance = settings.MFA_TOTP_TOLERANCE
    found = None
    for counter in range(step - tolerance, step + tolerance + 1):
        # All of them, always: the time taken tells nothing.
        if hmac.compare_digest(format_hotp_value(hotp_value(secret, counter)), code):
            found = counter
    return found


def accept_totp(authenticator: Authenticator, code: str, *, now: datetime) -> bool:
    """Whether the code is right; then it, and any older one, is used up, in every process.

    Raises Invalid when it is right and was used before.
    """
    with transaction.atomic():
        row = Authenticator.objects.select_for_update().get(pk=authenticator.pk)
        try:
            secret = unseal(row.data["secret"])
        except UnreadableError as error:
            raise Invalid(
                _("Your authenticator app is not known here any more. Ask an administrator.")
            ) from error
        counter = totp_counter(secret, code, now)
        if counter is None:
            return False
        if counter <= row.data.get("last_counter", -1):
            raise Invalid(_("This code was used already. Wait for the next one, half a minute."))
        row.data["last_counter"] = counter
        row.save(update_fields=["data"])
    return True
