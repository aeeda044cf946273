"""Writes about people: tokens, keys, failed sign-ins."""

import base64
import hashlib
import secrets
from collections.abc import Collection
from datetime import datetime, timedelta
from enum import StrEnum

from django.db import transaction
from django.utils.translation import gettext as _

from agent.wire import sshsig
from fleet.accounts.models import ApiToken, Role, SignInFailure, SpecialistKey, User
from fleet.accounts.permissions import Scope, scopes_of
from fleet.accounts.selectors import live_token, token_digest
from fleet.audit import services as audit
from fleet.core import clock
from fleet.core.errors import Invalid, TooMany

TOKEN_PREFIX = "pat_"  # noqa: S105  (lets people and scanners recognise a token)
MAX_TOKEN_LIFE = timedelta(days=366)
MAX_WRITING_LIFE = timedelta(days=90)
_USED_STEP = timedelta(minutes=1)

# Guessing is slowed per person from one address, per person, and per address.
FAILURE_WINDOW = timedelta(minutes=15)
MAX_FAILURES_PAIR = 5
MAX_FAILURES_USERNAME = 20
MAX_FAILURES_ADDRESS = 50


class Guess(StrEnum):
    """What can be guessed; each is counted by itself, so that no code unlocks a password."""

    PASSWORD = "password"  # noqa: S105
    CODE = "code"  # of the second factor
    DEVICE = "device"  # the short code of a command line that waits


_REASONS = {
    Guess.PASSWORD: "wrong_password",
    Guess.CODE: "wrong_code",
    Guess.DEVICE: "wrong_device_code",
}


def issue_token(
    user: User,
    name: str,
    life: timedelta,
    *,
    scopes: Collection[str] | None = None,
    now: datetime | None = None,
) -> str:
    """A new bearer token, for all that its owner's role includes or for these scopes alone; shown
    once, only its digest is kept. Raises Invalid."""
    now = now or clock.now()
    mine = [scope.value for scope in scopes_of(Role(user.role))]
    wanted = [scope for scope in mine if scopes is None or scope in scopes]
    if scopes is not None and not scopes:
        raise Invalid(_("Choose what the token is for."))
    if not wanted or (scopes is not None and len(wanted) != len(set(scopes))):
        raise Invalid(
            _("Your role does not include that. A token of yours can be for: %(scopes)s.")
            % {"scopes": ", ".join(mine)}
        )
    check_life(wanted, life)
    secret = TOKEN_PREFIX + secrets.token_urlsafe(32)
    ApiToken.objects.create(
        user=user,
        digest=token_digest(secret),
        name=name,
        scopes=" ".join(wanted),
        created_at=now,
        expires_at=now + life,
    )
    return secret


def check_life(scopes: Collection[str], life: timedelta) -> None:
    """Raises Invalid when a token for these may not live that long."""
    if not timedelta(0) < life <= MAX_TOKEN_LIFE:
        raise Invalid(_("A token lives from one second to 366 days. Choose another life."))
    if life > MAX_WRITING_LIFE and set(scopes) != {Scope.READ.value}:
        raise Invalid(_("A token that does more than read lives 90 days at most."))


def use_token(secret: str, *, now: datetime) -> User | None:
    """The token's owner, or None. Remembers the use, to the minute."""
    token = live_token(secret, now=now)
    if token is None:
        return None
    if token.last_used_at is None or now - token.last_used_at > _USED_STEP:
        ApiToken.objects.filter(pk=token.pk).update(last_used_at=now)
    return token.person()


def fingerprint(public_key: bytes) -> str:
    """As `ssh-keygen -l` prints it."""
    digest = hashlib.sha256(sshsig.public_blob(public_key)).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def add_key(user: User, public_key: bytes, *, now: datetime | None = None) -> SpecialistKey:
    """Note a specialist's Ed25519 key (raw, 32 bytes). Believed only once the roster names it."""
    if len(public_key) != 32:
        raise Invalid(_("An Ed25519 public key has 32 bytes. Send the raw key."))
    key, _created = SpecialistKey.objects.get_or_create(
        public_key=public_key,
        defaults={
            "user": user,
            "fingerprint": fingerprint(public_key),
            "created_at": now or clock.now(),
        },
    )
    if key.user_id != user.pk:
        raise Invalid(_("This key belongs to somebody else. Make a key of your own."))
    return key


def check_sign_in_rate(
    *, username: str, address: str, now: datetime, kind: Guess = Guess.PASSWORD
) -> None:
    """Raises TooMany when there were too many failures lately."""
    recent = SignInFailure.objects.filter(at__gt=now - FAILURE_WINDOW, kind=kind.value)
    by_name = recent.filter(username=username[:64])
    if (
        by_name.filter(address=address).count() >= MAX_FAILURES_PAIR
        or by_name.count() >= MAX_FAILURES_USERNAME
        or recent.filter(address=address).count() >= MAX_FAILURES_ADDRESS
    ):
        raise TooMany(_("Too many failed sign-ins. Wait 15 minutes, then try again."))


def record_sign_in_failure(
    *, username: str, address: str, now: datetime, kind: Guess = Guess.PASSWORD
) -> None:
    """Count it; a known person's goes into the audit of their organisation, and so does the lock
    that follows. While sign-in is locked nothing is counted, and so nothing recorded (THREATS)."""
    with transaction.atomic():
        SignInFailure.objects.filter(at__lte=now - FAILURE_WINDOW).delete()
        SignInFailure.objects.create(
            username=username[:64], address=address[:64], at=now, kind=kind.value
        )
        user = User.objects.select_related("organisation").filter(username=username).first()
        if user is not None:
            _audit_failure(user, address[:64], now, kind)


def _audit_failure(user: User, address: str, now: datetime, kind: Guess) -> None:
    reason = _REASONS[kind] if user.is_active else "account_closed"
    _record(user, "account:sign_in", reason, now)
    failures = SignInFailure.objects.filter(username=user.username, kind=kind.value)
    if (
        failures.filter(address=address).count() == MAX_FAILURES_PAIR
        or failures.count() == MAX_FAILURES_USERNAME
    ):
        _record(user, "account:lock", "too_many_failures", now)


def refuse_sign_in(user: User, reason: str, *, now: datetime) -> None:
    """Record that somebody known was not let in, for another reason than a wrong guess."""
    _record(user, "account:sign_in", reason, now)


def _record(user: User, action: str, reason: str, now: datetime) -> None:
    audit.record_refusal(
        organisation=user.organisation, actor=user, action=action, reason=reason, now=now
    )


def forget_sign_in_failures(*, username: str, address: str, kind: Guess = Guess.PASSWORD) -> None:
    SignInFailure.objects.filter(
        username=username[:64], address=address[:64], kind=kind.value
    ).delete()
