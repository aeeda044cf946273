"""The portal is in the attacker's hands: each attempt is refused at the device, and written down.

R-ACC-4, R-ACC-6, R-ACC-10; the list of issue 2 and of THREATS, one test each. What the desk yields
here is what goes to the audit chain and, with it, to the server.
"""

import msgspec
import pytest

from agent.access.book import Limits
from agent.access.effects import PanelResult
from agent.access.pins import Verdict
from agent.wire.catalogue import ClinicalState, Level, SessionReason, SessionState
from agent.wire.messages import SshProof
from tests.agent.access.simulator import Bench, Specialist

S, R = SessionState, SessionReason


def asked(**changes: object) -> tuple[Bench, str]:
    bench = Bench()
    return bench, bench.request(**changes)


def assert_refused(bench: Bench, session: str, reason: SessionReason) -> None:
    assert bench.last(session) == (S.REFUSED, reason)
    assert bench.records(session)[-1][2:] == ("refused", reason.value)
    assert bench.activations() == []
    # And it stays so: the right answer now is one too many.
    if bench.records(session)[0][0] == "session:challenge":
        bench.answer(session)
        assert bench.state(session) is S.REFUSED
        assert bench.approve(session) is PanelResult.NOTHING
        assert bench.activations() == []


def test_wrong_key() -> None:
    """Answered by another rostered specialist."""
    bench, session = asked()
    bench.answer_as(bench.bob, session)
    assert_refused(bench, session, R.BAD_SIGNATURE)


def test_unrostered_key() -> None:
    bench, session = asked()
    bench.answer_as(bench.mallory, session)
    assert_refused(bench, session, R.NOT_ROSTERED)


def test_a_key_that_calls_itself_alice() -> None:
    bench, session = asked()
    bench.answer_as(Specialist("alice"), session)
    assert_refused(bench, session, R.NOT_ROSTERED)


@pytest.mark.parametrize(
    "change",
    [
        {"level": Level.SERVICE},
        {"life_s": 28_800},
        {"services": ["ssh", "web"]},
        {"presence": False},
        {"specialist": "bob"},
        {"nonce": "0" * 64},
    ],
    ids=lambda change: next(iter(change)),
)
def test_edited_level_or_any_other_term(change: dict[str, object]) -> None:
    bench, session = asked()
    bench.answer_edited(session, **change)
    assert_refused(bench, session, R.BAD_SIGNATURE)


def test_the_portal_puts_its_own_key_under_the_signature() -> None:
    bench, session = asked()
    bench.answer_with_own_key(session)
    assert_refused(bench, session, R.BAD_SIGNATURE)


def test_a_client_key_that_everybody_knows() -> None:
    bench, session = asked()
    bench.answer_with_weak_key(session)
    assert_refused(bench, session, R.BAD_SIGNATURE)


def test_another_devices_challenge() -> None:
    bench, session = asked()
    bench.answer_of_another_device(session)
    assert_refused(bench, session, R.BAD_SIGNATURE)


def test_another_sessions_challenge() -> None:
    bench, session = asked()
    first = bench.alice.answer(session, bench.challenge(session))
    bench.end(session)
    second = bench.request()
    bench.answer(second, msgspec.structs.replace(first, session=second))
    assert_refused(bench, second, R.BAD_SIGNATURE)


def test_rubbish_for_a_signature() -> None:
    bench, session = asked()
    good = bench.alice.answer(session, bench.challenge(session))
    bench.answer(session, msgspec.structs.replace(good, proof=SshProof(signature=b"\x00" * 100)))
    assert_refused(bench, session, R.BAD_SIGNATURE)


def test_late() -> None:
    bench, session = asked()
    bench.now = type(bench.now)(bench.now.boot_s + 120, bench.now.wall_ms)  # before any tick
    bench.answer(session)
    assert bench.last(session) == (S.REFUSED, R.LATE)


def test_late_after_it_expired() -> None:
    bench, session = asked()
    bench.later(120)
    bench.answer(session)
    assert bench.last(session) == (S.EXPIRED, R.NO_ANSWER)
    assert bench.records(session)[-1] == ("session:answer", "portal", "refused", "late")
    assert bench.activations() == []


def test_the_wall_clock_does_not_make_time_for_it() -> None:
    """The boot clock counts: setting the wall clock back gives nobody longer."""
    bench, session = asked()
    bench.now = type(bench.now)(bench.now.boot_s + 120, bench.now.wall_ms - 3_600_000)
    bench.answer(session)
    assert bench.last(session) == (S.REFUSED, R.LATE)


def test_replayed_answer() -> None:
    bench, session = asked()
    answer = bench.alice.answer(session, bench.challenge(session))
    bench.answer(session, answer)
    bench.approve(session)
    bench.stop()
    for _ in range(20):
        bench.answer(session, answer)
    assert bench.activations() == [session]
    assert bench.last(session) == (S.ENDED, R.STOPPED_AT_PANEL)
    replays = [r for r in bench.records(session) if r[3] == "replayed"]
    assert replays[0] == ("session:answer", "portal", "refused", "replayed")
    assert len(replays) == 8  # enough for anyone to see; no more, or the disk would fill


def test_a_replayed_answer_does_not_disturb_the_session() -> None:
    bench, session = asked()
    answer = bench.alice.answer(session, bench.challenge(session))
    bench.answer(session, answer)
    bench.approve(session)
    bench.answer(session, answer)
    assert bench.state(session) is S.ACTIVE
    assert bench.activations() == [session]


def test_replayed_request_with_changed_terms() -> None:
    bench = Bench()
    request = bench.ask(level=Level.SERVICE, services=["web"])
    session = bench.request(request)
    bench.answer(session)
    bench.request(msgspec.structs.replace(request, level=Level.OS, services=["ssh"]))
    assert bench.last(session) == (S.REFUSED, R.REPLAYED)
    assert bench.state(session) is S.ACTIVE  # the first one, as it was
    assert bench.records(session)[-1] == ("session:refuse", "portal", "refused", "replayed")


def test_no_approval() -> None:
    bench, session = asked()
    bench.answer(session)
    bench.later(300)
    assert bench.last(session) == (S.EXPIRED, R.NO_APPROVAL)
    assert bench.records(session)[-1] == ("session:expire", "agent", "refused", "no_approval")
    assert bench.activations() == []


def test_wrong_pin() -> None:
    bench, session = asked()
    bench.answer(session)
    for left in (4, 3, 2, 1):
        assert bench.approve(session, Verdict(None, left=left)) is PanelResult.WRONG_PIN
    assert bench.approve(session, Verdict(None, locked=True)) is PanelResult.PIN_LOCKED
    assert bench.last(session) == (S.REFUSED, R.PIN_LOCKED)
    reasons = [r[3] for r in bench.records(session) if r[0] == "presence:approve"]
    assert reasons == ["wrong_pin"] * 4 + ["pin_locked"]
    assert bench.activations() == []


def test_approval_before_the_answer() -> None:
    bench, session = asked()
    assert bench.approve(session) is PanelResult.NOTHING
    assert bench.state(session) is S.CHALLENGED


def test_ssh_at_service() -> None:
    bench, session = asked(level=Level.SERVICE, services=["ssh"])
    assert_refused(bench, session, R.LEVEL_TOO_LOW)


def test_armed() -> None:
    bench = Bench(clinical=ClinicalState.ARMED)
    session = bench.request()
    assert_refused(bench, session, R.IN_USE)


def test_armed_between_challenge_and_answer() -> None:
    bench, session = asked()
    bench.clinical(ClinicalState.ARMED)
    bench.answer(session)
    assert bench.last(session) == (S.REFUSED, R.IN_USE)


def test_an_answer_to_nothing() -> None:
    bench = Bench()
    session = "f" * 32
    bench.answer(session, bench.alice.answer(session, b"{}"))
    assert bench.records(session) == [("session:answer", "portal", "refused", "unknown_session")]
    assert bench.desk.open == []


def test_an_answer_before_the_challenge() -> None:
    bench = Bench(clinical=ClinicalState.READY)
    session = bench.request()
    bench.answer(session, bench.alice.answer(session, b""))
    assert bench.last(session) == (S.REFUSED, R.BAD_SIGNATURE)


def test_after_a_restart_no_old_challenge_is_worth_anything() -> None:
    bench, session = asked()
    answer = bench.alice.answer(session, bench.challenge(session))
    after = Bench()
    after.facts.roster = bench.facts.roster
    after.answer(session, answer)
    assert after.activations() == []
    assert after.records(session) == [("session:answer", "portal", "refused", "unknown_session")]


def test_off_the_roster_between_challenge_and_answer() -> None:
    bench, session = asked()
    bench.facts.roster = None
    bench.answer(session)
    assert bench.last(session) == (S.REFUSED, R.NOT_ROSTERED)


def test_off_the_roster_between_answer_and_approval() -> None:
    bench, session = asked()
    bench.answer(session)
    bench.facts.roster = None
    assert bench.approve(session) is PanelResult.REFUSED
    assert bench.last(session) == (S.REFUSED, R.NOT_ROSTERED)
    assert bench.activations() == []


def test_a_flood_writes_little() -> None:
    """A portal in an attacker's hands cannot fill the disk through the audit chain."""
    bench = Bench(limits=Limits(per_minute=10))
    session = bench.active()
    for _ in range(500):
        bench.request(specialist="mallory")
        bench.answer("e" * 32, bench.mallory.answer("e" * 32, b"x"))
    assert len(bench.done) < 60
    bench.end(session)  # an end is never lost in it
    assert bench.state(session) is S.ENDED
    bench.later(60)
    before = len(bench.done)
    bench.request()
    assert len(bench.done) > before
