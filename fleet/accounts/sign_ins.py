"""The sessions that a person has open: where, since when, last seen; and their end."""

import re
from collections import OrderedDict
from datetime import datetime, timedelta
from threading import Lock

from allauth.usersessions.models import UserSession
from django.contrib.auth import SESSION_KEY
from django.contrib.sessions.backends.base import SessionBase
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session
from django.db import transaction
from django.utils.translation import gettext as _

from agent.wire.catalogue import Outcome
from fleet.accounts.models import DeviceCode, User
from fleet.audit import services as audit
from fleet.core.errors import NotFound

SEEN_STEP = timedelta(minutes=1)
ON_THE_WAY_S = 15 * 60  # between the first page and being in
_REMEMBERED = 10_000  # sessions, in this process

_BROWSERS = (
    ("Edg", "Edge"), ("OPR/", "Opera"), ("Firefox/", "Firefox"), ("Chrom", "Chrome"),
    ("Safari/", "Safari"), ("patency", "patency"),
)  # fmt: skip
_SYSTEMS = (
    (r"Windows", "Windows"), (r"iPhone|iPad", "iOS"), (r"Android", "Android"),
    (r"Mac OS X|Macintosh", "macOS"), (r"CrOS", "ChromeOS"), (r"Linux", "Linux"),
)  # fmt: skip

_seen: OrderedDict[str, datetime] = OrderedDict()
_lock = Lock()


def device_name(user_agent: str) -> str:
    """What a person would call it: “Firefox, Windows”. The browser says so itself: no proof."""
    browser = next((name for mark, name in _BROWSERS if mark in user_agent), "")
    system = next((name for mark, name in _SYSTEMS if re.search(mark, user_agent)), "")
    return ", ".join(filter(None, (browser, system))) or _("Unknown browser")


def open_sessions(user: User) -> list[UserSession]:
    """Newest use first. Those that ended by themselves are cleared away."""
    rows: list[UserSession] = UserSession.objects.purge_and_list(user)
    return sorted(rows, key=lambda row: row.last_seen_at, reverse=True)


def touch(session_key: str, *, now: datetime) -> None:
    """Remember that the session was used, to the minute, at one write a minute."""
    with _lock:
        last = _seen.get(session_key)
        if last is not None and timedelta(0) <= now - last < SEEN_STEP:
            return
        _seen[session_key] = now
        _seen.move_to_end(session_key)
        while len(_seen) > _REMEMBERED:
            _seen.popitem(last=False)
    UserSession.objects.filter(session_key=session_key).update(last_seen_at=now)


def end(user: User, number: int, *, now: datetime) -> None:
    """End one session of the person's own. Raises NotFound."""
    row = UserSession.objects.filter(user=user, pk=number).first()
    if row is None:
        raise NotFound(_("There is no such session. It may have ended already."))
    _end([row], user, now)


def end_others(user: User, *, keep: str | None, now: datetime) -> int:
    """End all but the session with the key `keep`. Returns how many there were."""
    rows = list(UserSession.objects.filter(user=user).exclude(session_key=keep or ""))
    if rows:
        _end(rows, user, now)
    return len(rows)


def begin_briefly(session: SessionBase) -> None:
    """For who is on the way in: what a page keeps for them is not kept for a working day, or
    anybody could fill the database by asking."""
    if session.get(SESSION_KEY) is None:
        session.set_expiry(ON_THE_WAY_S)


def forget(now: datetime) -> None:
    """Clear away sessions that are over, what was listed of them, and codes nobody came for."""
    Session.objects.filter(expire_date__lte=now).delete()
    live = Session.objects.values("session_key")
    UserSession.objects.filter(last_seen_at__lte=now - SEEN_STEP).exclude(
        session_key__in=live
    ).delete()
    DeviceCode.objects.filter(expires_at__lte=now).delete()


def _end(rows: list[UserSession], user: User, now: datetime) -> None:
    with transaction.atomic():
        for row in rows:
            SessionStore().delete(row.session_key)
            row.delete()
        audit.record(
            organisation=user.organisation,
            actor=user,
            action="account:sessions_end",
            outcome=Outcome.ALLOWED,
            now=now,
        )
