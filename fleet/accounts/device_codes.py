"""Signing a command line in from the browser, after RFC 8628.

    waiting ── the person approves ──▶ approved ── the command asks again ──▶ used
       └────── the person denies ────▶ denied
    whatever is not used within LIFE is over.

The command gets a secret (the device code) and a short code to show. Its person types the short
code in the portal, signed in with their second factor and confirmed lately, sees what asks and from
where, and decides for what and for how long. The token goes to whoever holds the secret, once.
"""

import hashlib
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import transaction
from django.utils.translation import gettext as _

from agent.wire.catalogue import Outcome
from fleet.accounts import own, services
from fleet.accounts.models import DeviceCode, Role, User
from fleet.accounts.permissions import Scope, scopes_of
from fleet.accounts.services import Guess
from fleet.audit import services as audit
from fleet.core.errors import Invalid, NotFound, PortalError, TooMany

LIFE = timedelta(minutes=10)
INTERVAL_S = 2  # between two questions of one command
SLOWER_S = 5  # added to it each time it is not kept (RFC 8628, 3.5)
MAX_OF_ADDRESS = 20  # that wait at once
MAX_ALL = 2000
# No vowels, so that no words come out; nothing that is mistaken for something else. 20^8 codes.
ALPHABET = "BCDFGHJKLMNPQRSTVWXZ"
LENGTH = 8


class NotYet(PortalError):
    """The answer to a command that asks, in the words of RFC 8628: `code`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Started:
    device_code: str
    user_code: str  # with its hyphen
    interval_s: int
    expires_in_s: int


def start(*, name: str, scopes: Collection[str], address: str, now: datetime) -> Started:
    """Begin for a command that nobody is known of yet. Raises Invalid, TooMany."""
    name = name.strip() or "patency"
    if len(name) > own.MAX_NAME or not name.isprintable():
        raise Invalid(_("The name has at most 80 printable characters."))
    wanted = [scope.value for scope in Scope if not scopes or scope.value in scopes]
    if len(wanted) < len(set(scopes)):
        raise Invalid(_("There is no such scope. Possible are: %s.") % ", ".join(Scope))
    secret = secrets.token_urlsafe(32)
    with transaction.atomic():
        DeviceCode.objects.filter(expires_at__lte=now).delete()
        waiting = DeviceCode.objects.filter(state="waiting")
        if (
            waiting.filter(address=address[:64]).count() >= MAX_OF_ADDRESS
            or waiting.count() >= MAX_ALL
        ):
            raise TooMany(_("Too many command lines wait to be signed in. Try again in a minute."))
        row = DeviceCode.objects.create(
            digest=_digest(secret),
            user_code=_new_code(),
            name=name,
            scopes=" ".join(wanted),
            address=address[:64],
            created_at=now,
            expires_at=now + LIFE,
            interval_s=INTERVAL_S,
        )
    return Started(secret, shown(row.user_code), INTERVAL_S, int(LIFE.total_seconds()))


def ask(secret: str, *, now: datetime) -> tuple[str, DeviceCode]:
    """The command asks: its token, once. Raises NotYet."""
    with transaction.atomic():
        row = (
            DeviceCode.objects.select_for_update(of=("self",))
            .select_related("user__organisation")
            .filter(digest=_digest(secret[:200]))
            .first()
        )
        problem = _problem(row, now)
        if row is not None and row.state == "waiting":
            row.asked_at = now
            row.save(update_fields=["asked_at", "interval_s"])
        if row is not None and problem is None:
            return _redeem(row, now), row
    raise problem or _unknown()


def _problem(row: DeviceCode | None, now: datetime) -> NotYet | None:
    """What a command that asks is told, if it is not its token. Slows a hasty one down."""
    if row is None or row.state == "used":
        return _unknown()
    if row.expires_at <= now:
        return NotYet("expired_token", _("The code has run out. Begin again."))
    if row.state == "denied" or (row.user is not None and not row.user.is_active):
        return NotYet("access_denied", _("It was denied in the browser."))
    if row.state == "approved":
        return None
    hasty = row.asked_at is not None and now - row.asked_at < timedelta(seconds=row.interval_s)
    if hasty:
        row.interval_s = min(row.interval_s + SLOWER_S, 60)
        return NotYet("slow_down", _("Ask less often."))
    return NotYet("authorization_pending", _("Nobody has decided yet."))


def _unknown() -> NotYet:
    return NotYet("invalid_grant", _("There is no such code, or it was used. Begin again."))


def _redeem(row: DeviceCode, now: datetime) -> str:
    if row.user is None or row.token_life is None:
        raise AssertionError("approved by nobody")
    row.state = "used"
    row.save(update_fields=["state"])
    return own.create_token(
        row.user,
        name=row.name,
        life=row.token_life,
        scopes=_offered(row, row.user),
        now=now,
        reason="device_code",
    )


def _offered(row: DeviceCode, user: User) -> list[str]:
    """What was asked for and the person may do."""
    asked = row.scopes.split()
    return [scope.value for scope in scopes_of(Role(user.role)) if scope.value in asked]


# --- in the browser -------------------------------------------------------------------------------


def find(user: User, typed: str, *, address: str, now: datetime) -> DeviceCode:
    """The command line that shows this code. Guessing is counted. Raises NotFound, TooMany."""
    services.check_sign_in_rate(username=user.username, address=address, now=now, kind=Guess.DEVICE)
    code = "".join(c for c in typed.upper() if c in ALPHABET)
    row = DeviceCode.objects.filter(user_code=code, state="waiting", expires_at__gt=now).first()
    if row is None:
        services.record_sign_in_failure(
            username=user.username, address=address, now=now, kind=Guess.DEVICE
        )
        raise NotFound(_("No command line waits with this code. It may have run out."))
    services.forget_sign_in_failures(username=user.username, address=address, kind=Guess.DEVICE)
    return row


def scopes_for(row: DeviceCode, user: User) -> list[Scope]:
    return [Scope(scope) for scope in _offered(row, user)]


def approve(
    user: User,
    row: DeviceCode,
    *,
    scopes: Collection[str],
    life: timedelta,
    now: datetime,
) -> None:
    """Raises Invalid, NotFound when it was decided or ran out meanwhile."""
    offered = _offered(row, user)
    chosen = [scope for scope in offered if scope in scopes]
    if not chosen:
        raise Invalid(_("Choose what the command line may do, or deny it."))
    services.check_life(chosen, life)
    _decide(user, row, now, state="approved", scopes=" ".join(chosen), token_life=life)


def deny(user: User, row: DeviceCode, *, now: datetime) -> None:
    """Raises NotFound."""
    _decide(user, row, now, state="denied")


def _decide(user: User, row: DeviceCode, now: datetime, **changes: object) -> None:
    with transaction.atomic():
        waiting = DeviceCode.objects.filter(pk=row.pk, state="waiting", expires_at__gt=now)
        if waiting.update(user=user, **changes) != 1:
            raise NotFound(_("That command line no longer waits. Begin again there."))
        allowed = changes["state"] == "approved"
        audit.record(
            organisation=user.organisation,
            actor=user,
            action="token:approve" if allowed else "token:deny",
            outcome=Outcome.ALLOWED,
            now=now,
        )


def shown(user_code: str) -> str:
    return f"{user_code[:4]}-{user_code[4:]}"


def _new_code() -> str:
    return "".join(secrets.choice(ALPHABET) for _position in range(LENGTH))


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
