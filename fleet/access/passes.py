"""What lets the browser client at the access origin reach one session (docs/browser.md).

A *ticket* goes with the specialist to the access origin, in the fragment of a link, and is given
up there, once and within TICKET_LIFE, for a *pass*. The pass opens that one session to that one
person: to look, answer, end and stream, from pages of the access origin alone. It ends with the
session, but for a short look at how that ended. Of both only digests are kept. None of it signs
anything: the injector judges the passkey (R-ACC-4).
"""

import secrets
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.utils.translation import gettext as _

from agent.wire.catalogue import Outcome
from fleet.access.models import OPEN_STATES, BrowserPass, Session
from fleet.access.selectors import sessions_for
from fleet.access.transitions import record
from fleet.accounts.models import User
from fleet.accounts.permissions import Action, allowed
from fleet.accounts.selectors import token_digest
from fleet.core.errors import Conflict, NotAllowed

TICKET_LIFE = timedelta(minutes=5)
LAST_LOOK = timedelta(minutes=10)  # after the session's end
TERMINALS = ("terminal", "console")  # services that a terminal shows; the client's list (work.js)
_MOST = 50  # links of one session


def offered(user: User, session: Session) -> bool:
    """Whether this person may open this session in the browser."""
    return (
        bool(settings.PATENCY_ACCESS_ORIGIN)
        and session.specialist_id == user.pk
        and allowed(user, Action.ACCESS_ANSWER)
        and not session.over
        and any(service in TERMINALS for service in session.services)
    )


def link(*, actor: User, session: Session, now: datetime) -> str:
    """The address to send the specialist's browser to. Raises NotAllowed, Conflict."""
    if session.specialist_id != actor.pk or not allowed(actor, Action.ACCESS_ANSWER):
        raise NotAllowed(_("Only the specialist who asked for the session may use it."))
    if not offered(actor, session):
        raise Conflict(
            _("This session cannot be opened in the browser. Use the command line, or ask again.")
        )
    ticket = secrets.token_urlsafe(32)
    with transaction.atomic():
        mine = BrowserPass.objects.filter(session=session)
        mine.filter(used_at=None).delete()  # the newest link alone works
        if mine.count() >= _MOST:
            raise Conflict(_("This session was opened too often. End it, and ask again."))
        BrowserPass.objects.create(
            session=session, ticket_digest=token_digest(ticket), created_at=now
        )
        record(session, actor=actor.username, action="session:link", now=now)
    return f"{settings.PATENCY_ACCESS_ORIGIN}/#session={session.pk}&ticket={ticket}"


def redeem(ticket: str, *, now: datetime) -> tuple[Session, str] | None:
    """The session and a pass to it, for a ticket that is good. One that was used is on record."""
    digest, token = token_digest(ticket), secrets.token_urlsafe(32)
    with transaction.atomic():
        taken = BrowserPass.objects.filter(
            ticket_digest=digest, used_at=None, created_at__gt=now - TICKET_LIFE,
            session__state__in=OPEN_STATES,
        ).update(used_at=now, token_digest=token_digest(token))  # fmt: skip
        found = (
            BrowserPass.objects.select_related("session__specialist", "session__organisation")
            .filter(ticket_digest=digest)
            .first()
        )
        if found is None:
            return None
        session = found.session
        record(
            session, actor=session.specialist.username, action="session:browser", now=now,
            outcome=Outcome.ALLOWED if taken else Outcome.REFUSED,
        )  # fmt: skip
    return (session, token) if taken else None


def bearer_of(token: str, *, now: datetime) -> tuple[User, Session] | None:
    """Whose pass this is and for which session; None when it is none, or not any more."""
    found = (
        BrowserPass.objects.select_related("session__specialist__organisation")
        .filter(token_digest=token_digest(token), session__specialist__is_active=True)
        .first()
    )
    if found is None or not allowed(found.session.specialist, Action.ACCESS_ANSWER):
        return None
    user = found.session.specialist
    session = sessions_for(user).filter(pk=found.session_id).first()
    if session is None or (session.ended_at and session.ended_at < now - LAST_LOOK):
        return None
    return user, session
