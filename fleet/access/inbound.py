"""What devices say about sessions, applied inside the ingest's transaction.

The device's word decides, along the same table as everybody's. Three things are told apart:

* what contradicts what the portal knows (another device's session, another request's digest, an
  arrow that the table does not have): refused, and the device is told so;
* the same news again: nothing changes;
* news that crossed with an end of ours on the way: no lie, but too late. It changes nothing, and
  the End goes out again, since the device does not seem to have it.
"""

import base64
import hashlib
from datetime import datetime, timedelta
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import load_der_x509_certificate

from agent.wire import challenge as challenges
from agent.wire.catalogue import RefusalReason, SessionReason, SessionState
from agent.wire.messages import Accepted, Challenge, EndReason, Receipt, SessionUpdate
from fleet.access import outbound
from fleet.access.models import Roster, Session
from fleet.access.transitions import claim, may_move, move, record, tell
from fleet.core.errors import MessageRefused
from fleet.enrolment.models import Credential
from fleet.inventory.models import Device

FORGED = "session:forged"  # the alarm of a signature that is not the device's own


def challenge(device: Device, message: Challenge, received_at: datetime) -> None:
    """The device's challenge: keep its exact bytes for the specialist. Raises MessageRefused."""
    session = _session(device, message.session)
    if session.challenge is not None and bytes(session.challenge) == message.challenge:
        return
    terms = _terms(session, message.challenge)
    _check_signature(device, message)
    if _crossed(session):
        return
    _go(
        session,
        SessionState.CHALLENGED,
        received_at,
        challenge=message.challenge,
        challenge_signature=message.signature,
        certificates=[base64.b64encode(der).decode() for der in message.certificates],
        presence=terms.presence,
        accepted_at=session.accepted_at or received_at,
    )


def _terms(session: Session, data: bytes) -> challenges.Terms:
    """What the device asks to be signed, if it is what the specialist asked for."""
    try:
        terms = challenges.decode(data)
    except challenges.ChallengeError:
        raise MessageRefused(RefusalReason.MALFORMED) from None
    if (terms.session, terms.request, terms.device) != (
        session.pk,
        session.request_digest,
        session.device_id,
    ):
        raise MessageRefused(RefusalReason.UNKNOWN_REFERENCE)
    asked = (session.specialist.username, session.level, session.services)
    if (terms.specialist, terms.level.value, terms.services) != asked or (
        terms.life_s > session.life_s
    ):
        raise MessageRefused(RefusalReason.MALFORMED)
    return terms


def _check_signature(device: Device, message: Challenge) -> None:
    """Signed by a credential that was issued to this very device. The client checks the same again
    against its own copy of the device root, as it must not believe the portal."""
    try:
        key = load_der_x509_certificate(message.certificates[0]).public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise ValueError("not an EC key")  # noqa: TRY004  (one refusal for all of these)
        key.verify(message.signature, message.challenge, ec.ECDSA(SHA256()))
    except (ValueError, InvalidSignature, UnsupportedAlgorithm):
        raise MessageRefused(RefusalReason.MALFORMED, alarm=FORGED) from None
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    issued = Credential.objects.filter(
        device=device, public_key=hashlib.sha256(spki).hexdigest(), revoked_at=None
    )
    if not issued.exists():
        raise MessageRefused(RefusalReason.MALFORMED, alarm=FORGED)


def session_update(device: Device, message: SessionUpdate, received_at: datetime) -> None:
    """What the device decided, as it happens. Raises MessageRefused."""
    session = _session(device, message.session)
    if message.request != session.request_digest:
        raise MessageRefused(RefusalReason.UNKNOWN_REFERENCE)
    counts = {
        "device_bytes_up": max(session.device_bytes_up, message.bytes_up),
        "device_bytes_down": max(session.device_bytes_down, message.bytes_down),
    }
    if session.over:
        _after_the_end(session, message, counts, received_at)
    elif message.state.value == session.state:
        _same_state(session, message, counts)
    else:
        _changed(session, message, counts, received_at)


def _changed(
    session: Session, message: SessionUpdate, counts: dict[str, Any], received_at: datetime
) -> None:
    to, fields = message.state, counts
    if to is SessionState.CHALLENGED:  # that takes a challenge, which brings its own message
        raise MessageRefused(RefusalReason.ILLEGAL_TRANSITION)
    if to in (SessionState.PRESENCE, SessionState.ACTIVE) and session.answered_at is None:
        raise MessageRefused(RefusalReason.ILLEGAL_TRANSITION)
    fields["accepted_at"] = session.accepted_at or received_at
    if session.answered_at is not None:
        fields["answer_accepted_at"] = session.answer_accepted_at or received_at
    if to is SessionState.ACTIVE:
        fields |= {"active_at": received_at, "ends_at": _ends_at(session, message, received_at)}
        if session.approver is None and message.approvers:  # a receipt, if any, says the same
            fields["approver"] = message.approvers[-1]
    _go(session, to, received_at, reason=message.reason, **fields)


def _ends_at(session: Session, message: SessionUpdate, received_at: datetime) -> datetime:
    """The end of the session's life by our clock: the device's may be wrong, the difference is not,
    and never longer than what was asked for."""
    life = timedelta(seconds=session.life_s)
    if message.ends_at is None:
        return received_at + life
    left = timedelta(milliseconds=min(max(message.ends_at - message.at, 0), session.life_s * 1000))
    return received_at + min(left, life)


def _same_state(session: Session, message: SessionUpdate, counts: dict[str, Any]) -> None:
    """News within a state: byte counts, or streams held while the injector is in use."""
    reason = message.reason.value if message.reason else ""
    if reason == session.state_reason:
        Session.objects.filter(pk=session.pk).update(**counts)
        return
    rows = Session.objects.filter(pk=session.pk, state=session.state)
    if claim(session, rows, counts | {"state_reason": reason}):
        tell(session)


def _after_the_end(
    session: Session, message: SessionUpdate, counts: dict[str, Any], received_at: datetime
) -> None:
    """Over here. Over there too: that settles what was owed. Otherwise the two crossed."""
    if message.state.over:
        Session.objects.filter(pk=session.pk).update(
            end_accepted_at=session.end_accepted_at or received_at, **counts
        )
        return
    Session.objects.filter(pk=session.pk).update(**counts)
    _crossed(session)


def receipt(device: Device, message: Receipt, received_at: datetime) -> None:
    """Proof that a person at the injector approved. Raises MessageRefused."""
    session = _session(device, message.session)
    if session.receipt is not None and bytes(session.receipt) == message.receipt:
        return
    key = bytes(device.audit_key)
    try:
        if len(key) != 32:
            raise challenges.ChallengeError("the device has no audit key on record")
        proof = challenges.verify_receipt(
            message.receipt, message.signature, Ed25519PublicKey.from_public_bytes(key)
        )
    except challenges.ChallengeError:
        raise MessageRefused(RefusalReason.MALFORMED, alarm=FORGED) from None
    known = bytes(session.challenge or b"")
    if proof.session != session.pk or proof.challenge != challenges.digest(known).hex():
        raise MessageRefused(RefusalReason.UNKNOWN_REFERENCE)
    if session.receipt is not None or session.answered_at is None:
        raise MessageRefused(RefusalReason.ILLEGAL_TRANSITION)
    fields = {
        "receipt": message.receipt,
        "receipt_signature": message.signature,
        "approver": proof.approver,
    }
    if claim(session, Session.objects.filter(pk=session.pk, receipt=None), fields):
        record(
            session,
            actor=f"approver-{proof.approver}",
            action="presence:approve",
            digest=hashlib.sha256(message.receipt).hexdigest(),
            now=received_at,
        )
        tell(session)


def accepted(device: Device, message: Accepted, received_at: datetime) -> None:
    """The device holds a request, an answer, an end or a roster. Raises MessageRefused."""
    if message.of == "roster":
        _roster_accepted(device, message)
        return
    session = _session(device, message.ref)
    rows = Session.objects.filter(pk=session.pk)
    if message.of == "access-request":
        _must_match(message, session.request_digest)
        if session.state == SessionState.REQUESTED.value:
            _go(session, SessionState.ACCEPTED, received_at, accepted_at=received_at)
        else:
            rows.filter(accepted_at=None).update(accepted_at=received_at)
    elif message.of == "answer" and session.answered_at is not None:
        _must_match(message, outbound.digest(outbound.answer_message(session)))
        rows.filter(answer_accepted_at=None).update(answer_accepted_at=received_at)
    elif message.of == "end" and session.end_reason:
        _must_match(message, outbound.digest(outbound.end_message(session)))
        if rows.filter(end_accepted_at=None).update(end_accepted_at=received_at):
            tell(session)
    else:
        raise MessageRefused(RefusalReason.UNKNOWN_REFERENCE)


def _must_match(message: Accepted, digest: str) -> None:
    if message.digest != digest:
        raise MessageRefused(RefusalReason.UNKNOWN_REFERENCE)


def _roster_accepted(device: Device, message: Accepted) -> None:
    """Which version it is, the digest says: only rosters of ours can be accepted."""
    for roster in Roster.objects.order_by("-version")[:3]:
        if outbound.digest(outbound.roster_message(roster)) == message.digest:
            Device.objects.filter(pk=device.pk, roster_version__lt=roster.version).update(
                roster_version=roster.version
            )
            return
    raise MessageRefused(RefusalReason.UNKNOWN_REFERENCE)


def _session(device: Device, id: str) -> Session:
    session = (
        Session.objects.select_related("specialist", "organisation", "device")
        .filter(pk=id, device=device)
        .first()
    )
    if session is None:
        raise MessageRefused(RefusalReason.UNKNOWN_REFERENCE)
    return session


def _crossed(session: Session) -> bool:
    """Whether the session is over here; if the device need be told, it is told again."""
    if not session.over:
        return False
    if not session.end_reason:
        # It ended by the device's own word, and now the device contradicts itself.
        session.end_reason = EndReason.UNREACHABLE.value
        Session.objects.filter(pk=session.pk).update(end_reason=session.end_reason)
    Session.objects.filter(pk=session.pk).update(end_accepted_at=None)
    outbound.send_end(session)
    return True


def _go(
    session: Session,
    to: SessionState,
    received_at: datetime,
    *,
    reason: SessionReason | None = None,
    **fields: Any,
) -> None:
    if not may_move(session, to):
        raise MessageRefused(RefusalReason.ILLEGAL_TRANSITION)
    moved = move(session, to, actor=session.device_id, reason=reason, now=received_at, **fields)
    if not moved:  # read and claimed under the same write lock
        raise MessageRefused(RefusalReason.ILLEGAL_TRANSITION)
