"""What the injector says about sessions: every arrow, legal and illegal; lies, replays, races
(R-ACC-4, R-ACC-6, R-ACC-10)."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from agent.wire import messages as m
from agent.wire.catalogue import (
    SESSION_TRANSITIONS,
    RefusalReason,
    SessionReason,
    SessionState,
)
from fleet.access import inbound, outbound, services
from fleet.access.models import Session
from fleet.accounts.models import User
from fleet.audit.models import Entry
from fleet.core import clock
from fleet.core.errors import MessageRefused
from fleet.enrolment.models import Credential
from fleet.inventory.models import Device
from tests.conftest import Ports
from tests.fleet.access.injector import Injector, certificate

S = SessionState
R = RefusalReason
Reach = Callable[..., Session]


def refused(call: Callable[..., object], *args: Any, **kwargs: Any) -> MessageRefused:
    with pytest.raises(MessageRefused) as caught:
        call(*args, **kwargs)
    return caught.value


# --- every arrow --------------------------------------------------------------------------------

OVER = frozenset(s for s in S if s.over)


def expected(before: SessionState, said: SessionState) -> SessionState | None:
    """What the portal holds after a bare update; None: refused.

    An update alone cannot bring CHALLENGED (it takes a challenge), nor PRESENCE or ACTIVE before
    the specialist has answered. What comes after the end changes nothing.
    """
    if before in OVER or said is before:
        return before
    legal = said in SESSION_TRANSITIONS[before]
    if not legal or said is S.CHALLENGED:
        return None
    if said in (S.PRESENCE, S.ACTIVE) and before is S.CHALLENGED:
        return None
    return said


@pytest.mark.parametrize("before", list(S))
def test_every_update_in_every_state(
    reach: Reach, injector: Injector, owner: User, now: datetime, before: SessionState
) -> None:
    session = reach(before)
    for said in S:
        result = expected(before, said)
        row = Session.objects.filter(pk=session.pk)
        original = row.values().get()
        if result is None:
            error = refused(injector.says, session, said)
            assert error.reason is R.ILLEGAL_TRANSITION
        else:
            injector.says(session, said, SessionReason.POLICY if said is S.REFUSED else None)
        assert row.get().state == (result or before), said
        row.update(**original)
        session.refresh_from_db()


@pytest.mark.parametrize("before", list(S))
def test_a_challenge_in_every_state(reach: Reach, injector: Injector, before: SessionState) -> None:
    session = reach(before)
    old = session.challenge
    if before in (S.PRESENCE, S.ACTIVE, S.CHALLENGED):
        assert refused(injector.says_challenge, session, nonce="aa" * 32).reason is (
            R.ILLEGAL_TRANSITION
        )
        session.refresh_from_db()
        assert session.challenge == old
        assert session.state == before
    else:
        injector.says_challenge(session, nonce="aa" * 32)
        assert session.state == (before if before in OVER else S.CHALLENGED)


def test_the_whole_way_is_audited_step_by_step(reach: Reach) -> None:
    session = reach(S.ENDED)
    rows = Entry.objects.filter(session=session.pk).order_by("index")
    assert [(row.action, row.entry["actor"]) for row in rows] == [
        ("session:request", "owner"),
        ("session:accept", "device-0001"),
        ("session:challenge", "device-0001"),
        ("session:answer", "owner"),
        ("session:presence", "device-0001"),
        ("presence:approve", "approver-1"),
        ("session:start", "device-0001"),
        ("session:end", "device-0001"),
    ]
    assert session.state_reason == SessionReason.STOPPED_AT_PANEL
    # Eight changes, from version 1 on.
    assert session.version == 8


def test_each_step_is_hinted(transactional_db: None, reach: Reach, ports: Ports) -> None:
    session = reach(S.ACTIVE)
    states = [p["state"] for group, p in ports.hints if group == f"session.{session.pk}"]
    assert [state for i, state in enumerate(states) if state not in states[:i]] == [
        "requested", "accepted", "challenged", "presence", "active",
    ]  # fmt: skip
    versions = [p["version"] for group, p in ports.hints if group == f"session.{session.pk}"]
    assert versions == sorted(versions)


# --- requests and challenges --------------------------------------------------------------------


def test_an_accepted_request_is_not_owed_any_more(
    reach: Reach, injector: Injector, device: Device
) -> None:
    session = reach(S.REQUESTED)
    assert [m.encode(owed) for owed in outbound.pending(device)] == [bytes(session.request)]
    injector.says_accepted("access-request", session.pk, bytes(session.request))
    assert outbound.pending(device) == []
    injector.says_accepted("access-request", session.pk, bytes(session.request))  # again: nothing
    assert Session.objects.get(pk=session.pk).state == S.ACCEPTED


def test_accepted_names_the_bytes_it_is_about(reach: Reach, injector: Injector) -> None:
    session = reach(S.REQUESTED)
    assert (
        refused(injector.says_accepted, "access-request", session.pk, b"other bytes").reason
        is R.UNKNOWN_REFERENCE
    )
    assert refused(injector.says_accepted, "answer", session.pk, b"x").reason is (
        R.UNKNOWN_REFERENCE
    )
    assert refused(injector.says_accepted, "end", session.pk, b"x").reason is R.UNKNOWN_REFERENCE
    assert refused(injector.says_accepted, "end", "f" * 32, b"x").reason is R.UNKNOWN_REFERENCE


def test_a_challenge_is_kept_byte_for_byte(reach: Reach, injector: Injector) -> None:
    session = reach(S.ACCEPTED)
    message = injector.challenge(session)
    inbound.challenge(injector.device, message, injector.now)
    session.refresh_from_db()
    assert bytes(session.challenge or b"") == message.challenge
    assert bytes(session.challenge_signature or b"") == message.signature
    assert session.presence
    version = session.version
    inbound.challenge(injector.device, message, injector.now)  # the same news again
    session.refresh_from_db()
    assert session.version == version


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"session": "f" * 32}, R.UNKNOWN_REFERENCE),
        ({"request": "0" * 64}, R.UNKNOWN_REFERENCE),
        ({"device": "device-0002"}, R.UNKNOWN_REFERENCE),
        ({"specialist": "colleague"}, R.MALFORMED),
        ({"level": "service"}, R.MALFORMED),
        ({"services": ["console"]}, R.MALFORMED),
        ({"services": ["ssh", "console"]}, R.MALFORMED),
        ({"life_s": 1801}, R.MALFORMED),
    ],
)
def test_a_challenge_for_other_terms_is_refused(
    reach: Reach, injector: Injector, changes: dict[str, Any], reason: RefusalReason
) -> None:
    session = reach(S.ACCEPTED)
    assert refused(injector.says_challenge, session, **changes).reason is reason
    assert Session.objects.get(pk=session.pk).challenge is None


def test_a_shorter_life_is_the_devices_to_set(reach: Reach, injector: Injector) -> None:
    session = reach(S.ACCEPTED)
    injector.says_challenge(session, life_s=600)
    assert session.state == S.CHALLENGED


def test_a_challenge_that_this_device_did_not_sign(
    reach: Reach, injector: Injector, other_device: Device
) -> None:
    session = reach(S.ACCEPTED)
    good = injector.challenge(session)
    other = ec.generate_private_key(ec.SECP256R1())
    forged = other.sign(good.challenge, ec.ECDSA(SHA256()))
    der = certificate(other, injector.device.pk).public_bytes(Encoding.DER)
    ed = Ed25519PrivateKey.generate()
    for changes in (
        {"signature": forged},  # another key's, under our certificate
        {"signature": forged, "certificates": [der]},  # a certificate that was never issued
        {"signature": b"\x00"},
        {"certificates": [b"no certificate"]},
        {"certificates": [b"no certificate"], "signature": ed.sign(good.challenge)},
    ):
        error = refused(
            inbound.challenge, injector.device, msgspec.structs.replace(good, **changes), good.at
        )
        assert (error.reason, error.alarm) == (R.MALFORMED, "session:forged")
    Credential.objects.update(revoked_at=injector.now)
    assert refused(injector.says_challenge, session).alarm == "session:forged"


def test_bytes_that_are_no_challenge(reach: Reach, injector: Injector) -> None:
    session = reach(S.ACCEPTED)
    message = msgspec.structs.replace(injector.challenge(session), challenge=b'{"v": 1}')
    error = refused(inbound.challenge, injector.device, message, injector.now)
    assert error.reason is R.MALFORMED


# --- another device's sessions ------------------------------------------------------------------


def test_another_device_cannot_speak_of_it(
    reach: Reach, injector: Injector, other_device: Device, now: datetime
) -> None:
    session = reach(S.PRESENCE)
    calls: list[tuple[Callable[..., None], m.Durable]] = [
        (inbound.challenge, injector.challenge(session)),
        (inbound.session_update, injector.update(session, S.ACTIVE)),
        (inbound.receipt, injector.receipt(session)),
        (inbound.accepted, injector.accepted("answer", session.pk, b"")),
    ]
    for call, message in calls:
        assert refused(call, other_device, message, now).reason is R.UNKNOWN_REFERENCE
    assert Session.objects.get(pk=session.pk).state == S.PRESENCE


def test_an_update_about_another_request_is_refused(reach: Reach, injector: Injector) -> None:
    """A replayed request with other content has another digest."""
    session = reach(S.ACTIVE)
    error = refused(injector.says, session, S.ENDED, SessionReason.REPLAYED, request="0" * 64)
    assert error.reason is R.UNKNOWN_REFERENCE


# --- active sessions ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claimed_s", "kept_s"), [(600, 600), (1800, 1800), (999_999, 1800), (-5, 0), (None, 1800)]
)
def test_the_end_is_told_by_our_clock_and_no_later_than_asked(
    reach: Reach, injector: Injector, now: datetime, claimed_s: int | None, kept_s: int
) -> None:
    """The device's clock is a year off; the difference it states is not."""
    session = reach(S.PRESENCE)
    wrong = clock.to_ms(now - timedelta(days=365))
    ends_at = None if claimed_s is None else wrong + claimed_s * 1000
    update = msgspec.structs.replace(injector.update(session, S.ACTIVE, ends_at=ends_at), at=wrong)
    inbound.session_update(injector.device, update, now)
    session.refresh_from_db()
    assert session.ends_at == now + timedelta(seconds=kept_s)
    assert session.active_at == now
    assert session.expires_at == now + timedelta(seconds=kept_s) + timedelta(minutes=1)


def test_news_within_a_state(reach: Reach, injector: Injector) -> None:
    """Bytes so far, and streams that stand still while the injector is in use."""
    session = reach(S.ACTIVE)
    version, entries = session.version, Entry.objects.count()
    injector.says(session, S.ACTIVE, bytes_up=500, bytes_down=40)
    assert (session.device_bytes_up, session.device_bytes_down) == (500, 40)
    assert session.version == version
    injector.says(session, S.ACTIVE, SessionReason.BECAME_IN_USE)
    assert (session.state_reason, session.version) == ("became_in_use", version + 1)
    assert session.device_bytes_up == 500  # a count never falls
    injector.says(session, S.ACTIVE)
    assert session.state_reason == ""
    assert Entry.objects.count() == entries


# --- receipts -----------------------------------------------------------------------------------


def test_a_receipt_is_kept_with_its_local_number(reach: Reach, injector: Injector) -> None:
    """R-ACC-6, R-PRV-1: the approver is a number, no name."""
    session = reach(S.PRESENCE)
    injector.says_receipt(session, approver=7)
    assert session.approver == 7
    assert session.receipt is not None
    version = session.version
    injector.says_receipt(session, approver=7)
    assert session.version == version


def test_receipts_that_prove_nothing(reach: Reach, injector: Injector, device: Device) -> None:
    session = reach(S.PRESENCE)
    assert refused(injector.says_receipt, session, challenge="0" * 64).reason is (
        R.UNKNOWN_REFERENCE
    )
    assert refused(injector.says_receipt, session, session="f" * 32).reason is R.UNKNOWN_REFERENCE
    injector.audit_key, key = Ed25519PrivateKey.generate(), injector.audit_key
    error = refused(injector.says_receipt, session)
    assert (error.reason, error.alarm) == (R.MALFORMED, "session:forged")
    injector.audit_key = key
    injector.says_receipt(session)
    assert refused(injector.says_receipt, session, approver=2).reason is R.ILLEGAL_TRANSITION
    device.audit_key = b""
    assert refused(inbound.receipt, device, injector.receipt(session, approver=3), injector.now)


def test_a_receipt_before_the_answer(reach: Reach, injector: Injector) -> None:
    session = reach(S.CHALLENGED)
    assert refused(injector.says_receipt, session).reason is R.ILLEGAL_TRANSITION


# --- ends that cross ----------------------------------------------------------------------------


def test_an_end_is_owed_until_the_device_confirms(
    transactional_db: None,
    reach: Reach,
    injector: Injector,
    owner: User,
    device: Device,
    ports: Ports,
    now: datetime,
) -> None:
    session = reach(S.ACTIVE)
    services.end(actor=owner, session=session, now=now)
    end = m.End(session=session.pk, reason=m.EndReason.ENDED_BY_SPECIALIST)
    assert outbound.pending(device) == [end]
    ports.sent.clear()
    services.tick(now + timedelta(seconds=2))
    assert ports.sent == []
    services.tick(now + timedelta(seconds=4))
    assert ports.sent == [(device.pk, end)]
    injector.says_accepted("end", session.pk, end)
    assert outbound.pending(device) == []


def test_the_devices_own_end_settles_what_is_owed(
    reach: Reach, injector: Injector, owner: User, device: Device, now: datetime
) -> None:
    session = reach(S.ACTIVE)
    services.end(actor=owner, session=session, now=now)
    injector.says(session, S.ENDED, SessionReason.STOPPED_AT_PANEL, bytes_up=9)
    assert session.state_reason == SessionReason.ENDED_BY_SPECIALIST
    assert session.device_bytes_up == 9
    assert outbound.pending(device) == []


def test_news_that_crossed_with_our_end(
    transactional_db: None,
    reach: Reach,
    injector: Injector,
    owner: User,
    device: Device,
    ports: Ports,
    now: datetime,
) -> None:
    """The device became active while the portal ended it: it is told again, and does not revive."""
    session = reach(S.PRESENCE)
    services.end(actor=owner, session=session, now=now)
    end = m.End(session=session.pk, reason=m.EndReason.ENDED_BY_SPECIALIST)
    injector.says_accepted("end", session.pk, end)
    ports.sent.clear()
    injector.says(session, S.ACTIVE)
    assert session.state == S.ENDED
    assert ports.sent == [(device.pk, end)]
    assert outbound.pending(device) == [end]


def test_a_challenge_that_crossed_with_our_end(
    reach: Reach, injector: Injector, owner: User, device: Device, now: datetime
) -> None:
    session = reach(S.ACCEPTED)
    services.end(actor=owner, session=session, now=now)
    injector.says_challenge(session)
    assert session.state == S.ENDED
    assert session.challenge is None


def test_a_device_that_contradicts_itself_is_told_to_end(
    reach: Reach, injector: Injector, device: Device
) -> None:
    session = reach(S.REFUSED)
    injector.says(session, S.WAITING)
    assert session.state == S.REFUSED
    assert outbound.pending(device) == [m.End(session=session.pk, reason=m.EndReason.UNREACHABLE)]


def test_a_restart_ends_a_session_in_any_state(reach: Reach, injector: Injector) -> None:
    session = reach(S.REQUESTED)
    injector.says(session, S.ENDED, SessionReason.AGENT_RESTARTED)
    assert (session.state, session.state_reason) == (S.ENDED, "agent_restarted")
