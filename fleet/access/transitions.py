"""The one way a session changes.

A change is claimed by `filter(id, state).update()`: of two that race, one wins and the other is
told so. Each counts the row's version up, is recorded in the audit chain of the same transaction,
and is hinted to whoever watches once that has committed. The legal transitions are
`agent.wire.catalogue.SESSION_TRANSITIONS`; a device's word and a person's go through one table.

    requested ─▶ accepted ─▶ (waiting) ─▶ challenged ─▶ (presence) ─▶ active ─▶ ended
         └──────────┴────────────┴────────────┴─────────────┴─▶ refused | expired | ended

The portal gives up on a state at `expires_at`. The device's own limits are shorter and decide;
these are for a device that is gone.
"""

from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import F

from agent.wire.catalogue import SESSION_TRANSITIONS, Outcome, SessionReason, SessionState
from fleet.access.hub import hub
from fleet.access.models import Session
from fleet.audit import services as audit
from fleet.core import ports

PATIENCE: dict[SessionState, timedelta] = {
    SessionState.REQUESTED: timedelta(minutes=10),
    SessionState.ACCEPTED: timedelta(minutes=10),
    SessionState.WAITING: timedelta(hours=2),
    SessionState.CHALLENGED: timedelta(minutes=15),
    SessionState.PRESENCE: timedelta(minutes=15),  # a site allows 10 at most
}
# The same words as in the device's chain, where the device has them.
ACTIONS: dict[SessionState, str] = {
    SessionState.REQUESTED: "session:request",
    SessionState.ACCEPTED: "session:accept",
    SessionState.WAITING: "session:wait",
    SessionState.CHALLENGED: "session:challenge",
    SessionState.PRESENCE: "session:presence",
    SessionState.ACTIVE: "session:start",
    SessionState.REFUSED: "session:refuse",
    SessionState.EXPIRED: "session:expire",
    SessionState.ENDED: "session:end",
}
OVERRUN = timedelta(minutes=1)  # beyond an active session's end, before the portal closes it itself


class IllegalTransitionError(ValueError):
    """The table has no such arrow: a fault of the caller's, or a device's lie."""


def may_move(session: Session, to: SessionState) -> bool:
    return to in SESSION_TRANSITIONS[SessionState(session.state)]


def move(
    session: Session,
    to: SessionState,
    *,
    actor: str,
    now: datetime,
    action: str | None = None,
    reason: SessionReason | None = None,
    digest: str | None = None,
    **fields: Any,
) -> bool:
    """Take the session to a new state, in the caller's transaction. `action` for the audit follows
    from the state unless it is given.

    False when the row is no longer in the state that `session` says; nothing was changed then.
    Raises IllegalTransitionError.
    """
    if not may_move(session, to):
        raise IllegalTransitionError(f"{session.state} to {to}")
    fields |= {
        "state": to.value,
        "state_reason": reason.value if reason else "",
        "expires_at": _patience_ends(session, to, now, fields),
    }
    if to.over:
        fields["ended_at"] = now
    if not claim(session, Session.objects.filter(pk=session.pk, state=session.state), fields):
        return False
    record(
        session, actor=actor, action=action or ACTIONS[to], reason=reason, digest=digest, now=now
    )
    tell(session)
    if to.over:
        transaction.on_commit(lambda: hub.end(session.pk), robust=True)
    return True


def claim(session: Session, rows: Any, fields: dict[str, Any]) -> bool:
    """Write the fields to the row if it is still among `rows`, and to the object as well."""
    if rows.update(version=F("version") + 1, **fields) != 1:
        return False
    for name, value in fields.items():
        setattr(session, name, value)
    session.version += 1
    return True


def record(
    session: Session,
    *,
    actor: str,
    action: str,
    now: datetime,
    outcome: Outcome | None = None,
    reason: SessionReason | None = None,
    digest: str | None = None,
) -> None:
    """Append to the audit chain, under the request's digest unless another is given: the device
    writes the same digests in its own chain, so that the two can be compared (R-ACC-10)."""
    refused = session.state in (SessionState.REFUSED, SessionState.EXPIRED)
    audit.record(
        organisation=session.organisation,
        actor=actor,
        action=action,
        outcome=outcome or (Outcome.REFUSED if refused else Outcome.ALLOWED),
        device=session.device,
        session=session.pk,
        reason=reason.value if reason else None,
        digest=digest or session.request_digest,
        now=now,
    )


def tell(session: Session) -> None:
    """Hint to the pages of the session, its device and its organisation."""
    payload = {
        "kind": "session",
        "session": session.pk,
        "device": session.device_id,
        "state": session.state,
        "version": session.version,
    }
    for group in (
        f"session.{session.pk}",
        f"device.{session.device_id}",
        f"organisation.{session.organisation_id}",
    ):
        ports.hint(group, payload)


def _patience_ends(
    session: Session, to: SessionState, now: datetime, fields: dict[str, Any]
) -> datetime | None:
    if to.over:
        return None
    if to is SessionState.ACTIVE:
        ends_at: datetime = fields["ends_at"]
        return ends_at + OVERRUN
    return now + PATIENCE[to]
