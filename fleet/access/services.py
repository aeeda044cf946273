"""What people do with sessions: ask, answer, end. And what time does: `tick`.

The portal carries; it does not judge. Whether a signature is good, a specialist rostered, a patient
connected: the injector decides (R-ACC-4), and says so in `fleet.access.inbound`.
"""

import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec
from django.db import IntegrityError, transaction
from django.utils.translation import gettext as _

from agent.wire import messages
from agent.wire.catalogue import Level, RequestReason, SessionReason, SessionState
from agent.wire.messages import AccessRequest, EndReason, Proof, SshProof
from fleet.access import asking, outbound
from fleet.access.models import OPEN_STATES, Session
from fleet.access.transitions import PATIENCE, claim, move, record, tell
from fleet.accounts.models import Role, User
from fleet.accounts.permissions import Action, everywhere, require
from fleet.audit import services as audit
from fleet.core import ports
from fleet.core.errors import Conflict, Invalid, NotAllowed, PortalError
from fleet.entitlements import selectors as entitlements
from fleet.inventory.departures import Departure
from fleet.inventory.models import Device


def request(
    *,
    actor: User,
    device: Device,
    level: Level | str,
    services: Sequence[str],
    reason: RequestReason | str,
    ticket: str | None = None,
    note: str = "",
    life: timedelta,
    now: datetime,
) -> Session:
    """Ask for access to a device. `ticket` None or empty: to follow.

    A device that is offline gets the request when it connects, until the session expires. What the
    portal refuses is on record, too (R-ACC-10); what is only mistyped is not. Raises NotAllowed,
    Invalid, Conflict.
    """
    try:
        _may_act_on(actor, device, Action.ACCESS_REQUEST)
        message = asking.message(
            actor=actor,
            device=device,
            level=level,
            services=services,
            reason=reason,
            ticket=ticket or None,
            note=note,
            life=life,
            now=now,
        )
        _entitled(device, message.level, now)
        return _ask(message, actor, device, now)
    except PortalError as error:
        if error.reason:
            refused(actor=actor, device=device, reason=error.reason, now=now)
        raise


def _entitled(device: Device, level: Level, now: datetime) -> None:
    """The injector refuses it as well, by the entitlement that it holds itself (R-ACC-9)."""
    if not entitlements.covers(device, level, now):
        raise Conflict(
            _(
                "This injector is not entitled to remote service at this level now. "
                "Ask an administrator to have its entitlement signed."
            ),
            reason=SessionReason.NOT_ENTITLED.value,
        )


def _ask(message: AccessRequest, actor: User, device: Device, now: datetime) -> Session:
    session = _session(message, actor, device, now)
    try:
        with transaction.atomic():
            session.save(force_insert=True)
            record(session, actor=actor.username, action="session:request", now=now)
            ports.send_down(device.pk, message)
            tell(session)
    except IntegrityError:  # looking first would cost everybody a query, and not be certain
        _refuse_a_second(actor, device)
        raise
    return session


def refused(*, actor: User, device: Device | None, reason: str, now: datetime) -> None:
    """Put on record that the portal did not pass a request on, and why: in the chain of whose the
    device is; where the actor sees no such device, in the actor's own."""
    audit.record_refusal(
        organisation=device.organisation if device else actor.organisation,
        actor=actor,
        action="session:request",
        reason=reason,
        device=device,
        now=now,
    )


def _session(message: AccessRequest, actor: User, device: Device, now: datetime) -> Session:
    payload = messages.encode(message)
    return Session(
        id=message.session,
        device=device,
        organisation=device.organisation,
        specialist=actor,
        level=message.level.value,
        services=message.services,
        reason=message.reason.value,
        ticket=message.ticket or "",
        note=message.note,
        life_s=message.life_s,
        expires_at=now + PATIENCE[SessionState.REQUESTED],
        request=payload,
        request_digest=hashlib.sha256(payload).hexdigest(),
        created_at=now,
    )


def _may_act_on(actor: User, device: Device, action: Action) -> None:
    require(actor, action)
    if not everywhere(actor) and actor.organisation_id != device.organisation_id:
        raise NotAllowed(_("This injector belongs to another organisation."))


def _refuse_a_second(actor: User, device: Device) -> None:
    other = (
        Session.objects.filter(specialist=actor, device=device, state__in=OPEN_STATES)
        .only("pk", "state")
        .first()
    )
    if other is not None:
        raise Conflict(
            _(
                "You have a session with this injector already: %(session)s (%(state)s). "
                "Use it, or end it first."
            )
            % {"session": other.pk, "state": other.state_label},
            reason="second_session",
        )


def answer(
    *, actor: User, session: Session, client_key: bytes, proof: Proof, now: datetime
) -> Session:
    """Pass the specialist's proof on to the device, which judges it.

    The same answer twice is one answer. Raises NotAllowed, Invalid, Conflict.
    """
    try:
        require(actor, Action.ACCESS_ANSWER)
        if session.specialist_id != actor.pk:
            raise NotAllowed(_("Only the specialist who asked can answer."))
    except NotAllowed:
        _refused_in(session, actor, "access:answer", now)
        raise
    if len(client_key) != 32:
        raise Invalid(_("The client's key must have 32 bytes (X25519). Run “patency answer”."))
    if isinstance(proof, SshProof) and not proof.signature.startswith(b"SSHSIG"):
        raise Invalid(_("This is no SSH signature in binary form. Run “patency answer”."))
    encoded = msgspec.json.encode(proof)
    with transaction.atomic():
        rows = Session.objects.filter(
            pk=session.pk, state=SessionState.CHALLENGED.value, answered_at=None
        )
        fields = {"client_key": client_key, "proof": encoded, "answered_at": now}
        if not claim(session, rows, fields):
            return _answered_before(session, client_key, encoded)
        message = outbound.answer_message(session)
        digest = outbound.digest(message)
        record(session, actor=actor.username, action="session:answer", digest=digest, now=now)
        ports.send_down(session.device_id, message)
        tell(session)
    return session


def _answered_before(session: Session, client_key: bytes, proof: bytes) -> Session:
    session.refresh_from_db()
    if session.answered_at is None:
        raise Conflict(
            _("There is nothing to sign in this state: %(state)s.") % {"state": session.state_label}
        )
    same = (bytes(session.client_key or b""), bytes(session.proof or b""))
    if same != (client_key, proof):
        raise Conflict(_("This session has been answered already. Ask for access again."))
    return session


def end(*, actor: User, session: Session, now: datetime) -> Session:
    """End a session; one that is over already stays as it is.

    The device is told until it confirms. Raises NotAllowed.
    """
    try:
        reason = _end_reason(actor, session)
    except NotAllowed:
        _refused_in(session, actor, "access:end", now)
        raise
    with transaction.atomic():
        # Somebody may have been faster since the caller read it; in here, nobody is.
        session.refresh_from_db(fields=["state", "version", "answered_at", "end_reason"])
        if session.over:
            return session
        move(
            session,
            SessionState.ENDED,
            actor=actor.username,
            reason=SessionReason(reason.value),
            now=now,
            ended_by=actor,
            end_reason=reason.value,
        )
        outbound.send_end(session)
    return session


def _refused_in(session: Session, actor: User, action: str, now: datetime) -> None:
    audit.record_refusal(
        organisation=session.organisation,
        actor=actor,
        action=action,
        reason=NotAllowed.code,
        device=session.device,
        session=session.pk,
        now=now,
    )


def _end_reason(actor: User, session: Session) -> EndReason:
    require(actor, Action.ACCESS_END)
    if actor.role == Role.HOSPITAL:
        if session.organisation_id == actor.organisation_id:
            return EndReason.ENDED_BY_HOSPITAL
    elif session.specialist_id == actor.pk:
        return EndReason.ENDED_BY_SPECIALIST
    elif actor.role == Role.ADMINISTRATOR and everywhere(actor):
        return EndReason.ENDED_BY_PORTAL
    raise NotAllowed(
        _("Only the specialist who asked, the hospital or an administrator can end this session.")
    )


def leaving(device: Device, departure: Departure, actor: User, now: datetime) -> None:
    """The device leaves its owner or its site: nobody goes on working on it."""
    rows = Session.objects.select_related("device", "organisation")
    for session in rows.filter(device=device, state__in=OPEN_STATES):
        move(
            session,
            SessionState.ENDED,
            actor=actor.username,
            reason=SessionReason.ENDED_BY_PORTAL,
            now=now,
            ended_by=actor,
            end_reason=EndReason.ENDED_BY_PORTAL.value,
        )
        outbound.send_end(session)


def tick(now: datetime) -> None:
    """Give up on what has waited too long, and send again what devices have not confirmed."""
    for pk in Session.objects.filter(expires_at__lte=now, state__in=OPEN_STATES).values_list(
        "pk", flat=True
    )[:500]:
        _give_up(pk, now)
    outbound.send_again(now)


def _give_up(pk: str, now: datetime) -> None:
    with transaction.atomic():
        session = (
            Session.objects.select_related("device", "organisation")
            .filter(pk=pk, expires_at__lte=now, state__in=OPEN_STATES)
            .first()
        )
        if session is None:
            return
        state = SessionState(session.state)
        move(
            session,
            SessionState.ENDED if state is SessionState.ACTIVE else SessionState.EXPIRED,
            actor="portal",
            reason=_given_up_because(session, state),
            now=now,
            end_reason=EndReason.UNREACHABLE.value,
        )
        outbound.send_end(session)


def _given_up_because(session: Session, state: SessionState) -> SessionReason:
    if state is SessionState.ACTIVE:
        return SessionReason.LIFE_OVER
    if state is SessionState.PRESENCE:
        return SessionReason.NO_APPROVAL
    if state is SessionState.WAITING:
        return SessionReason.IN_USE
    if state is SessionState.CHALLENGED and session.answered_at is None:
        return SessionReason.NO_ANSWER
    return SessionReason.UNREACHABLE
