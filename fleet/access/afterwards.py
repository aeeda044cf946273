"""What a session leaves to do: its ticket where that was to follow, the handover note, and asking
for the same again.

None of it reaches the injector. The note is free text, written here and shown to the hospital; it
stays in the portal, and the audit holds its digest, so that nobody can change it unseen.
"""

import hashlib
import unicodedata
from datetime import datetime, timedelta

from django.db import transaction
from django.utils.translation import gettext as _

from agent.wire.catalogue import Outcome
from fleet.access import asking, services
from fleet.access.models import Session
from fleet.access.transitions import claim, record, tell
from fleet.accounts.models import Role, User
from fleet.accounts.permissions import Action, everywhere, require
from fleet.core.errors import Conflict, Invalid, NotAllowed

MAX_HANDOVER = 2000  # characters
HANDOVER_WITHIN = timedelta(days=1)  # of the session's end


def may_give_ticket(actor: User, session: Session) -> bool:
    """Whether the form is offered; `give_ticket` decides."""
    mine = session.specialist_id == actor.pk or actor.role == Role.ADMINISTRATOR
    return session.ticket_owed and mine and everywhere(actor)


def give_ticket(*, actor: User, session: Session, ticket: str, now: datetime) -> Session:
    """Name the ticket that was to follow. The same one again changes nothing.

    Raises NotAllowed, Invalid, Conflict.
    """
    require(actor, Action.ACCESS_REQUEST)
    mine = session.specialist_id == actor.pk or actor.role == Role.ADMINISTRATOR
    if not mine or not everywhere(actor):
        raise NotAllowed(_("Only the specialist who asked, or an administrator, gives the ticket."))
    if not ticket or not asking.is_ticket(ticket):
        raise Invalid(_("A ticket has letters, digits and “-” only, at most 32."))
    with transaction.atomic():
        rows = Session.objects.filter(pk=session.pk, ticket="")
        if not claim(session, rows, {"ticket": ticket}):
            session.refresh_from_db(fields=["ticket", "version"])
            if session.ticket != ticket:
                raise Conflict(
                    _("This session has the ticket %(ticket)s already, and it stays.")
                    % {"ticket": session.ticket}
                )
            return session
        _record(session, actor, "session:ticket", None, now)
    return session


def may_write_handover(actor: User, session: Session, now: datetime) -> bool:
    """Whether the form is offered; `write_handover` decides."""
    return session.specialist_id == actor.pk and _refused_handover(session, now) is None


def write_handover(*, actor: User, session: Session, text: str, now: datetime) -> Session:
    """Put down what whoever comes next must know; a later text takes the place of an earlier one.

    Raises NotAllowed, Invalid, Conflict.
    """
    require(actor, Action.ACCESS_REQUEST)
    if session.specialist_id != actor.pk:
        raise NotAllowed(_("Only the specialist who did the work writes its handover note."))
    refused = _refused_handover(session, now)
    if refused is not None:
        raise Conflict(refused)
    note = _clean(text)
    if note == session.handover:
        return session
    with transaction.atomic():
        rows = Session.objects.filter(pk=session.pk)
        claim(session, rows, {"handover": note, "handover_at": now})
        digest = hashlib.sha256(note.encode()).hexdigest()
        _record(session, actor, "session:handover", digest, now)
    return session


def _refused_handover(session: Session, now: datetime) -> str | None:
    if session.active_at is None:
        return _("A handover note is written once the session is or was active.")
    if session.ended_at is not None and now - session.ended_at > HANDOVER_WITHIN:
        return _("A handover note is written within a day of the session’s end.")
    return None


def _clean(text: str) -> str:
    note = text.replace("\r\n", "\n").replace("\r", "\n").strip()
    if not note:
        raise Invalid(_("Write the note first."))
    if len(note) > MAX_HANDOVER:
        raise Invalid(
            _("A handover note has at most %(most)s characters. Shorten it.")
            % {"most": MAX_HANDOVER}
        )
    # What steers a terminal, or turns the direction of a line, could hide what is said.
    if any(unicodedata.category(c).startswith("C") for c in note if c != "\n"):
        raise Invalid(_("A handover note has printable characters and line breaks only."))
    return note


def may_ask_again(actor: User, session: Session) -> bool:
    """Whether it is offered; `again` decides."""
    return session.over and session.specialist_id == actor.pk


def again(*, actor: User, session: Session, now: datetime) -> Session:
    """Ask for the same access once more: a new request, judged from the start like any other.

    Raises NotAllowed, Invalid, Conflict.
    """
    require(actor, Action.ACCESS_REQUEST)
    if session.specialist_id != actor.pk:
        raise NotAllowed(_("Only the specialist who asked can ask for the same again."))
    if not session.over:
        raise Conflict(_("This session is still open. Use it, or end it first."))
    return services.request(
        actor=actor,
        device=session.device,
        level=session.level,
        services=session.services,
        reason=session.reason,
        ticket=session.ticket or None,
        note=session.note,
        life=timedelta(seconds=session.life_s),
        now=now,
    )


def _record(session: Session, actor: User, action: str, digest: str | None, now: datetime) -> None:
    record(
        session,
        actor=actor.username,
        action=action,
        outcome=Outcome.ALLOWED,
        digest=digest,
        now=now,
    )
    tell(session)
