"""The desk on ordinary days and at every end (R-ACC-3..7, R-ACC-10)."""

import pytest

from agent.access.book import Limits
from agent.access.desk import Kept
from agent.access.effects import (
    Activate,
    Deactivate,
    Emit,
    Keep,
    PanelResult,
    Pause,
    Record,
    Resume,
    SendChallenge,
    SendReceipt,
)
from agent.access.pins import Verdict
from agent.access.policy import Policy, Rule
from agent.wire import challenge
from agent.wire.catalogue import (
    ClinicalState,
    Level,
    ProductLineCode,
    SessionReason,
    SessionState,
)
from agent.wire.frames import FrameType, Header
from agent.wire.messages import Accepted, EndReason
from tests.agent.access.simulator import BOOT, DAY, DEVICE, WALL, Bench, client_seal, digest
from tests.entitled import entitlement

S, R, C = SessionState, SessionReason, ClinicalState


# --- the way in -----------------------------------------------------------------------------------


def test_os_access_goes_through_challenge_answer_and_a_person() -> None:
    """R-ACC-4, R-ACC-5, R-ACC-6: only then the streams."""
    bench = Bench()
    session = bench.request()
    assert bench.state(session) is S.CHALLENGED
    bench.answer(session)
    assert bench.state(session) is S.PRESENCE
    assert bench.activations() == []
    assert bench.approve(session, Verdict(7)) is PanelResult.DONE
    assert bench.updates(session) == [(S.CHALLENGED, None), (S.PRESENCE, None), (S.ACTIVE, None)]
    assert bench.activations() == [session]
    assert bench.records(session) == [
        ("session:challenge", "alice", "allowed", None),
        ("session:answer", "alice", "allowed", None),
        ("presence:approve", "approver-7", "allowed", None),
        ("session:start", "approver-7", "allowed", None),
    ]


def test_service_access_needs_no_person_by_default() -> None:
    bench = Bench()
    session = bench.request(level=Level.SERVICE, services=["web"])
    bench.answer(session)
    assert bench.updates(session) == [(S.CHALLENGED, None), (S.ACTIVE, None)]
    assert not any(isinstance(e, SendReceipt) for e in bench.done)


def test_the_terms_are_what_was_asked_and_what_is_here() -> None:
    bench = Bench()
    asked = bench.ask(services=["ssh", "web"], life_s=600)
    session = bench.request(asked)
    terms = challenge.decode(bench.challenge(session))
    assert (terms.session, terms.request) == (session, digest(asked))
    assert (terms.device, terms.boot) == (DEVICE, BOOT)
    assert (terms.specialist, terms.level) == ("alice", Level.OS)
    assert (terms.services, terms.life_s, terms.presence) == (["ssh", "web"], 600, True)


def test_nonce_and_key_are_of_one_session_alone() -> None:
    bench = Bench(policy=Policy(sessions=2))
    one, two = (challenge.decode(bench.challenge(bench.request())) for _ in range(2))
    assert one.nonce != two.nonce
    assert one.key != two.key


def test_both_ends_hold_the_same_seal() -> None:
    """R-ACC-5: the tunnel is sealed between the injector and this specialist."""
    bench = Bench()
    session = bench.active()
    activate = next(e for e in bench.done if isinstance(e, Activate))
    client = client_seal(bench, bench.alice, session)
    frame = client.close(Header(FrameType.OPEN, bytes.fromhex(session), 1, 0, 0), b"ssh")
    assert activate.seal.open(frame)[1] == b"ssh"
    assert activate.services == ("ssh",)


def test_no_key_outlives_its_use() -> None:
    bench = Bench()
    session = bench.active()
    it = bench.desk.session(session)
    assert it is not None
    assert it.private is None
    assert it.seal is None
    gone = bench.request(bench.ask(device="injector-0002"))
    it = bench.desk.session(gone)
    assert it is not None
    assert it.private is None


def test_the_record_comes_before_what_it_records() -> None:
    """R-ACC-10: the shell stops at a Record it cannot write."""
    bench = Bench()
    session = bench.request()
    effects = bench.answer(session)
    kinds = [type(e) for e in effects]
    assert kinds.index(Record) < max(i for i, k in enumerate(kinds) if k is Emit)
    _result, effects = bench.desk.approve(bench.now, session, Verdict(1))
    assert isinstance(effects[0], SendReceipt)
    assert isinstance(effects[-1], Activate)


def test_the_receipt_names_the_challenge_and_a_number() -> None:
    bench = Bench()
    session = bench.request()
    bench.answer(session)
    bench.approve(session, Verdict(42))
    receipt = next(e for e in bench.done if isinstance(e, SendReceipt))
    assert receipt.challenge == bench.challenge(session)
    assert receipt.approver == 42


def test_the_same_request_again_is_no_second_session() -> None:
    bench = Bench()
    asked = bench.ask()
    bench.request(asked)
    before = len(bench.done)
    bench.request(asked)
    bench.later(1)
    bench.request(asked)
    assert len(bench.done) == before


def test_every_message_that_is_decided_is_accepted() -> None:
    bench = Bench()
    session = bench.active()
    bench.end(session)
    accepted = [e.fields["of"] for e in bench.done if isinstance(e, Emit) and e.kind is Accepted]
    assert accepted == ["access-request", "answer", "end"]


# --- the conditions, each with its reason ---------------------------------------------------------


def refused(bench: Bench, reason: SessionReason, **changes: object) -> None:
    session = bench.request(**changes)
    assert bench.updates(session) == [(S.REFUSED, reason)]
    assert bench.records(session) == [("session:refuse", "alice", "refused", reason.value)]
    assert not any(isinstance(e, SendChallenge) and e.session == session for e in bench.done)


def test_remote_connection_switched_off() -> None:
    """R-CON-9"""
    refused(Bench(policy=Policy(remote=False)), R.REMOTE_OFF)


def test_no_audit_no_access() -> None:
    """R-ACC-10: what cannot be recorded does not happen."""
    bench = Bench()
    bench.facts.audit_writable = False
    refused(bench, R.AUDIT_UNWRITABLE)


def test_a_request_for_another_device() -> None:
    refused(Bench(), R.WRONG_DEVICE, device="injector-0002")


@pytest.mark.parametrize("services", [["sshd"], ["x"], ["ssh", "vnc"]])
def test_a_service_the_driver_does_not_name(services: list[str]) -> None:
    """R-ACC-8"""
    refused(Bench(), R.UNKNOWN_SERVICE, services=services)


@pytest.mark.parametrize(
    ("level", "services"),
    [
        (Level.SERVICE, ["ssh"]),
        (Level.SERVICE, ["web", "console"]),
        (Level.DIAGNOSTICS, ["web"]),
    ],
)
def test_a_level_that_does_not_cover_the_service(level: Level, services: list[str]) -> None:
    """R-ACC-6"""
    refused(Bench(), R.LEVEL_TOO_LOW, level=level, services=services)


def test_not_on_the_roster() -> None:
    bench = Bench()
    session = bench.request(specialist="mallory")
    assert bench.last(session) == (S.REFUSED, R.NOT_ROSTERED)


def test_no_roster_at_all() -> None:
    bench = Bench()
    bench.facts.roster = None
    refused(bench, R.NOT_ROSTERED)


def test_the_roster_has_expired() -> None:
    bench = Bench()
    bench.later(6 * DAY / 1000)
    refused(bench, R.ROSTER_EXPIRED)


def test_out_of_product_line_level_data_or_training() -> None:
    """R-ACC-2, R-ACC-9"""
    for changes in (
        {"product_lines": [ProductLineCode.MR_DUAL]},
        {"level": Level.SERVICE},
        {"patient_data": False},
    ):
        bench = Bench()
        bench.roster(bench.alice.member(**changes))
        refused(bench, R.OUT_OF_SCOPE)
    bench = Bench()
    bench.roster(bench.alice.member(until=WALL))
    refused(bench, R.UNTRAINED)


def test_without_patient_data_there_is_still_service_access() -> None:
    """R-ACC-2: to see patient data is a grant of its own; `os` cannot do without it."""
    bench = Bench()
    bench.roster(bench.alice.member(patient_data=False))
    bench.active(level=Level.SERVICE, services=["web"])


def test_the_policy_denies() -> None:
    refused(Bench(policy=Policy(os="deny")), R.POLICY)


def test_one_session_at_a_time() -> None:
    bench = Bench()
    bench.active()
    refused(bench, R.BUSY)
    bench.stop()
    bench.active()


def test_more_at_a_time_where_the_policy_says_so() -> None:
    bench = Bench(policy=Policy(sessions=2))
    bench.active()
    bench.active()
    refused(bench, R.BUSY)


def test_the_policy_may_ask_at_any_level() -> None:
    bench = Bench(policy=Policy(service=Rule.ASK))
    session = bench.request(level=Level.SERVICE, services=["web"])
    assert challenge.decode(bench.challenge(session)).presence
    bench.answer(session)
    assert bench.state(session) is S.PRESENCE


def test_a_policy_that_became_stricter_counts_at_the_answer() -> None:
    bench = Bench()
    session = bench.request(level=Level.SERVICE, services=["web"])
    bench.policy(service=Rule.ASK)
    bench.answer(session)
    assert bench.state(session) is S.PRESENCE


# --- clinical state -------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [C.ARMED, C.INJECTING, C.HOLD])
def test_between_armed_and_complete_nobody_even_waits(state: ClinicalState) -> None:
    """R-ACC-7"""
    refused(Bench(clinical=state), R.IN_USE)


@pytest.mark.parametrize("state", [C.FILLING, C.PRIMING, C.READY])
def test_in_use_a_request_waits_and_rings(state: ClinicalState) -> None:
    """R-ACC-7"""
    bench = Bench(clinical=state)
    session = bench.request()
    assert bench.last(session) == (S.WAITING, R.IN_USE)
    bench.later(600)
    bench.clinical(C.ARMED)
    assert bench.state(session) is S.WAITING
    bench.clinical(C.COMPLETE)
    assert bench.last(session) == (S.CHALLENGED, None)
    bench.answer(session)
    bench.approve(session)
    assert bench.state(session) is S.ACTIVE


def test_waiting_has_an_end() -> None:
    bench = Bench(clinical=C.READY)
    session = bench.request()
    bench.later(3599)
    assert bench.state(session) is S.WAITING
    bench.later(1)
    assert bench.last(session) == (S.EXPIRED, R.IN_USE)


def test_who_waited_is_asked_about_again() -> None:
    bench = Bench(clinical=C.READY)
    session = bench.request()
    bench.facts.roster = None
    bench.clinical(C.IDLE)
    assert bench.last(session) == (S.REFUSED, R.NOT_ROSTERED)


def test_few_wait_and_they_come_in_turn() -> None:
    bench = Bench(clinical=C.READY)
    first, second, *_rest = [bench.request() for _ in range(4)]
    fifth = bench.request()
    assert bench.last(fifth) == (S.REFUSED, R.BUSY)
    bench.clinical(C.IDLE)
    assert bench.state(first) is S.CHALLENGED
    assert bench.state(second) is S.WAITING
    bench.end(first)
    bench.later(0.5)
    assert bench.state(second) is S.CHALLENGED


def test_an_answer_while_in_use() -> None:
    bench = Bench()
    alone = bench.request(level=Level.SERVICE, services=["web"])
    bench.clinical(C.READY)
    bench.answer(alone)
    assert bench.last(alone) == (S.REFUSED, R.IN_USE)


def test_a_person_cannot_approve_while_in_use_but_may_declare_no_patient() -> None:
    """R-ACC-7"""
    bench = Bench()
    session = bench.request()
    bench.clinical(C.READY)
    bench.answer(session)
    assert bench.approve(session) is PanelResult.IN_USE
    assert bench.state(session) is S.PRESENCE
    bench.clinical(C.SERVICE)
    assert bench.approve(session) is PanelResult.DONE


def test_coming_into_use_holds_the_streams_and_goes_on_after() -> None:
    bench = Bench()
    session = bench.active(life_s=7200)
    assert Pause(session) in bench.clinical(C.FILLING)
    assert bench.last(session) == (S.ACTIVE, R.BECAME_IN_USE)
    assert bench.clinical(C.ARMED) == []
    bench.later(901)  # longer than the idle limit
    assert Resume(session) in bench.clinical(C.COMPLETE)
    assert bench.last(session) == (S.ACTIVE, None)
    bench.later(899)
    assert bench.state(session) is S.ACTIVE
    bench.later(1)
    assert bench.last(session) == (S.ENDED, R.IDLE)


def test_life_goes_on_running_during_a_hold() -> None:
    bench = Bench()
    session = bench.active(life_s=600)
    bench.clinical(C.FILLING)
    bench.later(600)
    assert bench.last(session) == (S.ENDED, R.LIFE_OVER)


def test_the_policy_may_end_a_session_when_use_begins() -> None:
    bench = Bench(policy=Policy(in_use="end"))
    session = bench.active()
    bench.clinical(C.READY)
    assert bench.last(session) == (S.ENDED, R.BECAME_IN_USE)


# --- presence -------------------------------------------------------------------------------------


def test_nobody_approves() -> None:
    """R-ACC-6: refusal is the default."""
    bench = Bench(policy=Policy(approval_wait_s=60))
    session = bench.request()
    bench.answer(session)
    bench.later(59.5)
    assert bench.state(session) is S.PRESENCE
    bench.later(0.5)
    assert bench.last(session) == (S.EXPIRED, R.NO_APPROVAL)
    assert bench.approve(session) is PanelResult.NOTHING
    assert bench.activations() == []


def test_an_approval_that_comes_too_late_between_two_ticks() -> None:
    bench = Bench()
    session = bench.request()
    bench.answer(session)
    bench.now = type(bench.now)(bench.now.boot_s + 300, bench.now.wall_ms)
    assert bench.approve(session) is PanelResult.NOTHING
    assert bench.last(session) == (S.EXPIRED, R.NO_APPROVAL)
    assert bench.activations() == []


def test_a_wrong_pin() -> None:
    bench = Bench()
    session = bench.request()
    bench.answer(session)
    assert bench.approve(session, Verdict(None, left=4)) is PanelResult.WRONG_PIN
    assert bench.state(session) is S.PRESENCE
    assert bench.records(session)[-1] == ("presence:approve", "panel", "refused", "wrong_pin")


def test_pins_locked_refuses() -> None:
    bench = Bench()
    session = bench.request()
    bench.answer(session)
    assert bench.approve(session, Verdict(None, locked=True)) is PanelResult.PIN_LOCKED
    assert bench.last(session) == (S.REFUSED, R.PIN_LOCKED)


def test_refused_at_the_panel_at_any_time_before() -> None:
    for steps in range(3):
        bench = Bench(clinical=C.READY)
        session = bench.request()
        if steps:
            bench.clinical(C.IDLE)
        if steps > 1:
            bench.answer(session)
        assert bench.refuse(session) is PanelResult.DONE
        assert bench.last(session) == (S.REFUSED, R.REFUSED_AT_PANEL)
        assert bench.records(session)[-1][1] == "panel"


def test_refuse_leaves_what_is_active_and_stop_does_not() -> None:
    bench = Bench()
    session = bench.active()
    assert bench.refuse() is PanelResult.NOTHING
    assert bench.stop() is PanelResult.DONE
    assert bench.last(session) == (S.ENDED, R.STOPPED_AT_PANEL)
    assert bench.deactivations() == [session]
    assert bench.stop() is PanelResult.NOTHING


def test_an_approval_names_its_session_when_there_are_two() -> None:
    bench = Bench(policy=Policy(sessions=2))
    one, two = bench.request(), bench.request()
    bench.answer(one)
    assert bench.desk.waiting_for_pin(None) == (PanelResult.DONE, one)
    bench.answer(two)
    assert bench.desk.waiting_for_pin(None) == (PanelResult.SEVERAL, "")
    assert bench.desk.waiting_for_pin(two) == (PanelResult.DONE, two)
    assert bench.approve(two) is PanelResult.DONE
    assert (bench.state(one), bench.state(two)) == (S.PRESENCE, S.ACTIVE)


def test_presence_is_renewed_every_half_hour() -> None:
    """R-ACC-6"""
    bench = Bench()
    session = bench.active(life_s=7200)
    for up in range(1, 4):
        bench.later(599)
        bench.moved(session, up, 0)
    assert bench.desk.view(bench.now)[0]["renew_left_s"] is None
    bench.later(3)
    assert bench.desk.view(bench.now)[0]["renew_left_s"] == 60
    assert bench.approve(session, Verdict(2)) is PanelResult.DONE
    assert bench.records(session)[-1] == ("presence:renew", "approver-2", "allowed", None)
    bench.later(61)
    assert bench.state(session) is S.ACTIVE
    assert bench.activations() == [session]


def test_presence_not_renewed() -> None:
    bench = Bench(policy=Policy(renewal_s=300))
    session = bench.active(life_s=7200)
    bench.later(300)
    bench.later(59.5)
    assert bench.approve(session, Verdict(None, left=1)) is PanelResult.WRONG_PIN
    assert bench.state(session) is S.ACTIVE
    bench.later(0.5)
    assert bench.last(session) == (S.ENDED, R.PRESENCE_NOT_RENEWED)


def test_nobody_is_asked_to_renew_while_the_injector_is_in_use() -> None:
    bench = Bench(policy=Policy(renewal_s=300))
    session = bench.active(life_s=7200)
    bench.later(300)
    bench.clinical(C.ARMED)
    bench.later(600)
    assert bench.state(session) is S.ACTIVE
    bench.clinical(C.COMPLETE)
    assert bench.desk.view(bench.now)[0]["renew_left_s"] == 60


def test_no_renewal_where_nobody_was_asked() -> None:
    bench = Bench(policy=Policy(renewal_s=300))
    session = bench.active(level=Level.SERVICE, services=["web"])
    bench.later(301)
    assert bench.desk.view(bench.now)[0]["renew_left_s"] is None
    bench.later(301)
    assert bench.state(session) is S.ACTIVE


# --- the ends -------------------------------------------------------------------------------------


def test_life_is_over() -> None:
    bench = Bench(policy=Policy(idle_s=3600))
    session = bench.active(life_s=600)
    bench.later(599.5)
    assert bench.state(session) is S.ACTIVE
    assert Deactivate(session) in bench.later(0.5)
    assert bench.last(session) == (S.ENDED, R.LIFE_OVER)


def test_life_runs_from_the_approval() -> None:
    bench = Bench()
    session = bench.request(life_s=60)
    bench.later(100)
    bench.answer(session)
    bench.later(100)
    bench.approve(session)
    bench.later(59)
    assert bench.state(session) is S.ACTIVE


def test_idle() -> None:
    bench = Bench()
    session = bench.active(life_s=7200)
    bench.later(899)
    bench.moved(session, 10, 0)
    bench.later(899)
    bench.moved(session, 10, 0)  # no byte moved
    assert bench.state(session) is S.ACTIVE
    bench.later(1)
    assert bench.last(session) == (S.ENDED, R.IDLE)
    update = [e for e in bench.done if isinstance(e, Emit)][-1]
    assert (update.fields["bytes_up"], update.fields["bytes_down"]) == (10, 0)


@pytest.mark.parametrize("reason", list(EndReason))
def test_ended_from_outside(reason: EndReason) -> None:
    bench = Bench()
    session = bench.active()
    assert isinstance(bench.end(session, reason)[0], Deactivate)
    assert bench.last(session) == (S.ENDED, R(reason.value))


def test_ended_from_outside_before_it_began() -> None:
    bench = Bench()
    session = bench.request()
    bench.end(session, EndReason.ENDED_BY_SPECIALIST)
    assert bench.last(session) == (S.ENDED, R.ENDED_BY_SPECIALIST)


def test_nobody_answers() -> None:
    bench = Bench()
    session = bench.request()
    bench.later(120)
    assert bench.last(session) == (S.EXPIRED, R.NO_ANSWER)


def test_the_switch_at_the_panel_ends_everything() -> None:
    """R-CON-9"""
    bench = Bench(policy=Policy(sessions=2))
    active, asked = bench.active(), bench.request()
    bench.policy(remote=False)
    assert bench.last(active) == (S.ENDED, R.REMOTE_OFF)
    assert bench.last(asked) == (S.REFUSED, R.REMOTE_OFF)


def test_a_policy_that_denies_now_ends_what_it_denies() -> None:
    bench = Bench()
    session = bench.active()
    bench.policy(os="deny")
    assert bench.last(session) == (S.ENDED, R.POLICY)


def test_dropped_from_the_roster_is_out_at_once() -> None:
    for change in ("gone", "key", "level"):
        bench = Bench()
        session = bench.active()
        if change == "gone":
            bench.roster(bench.bob.member())
        elif change == "key":
            bench.roster(bench.alice.member(keys=[bench.mallory.public]))
        else:
            bench.roster(bench.alice.member(level=Level.SERVICE))
        reason = R.OUT_OF_SCOPE if change == "level" else R.NOT_ROSTERED
        assert bench.last(session) == (S.ENDED, reason)
        assert bench.deactivations() == [session]


def test_a_newer_roster_with_the_same_people_changes_nothing() -> None:
    bench = Bench()
    session = bench.active()
    assert bench.roster(bench.alice.member(keys=[bench.bob.public, bench.alice.public])) == []
    assert bench.state(session) is S.ACTIVE


def test_the_audit_fails_in_the_middle() -> None:
    """R-ACC-10"""
    bench = Bench()
    session = bench.active()
    effects = bench.desk.audit_failed(bench.now)
    assert isinstance(effects[0], Deactivate)
    assert bench.state(session) is S.ENDED
    later = bench.request()
    assert bench.last(later) == (S.REFUSED, R.AUDIT_UNWRITABLE)


def test_after_a_restart_what_was_open_is_over() -> None:
    bench = Bench()
    kept = [
        Kept("0" * 32, "a" * 64, "alice", S.ENDED),
        Kept("1" * 32, "b" * 64, "alice", S.ACTIVE),
        Kept("2" * 32, "c" * 64, "alice", S.WAITING),
    ]
    effects = bench.desk.restarted(kept)
    ended = [e.fields["session"] for e in effects if isinstance(e, Emit)]
    assert ended == ["1" * 32, "2" * 32]
    assert {e.state for e in effects if isinstance(e, Keep)} == {S.ENDED}
    # An id that was used is not used again, nor by a request that differs.
    assert bench.desk.request(bench.now, bench.ask(session="1" * 32), "b" * 64) == []
    again = bench.request(bench.ask(session="1" * 32))
    assert bench.last(again) == (S.REFUSED, R.REPLAYED)


def test_the_view_says_what_a_person_must_know() -> None:
    bench = Bench()
    session = bench.request(note="Pump noise", ticket=None)
    bench.answer(session)
    (view,) = bench.desk.view(bench.now)
    assert view["name"] == "Alice"
    assert (view["state"], view["left_s"], view["life_s"]) == ("presence", 300, 1800)
    assert (view["why"], view["ticket"], view["note"]) == ("repair", None, "Pump noise")
    bench.refuse()
    (view,) = bench.desk.view(bench.now)
    assert (view["state"], view["reason"], view["left_s"]) == ("refused", "refused_at_panel", None)


def test_memory_is_bounded() -> None:
    bench = Bench(limits=Limits(remembered=3, seen=5, per_minute=1000))
    for _ in range(20):
        bench.request(device="injector-0002")
    assert len(bench.desk._book.over) == 3
    assert len(bench.desk._book._seen) == 5


# --- the injector's own entitlement ---------------------------------------------------------------


def test_without_an_entitlement_nobody_gets_in() -> None:
    """R-ACC-7, R-ACC-9: whatever the portal believes."""
    bench = Bench()
    bench.facts.entitlement = None
    refused(bench, R.NOT_ENTITLED)


def test_an_entitlement_covers_its_level_and_its_time() -> None:
    bench = Bench()
    bench.facts.entitlement = entitlement("ct-dual", "S-1", WALL, level=Level.SERVICE)
    refused(bench, R.NOT_ENTITLED)
    bench.active(level=Level.SERVICE, services=["web"])
    bench = Bench()
    bench.facts.entitlement = entitlement("ct-dual", "S-1", WALL - 60 * DAY, grace_days=29)
    refused(bench, R.NOT_ENTITLED)


def test_an_entitlement_that_is_taken_back_ends_the_session() -> None:
    bench = Bench()
    session = bench.active()
    bench.entitle(version=2, level=Level.SERVICE)
    assert bench.updates(session)[-1] == (S.ENDED, R.NOT_ENTITLED)


def test_a_renewed_entitlement_leaves_sessions_alone() -> None:
    bench = Bench()
    session = bench.active()
    bench.entitle(version=2)
    assert bench.state(session) is S.ACTIVE
