"""What is owed to a device: requests, answers and ends that it has not confirmed, and the roster.

Down messages are QoS 0 and live in the database until the device's `accepted` is in: brokers are
pipes. `pending` says what to send when a device connects; `send_again` repeats on a live link.
"""

import hashlib
from collections.abc import Iterable
from datetime import datetime, timedelta

import msgspec
from django.db.models import Q, QuerySet

from agent.wire import messages
from agent.wire.catalogue import SessionState
from agent.wire.messages import (
    AccessRequest,
    Answer,
    End,
    EndReason,
    Message,
    Proof,
    RosterUpdate,
)
from fleet.access.models import OPEN_STATES, Roster, Session
from fleet.core import clock, ports
from fleet.inventory.models import Device

# A session lives eight hours at most, and its end is decided by the device's own clock anyway: an
# end that nobody confirmed for a day concerns nothing that could still be open.
END_OWED_FOR = timedelta(days=1)
REPEAT_AFTER = timedelta(seconds=3)

_NO_ANSWER_YET = Q(answered_at__isnull=False, answer_accepted_at=None, state="challenged")
_REQUEST_OWED = Q(accepted_at=None, state=SessionState.REQUESTED.value)
_END_OWED = ~Q(end_reason="") & Q(end_accepted_at=None)


def pending(device: Device) -> list[Message]:
    """Everything owed to the device, oldest first; its roster before what is judged by it."""
    now = clock.now()
    owed: list[Message] = []
    update = roster_for(device)
    if update is not None:
        owed.append(update)
    for session in _owed(now).filter(device=device).order_by("created_at"):
        owed.extend(_messages(session))
    return owed


def send_again(now: datetime) -> None:
    """Repeat to devices on line what they have had time to confirm and have not."""
    settled = now - REPEAT_AFTER
    late = (
        _owed(now)
        .filter(device__online=True)
        .filter(
            Q(_REQUEST_OWED, created_at__lte=settled)
            | Q(_NO_ANSWER_YET, answered_at__lte=settled)
            | Q(_END_OWED, ended_at__lte=settled)
        )
    )
    for session in late[:500]:
        for message in _messages(session):
            ports.send_down(session.device_id, message)


def send_end(session: Session) -> None:
    """Tell the device that the session is over, once the transaction has committed."""
    ports.send_down(session.device_id, end_message(session))


def end_message(session: Session) -> End:
    return End(session=session.pk, reason=EndReason(session.end_reason))


def roster_for(device: Device) -> RosterUpdate | None:
    """The newest roster, if the device has an older one."""
    newest = Roster.objects.order_by("-version").first()
    if newest is None or newest.version <= device.roster_version:
        return None
    return roster_message(newest)


def roster_message(roster: Roster) -> RosterUpdate:
    return RosterUpdate(roster=bytes(roster.roster), signature=bytes(roster.signature))


def _owed(now: datetime) -> QuerySet[Session]:
    return Session.objects.filter(
        Q(_REQUEST_OWED | _NO_ANSWER_YET, state__in=OPEN_STATES)
        | Q(_END_OWED, ended_at__gt=now - END_OWED_FOR)
    )


def _messages(session: Session) -> Iterable[Message]:
    if session.over:
        yield end_message(session)
        return
    if session.state == SessionState.REQUESTED.value:
        yield messages.decode_down(
            AccessRequest.TYPE, AccessRequest.VERSION, bytes(session.request)
        )
    elif session.answered_at is not None and session.answer_accepted_at is None:
        yield answer_message(session)


def digest(message: Message) -> str:
    """SHA-256 (hex) of the payload, as the device sees it."""
    return hashlib.sha256(messages.encode(message)).hexdigest()


def answer_message(session: Session) -> Answer:
    return Answer(
        session=session.pk,
        client_key=bytes(session.client_key or b""),
        proof=msgspec.json.decode(bytes(session.proof or b""), type=Proof),
    )
