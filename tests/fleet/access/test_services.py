"""Asking, answering, ending, giving up (R-ACC-3, R-ACC-4, R-ACC-10, R-CON-4)."""

import hashlib
import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.test.utils import CaptureQueriesContext

from agent.wire import messages as m
from agent.wire.catalogue import Level, RequestReason, SessionReason, SessionState
from fleet.access import services
from fleet.access.models import Session
from fleet.accounts.models import User
from fleet.audit.models import Entry
from fleet.core.errors import Conflict, Invalid, NotAllowed
from fleet.inventory.models import Device
from tests.conftest import Ports
from tests.fleet.access.conftest import CLIENT_KEY
from tests.fleet.access.injector import Injector

S = SessionState
Ask = Callable[..., Session]
Reach = Callable[..., Session]


def audited(session: Session) -> list[tuple[str, str]]:
    rows = Entry.objects.filter(session=session.pk).order_by("index")
    return [(row.action, row.entry["actor"]) for row in rows]


# --- asking -------------------------------------------------------------------------------------


def test_a_request_is_committed_audited_and_sent(
    transactional_db: None, ask: Ask, device: Device, owner: User, ports: Ports, now: datetime
) -> None:
    """R-ACC-3: the very bytes on record are what the device gets."""
    session = ask()
    [(target, message)] = ports.sent
    assert target == device.pk
    assert isinstance(message, m.AccessRequest)
    assert m.encode(message) == bytes(session.request)
    assert session.request_digest == hashlib.sha256(bytes(session.request)).hexdigest()
    assert (message.specialist, message.name) == ("owner", "Olga Owner")
    assert (message.organisation, message.level) == ("Vendor", Level.OS)
    assert (message.reason, message.ticket) == (RequestReason.REPAIR, "T-1")
    assert message.life_s == 1800
    assert session.expires_at == now + timedelta(minutes=10)
    assert audited(session) == [("session:request", "owner")]
    groups = [group for group, _payload in ports.hints]
    assert groups == [f"session.{session.pk}", f"device.{device.pk}", "organisation.north"]
    assert ports.hints[0][1]["state"] == "requested"


def test_a_ticket_may_follow_and_services_are_named_once(ask: Ask) -> None:
    session = ask(ticket="", services=["ssh", "web", "ssh"], note="")
    request = m.decode_down("access-request", 1, bytes(session.request))
    assert isinstance(request, m.AccessRequest)
    assert request.ticket is None
    assert request.services == ["ssh", "web"]


def test_asking_costs_few_queries(
    owner: User, device: Device, now: datetime, django_assert_num_queries: Any
) -> None:
    """The entitlement, then one transaction: the session, and two links of the audit with the ones
    before them."""
    device = Device.objects.select_related("organisation").get(pk=device.pk)
    owner = User.objects.select_related("organisation").get(pk=owner.pk)
    context: CaptureQueriesContext
    with django_assert_num_queries(8) as context:  # 2 of them a savepoint, inside the test's own
        services.request(
            actor=owner, device=device, level="os", services=["ssh"], reason="repair",
            life=timedelta(minutes=30), now=now,
        )  # fmt: skip
    statements = [query["sql"].split()[0] for query in context.captured_queries]
    assert statements.count("SELECT") == 3
    assert statements.count("INSERT") == 3


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"level": "root"}, Invalid, "level"),
        ({"reason": "curiosity"}, Invalid, "reason"),
        ({"services": []}, Invalid, "services"),
        ({"services": ["a"] * 3 + list("bcdefghij")}, Invalid, "services"),
        ({"ticket": "T 1"}, Invalid, "ticket"),
        ({"ticket": "T" * 33}, Invalid, "ticket"),
        ({"note": "line\nline"}, Invalid, "note"),
        ({"note": "\u202eevil"}, Invalid, "note"),
        ({"note": "x" * 201}, Invalid, "note"),
        ({"life": timedelta(seconds=59)}, Invalid, "1 minute to 8 hours"),
        ({"life": timedelta(hours=9)}, Invalid, "1 minute to 8 hours"),
    ],
)
def test_bad_input_is_named_and_leaves_nothing(
    ask: Ask, ports: Ports, changes: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        ask(**changes)
    assert not Session.objects.exists()
    assert not Entry.objects.exists()
    assert not ports.sent


def refusals() -> list[tuple[str, str, str, str, str]]:
    """(organisation, action, actor, device, reason) of what is on record as refused."""
    rows = Entry.objects.filter(entry__outcome="refused").order_by("organisation", "index")
    return [
        (r.organisation_id, r.action, r.entry["actor"], r.device, r.entry["reason"]) for r in rows
    ]


@pytest.mark.parametrize(
    ("changes", "error", "says", "reason"),
    [
        ({"services": ["telnet"]}, Invalid, "console, ssh, web", "unknown_service"),
        ({"services": ["127.0.0.1:22"]}, Invalid, "no service", "unknown_service"),
        (
            {"level": "service", "services": ["ssh"]}, Invalid, "needs the level “os”",
            "level_too_low",
        ),
    ],
)  # fmt: skip
def test_what_the_portal_refuses_is_on_record(
    ask: Ask, ports: Ports, changes: dict[str, Any], error: type[Exception], says: str, reason: str
) -> None:
    """R-ACC-10: with who, where and why, and nothing of what was typed."""
    with pytest.raises(error, match=says):
        ask(**changes)
    assert not Session.objects.exists()
    assert not ports.sent
    assert refusals() == [("north", "session:request", "owner", "device-0001", reason)]
    assert "telnet" not in json.dumps(Entry.objects.get().entry)


def test_a_device_that_cannot_be_asked(ask: Ask, device: Device) -> None:
    device.remote_enabled = False
    with pytest.raises(Conflict, match="switched off"):
        ask(device=device)
    device.remote_enabled, device.services = True, {}
    with pytest.raises(Conflict, match="not said yet"):
        ask(device=device)
    assert [reason for *_rest, reason in refusals()] == ["remote_off", "services_unknown"]


def test_only_people_who_may_ask(ask: Ask, member: User, stranger: User) -> None:
    for actor in (member, stranger):
        with pytest.raises(NotAllowed):
            ask(actor=actor)
    assert [(actor, reason) for _org, _act, actor, _device, reason in refusals()] == [
        ("member", "not_allowed"),
        ("stranger", "not_allowed"),
    ]


def test_one_open_session_with_a_device_at_a_time(
    ask: Ask, reach: Reach, colleague: User, other_device: Device
) -> None:
    first = reach(S.CHALLENGED)
    with pytest.raises(Conflict, match=first.pk):
        ask()
    assert refusals()[0][-1] == "second_session"
    assert ask(actor=colleague).pk != first.pk
    assert ask(device=other_device).pk != first.pk


def test_after_the_end_one_may_ask_again(ask: Ask, reach: Reach) -> None:
    reach(S.ENDED)
    assert ask().state == S.REQUESTED


def test_the_database_itself_refuses_a_second_open_session(ask: Ask) -> None:
    session = ask()
    session.pk = "0" * 32
    with pytest.raises(IntegrityError), transaction.atomic():
        session.save(force_insert=True)


def test_an_offline_device_may_be_asked(ask: Ask, device: Device) -> None:
    device.online = False
    assert ask(device=device).state == S.REQUESTED


def test_a_name_the_panel_cannot_show_is_cleaned(ask: Ask, owner: User) -> None:
    owner.first_name, owner.last_name = "Ol\u202ega", "O\x07wner"
    request = m.decode_down("access-request", 1, bytes(ask(actor=owner).request))
    assert isinstance(request, m.AccessRequest)
    assert request.name == "Olga Owner"


# --- answering ----------------------------------------------------------------------------------


def give(session: Session, actor: User, proof: m.Proof | bytes, now: datetime) -> Session:
    if isinstance(proof, bytes):
        proof = m.SshProof(signature=proof)
    return services.answer(
        actor=actor, session=session, client_key=CLIENT_KEY, proof=proof, now=now
    )


def test_an_answer_goes_to_the_device_as_it_is(
    transactional_db: None,
    reach: Reach,
    sign: Callable[[Session], m.Proof],
    owner: User,
    ports: Ports,
    now: datetime,
) -> None:
    """R-ACC-4: the portal passes the signature on; the device judges it."""
    session = reach(S.CHALLENGED)
    ports.sent.clear()
    give(session, owner, sign(session), now)
    [(target, message)] = ports.sent
    assert target == session.device_id
    assert message == m.Answer(session=session.pk, client_key=CLIENT_KEY, proof=sign(session))
    assert session.state == S.CHALLENGED
    assert audited(session)[-1] == ("session:answer", "owner")
    entry = Entry.objects.filter(session=session.pk).order_by("-index")[0].entry
    assert entry["digest"] == hashlib.sha256(m.encode(message)).hexdigest()


def test_a_wrong_signature_is_the_devices_to_refuse(
    reach: Reach, owner: User, now: datetime
) -> None:
    session = reach(S.CHALLENGED)
    assert give(session, owner, b"SSHSIG of somebody else", now).answered_at == now


def test_the_same_answer_twice_is_one(
    transactional_db: None,
    reach: Reach,
    sign: Callable[[Session], m.Proof],
    owner: User,
    ports: Ports,
    now: datetime,
) -> None:
    session = reach(S.CHALLENGED)
    give(session, owner, sign(session), now)
    ports.sent.clear()
    give(Session.objects.get(pk=session.pk), owner, sign(session), now)
    assert ports.sent == []
    with pytest.raises(Conflict, match="answered already"):
        give(session, owner, b"SSHSIG another", now)


@pytest.mark.parametrize("who", ["colleague", "administrator", "member", "stranger"])
def test_only_the_specialist_who_asked_answers(
    reach: Reach, request: pytest.FixtureRequest, now: datetime, who: str
) -> None:
    session = reach(S.CHALLENGED)
    with pytest.raises(NotAllowed):
        give(session, request.getfixturevalue(who), b"SSHSIG", now)
    username = request.getfixturevalue(who).username
    assert refusals() == [("north", "access:answer", username, session.device_id, "not_allowed")]


@pytest.mark.parametrize("state", [S.REQUESTED, S.ACCEPTED, S.WAITING, S.REFUSED, S.EXPIRED])
def test_there_is_nothing_to_answer_in_other_states(
    reach: Reach, owner: User, now: datetime, state: SessionState
) -> None:
    session = reach(state)
    with pytest.raises(Conflict, match="nothing to sign"):
        give(session, owner, b"SSHSIG", now)
    assert Session.objects.get(pk=session.pk).answered_at is None


def test_a_misshapen_answer_is_told_at_once(reach: Reach, owner: User, now: datetime) -> None:
    session = reach(S.CHALLENGED)
    with pytest.raises(Invalid, match="32 bytes"):
        services.answer(
            actor=owner,
            session=session,
            client_key=b"short",
            proof=m.SshProof(signature=b"SSHSIG"),
            now=now,
        )
    for signature in (b"-----BEGIN SSH SIGNATURE-----", b"PASSKEY"):
        with pytest.raises(Invalid, match="binary form"):
            give(session, owner, signature, now)


# --- ending -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("who", "reason"),
    [
        ("owner", SessionReason.ENDED_BY_SPECIALIST),
        ("administrator", SessionReason.ENDED_BY_PORTAL),
        ("member", SessionReason.ENDED_BY_HOSPITAL),
    ],
)
@pytest.mark.parametrize("state", [s for s in S if not s.over])
def test_who_may_end_a_session_and_why_it_says(
    transactional_db: None,
    reach: Reach,
    request: pytest.FixtureRequest,
    ports: Ports,
    now: datetime,
    who: str,
    reason: SessionReason,
    state: SessionState,
) -> None:
    """Portal, hospital and specialist can each end it, whatever state it is in."""
    session = reach(state)
    ports.sent.clear()
    actor = request.getfixturevalue(who)
    ended = services.end(actor=actor, session=session, now=now)
    assert (ended.state, ended.state_reason) == (S.ENDED, reason)
    assert ended.ended_by == actor
    assert ended.ended_at == now
    assert ports.sent == [
        (session.device_id, m.End(session=session.pk, reason=m.EndReason(reason.value)))
    ]
    assert audited(session)[-1] == ("session:end", actor.username)
    assert ports.hints[-1][1]["version"] == Session.objects.get(pk=session.pk).version


@pytest.mark.parametrize("who", ["colleague", "stranger"])
def test_others_may_not_end_it(
    reach: Reach, request: pytest.FixtureRequest, now: datetime, who: str
) -> None:
    session = reach(S.ACTIVE)
    with pytest.raises(NotAllowed):
        services.end(actor=request.getfixturevalue(who), session=session, now=now)
    assert Session.objects.get(pk=session.pk).state == S.ACTIVE
    [refusal] = refusals()
    assert refusal[1] == "access:end"


def test_what_is_over_stays_as_it_is(reach: Reach, owner: User, now: datetime) -> None:
    session = reach(S.ENDED)
    before = len(audited(session))
    ended = services.end(actor=owner, session=session, now=now)
    assert ended.state_reason == SessionReason.STOPPED_AT_PANEL
    assert ended.ended_by is None
    assert len(audited(session)) == before


def test_an_end_that_races_with_the_devices_word(
    reach: Reach, injector: Injector, owner: User, now: datetime
) -> None:
    session = reach(S.PRESENCE)
    stale = Session.objects.get(pk=session.pk)
    injector.says(session, S.ACTIVE)
    assert services.end(actor=owner, session=stale, now=now).state == S.ENDED


# --- giving up ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "after", "becomes", "reason"),
    [
        (S.REQUESTED, timedelta(minutes=10), S.EXPIRED, SessionReason.UNREACHABLE),
        (S.ACCEPTED, timedelta(minutes=10), S.EXPIRED, SessionReason.UNREACHABLE),
        (S.WAITING, timedelta(hours=2), S.EXPIRED, SessionReason.IN_USE),
        (S.CHALLENGED, timedelta(minutes=15), S.EXPIRED, SessionReason.NO_ANSWER),
        (S.PRESENCE, timedelta(minutes=15), S.EXPIRED, SessionReason.NO_APPROVAL),
        (S.ACTIVE, timedelta(minutes=31), S.ENDED, SessionReason.LIFE_OVER),
    ],
)
def test_time_gives_up(
    transactional_db: None,
    reach: Reach,
    ports: Ports,
    now: datetime,
    state: SessionState,
    after: timedelta,
    becomes: SessionState,
    reason: SessionReason,
) -> None:
    session = reach(state)
    services.tick(now + after - timedelta(seconds=1))
    session.refresh_from_db()
    assert session.state == state
    ports.sent.clear()
    services.tick(now + after)
    session.refresh_from_db()
    assert (session.state, session.state_reason) == (becomes, reason)
    assert audited(session)[-1][1] == "portal"
    assert (session.device_id, m.End(session=session.pk, reason=m.EndReason.UNREACHABLE)) in (
        ports.sent
    )
    services.tick(now + after)  # again: nothing more to give up
    assert Session.objects.get(pk=session.pk).version == session.version


def test_an_unanswered_device_after_the_answer_is_unreachable(
    reach: Reach, owner: User, sign: Callable[[Session], m.Proof], now: datetime
) -> None:
    session = reach(S.CHALLENGED)
    give(session, owner, sign(session), now)
    services.tick(now + timedelta(hours=1))
    session.refresh_from_db()
    assert session.state_reason == SessionReason.UNREACHABLE


def test_the_tick_over_nothing_is_cheap(
    db: None, now: datetime, django_assert_num_queries: Any
) -> None:
    with django_assert_num_queries(2):
        services.tick(now)
