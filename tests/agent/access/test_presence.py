"""Four eyes, one's own session, and one consent for one ticket (R-ACC-6, R-ACC-10)."""

from pathlib import Path

import pytest

from agent.access.effects import PanelResult, SendReceipt
from agent.access.pins import Verdict
from agent.access.policy import Policy, Rule
from agent.errors import ControlError
from agent.wire.catalogue import ClinicalState, Level, SessionReason, SessionState
from tests.agent.access.simulator import Bench
from tests.agent.access.world import PIN, world
from tests.sites import document

S, R, P = SessionState, SessionReason, PanelResult
HOUR = 3600


def waiting(bench: Bench, **changes: object) -> str:
    session = bench.request(**changes)  # type: ignore[arg-type]
    bench.answer(session)
    assert bench.state(session) is S.PRESENCE
    return session


# --- four eyes ------------------------------------------------------------------------------------


def test_two_different_people_approve() -> None:
    bench = Bench(policy=Policy(four_eyes=True))
    session = waiting(bench)
    assert bench.approve(session, Verdict(1)) is P.MORE
    assert bench.approve(session, Verdict(1)) is P.SAME
    assert bench.state(session) is S.PRESENCE
    assert bench.activations() == []
    assert bench.approve(session, Verdict(2)) is P.DONE
    assert bench.activations() == [session]
    assert bench.records(session)[2:] == [
        ("presence:approve", "approver-1", "allowed", None),
        ("presence:approve", "approver-1", "refused", "same_approver"),
        ("presence:approve", "approver-2", "allowed", None),
        ("session:start", "approver-2", "allowed", None),
    ]
    assert [e.approver for e in bench.done if isinstance(e, SendReceipt)] == [2]


def test_one_pair_of_eyes_in_time_is_none() -> None:
    bench = Bench(policy=Policy(four_eyes=True))
    session = waiting(bench)
    bench.approve(session, Verdict(1))
    bench.later(300)
    assert bench.last(session) == (S.EXPIRED, R.FOUR_EYES)


@pytest.mark.parametrize("four_eyes", [True, False])
def test_nobody_approves_their_own_session(four_eyes: bool) -> None:
    bench = Bench(policy=Policy(four_eyes=four_eyes))
    session = waiting(bench)
    own = Verdict(3, specialist="alice")
    assert bench.approve(session, own) is P.SELF
    assert bench.state(session) is S.PRESENCE
    assert bench.records(session)[-1] == (
        "presence:approve", "approver-3", "refused", "self_approval",
    )  # fmt: skip
    if four_eyes:
        assert bench.approve(session, Verdict(1)) is P.MORE
        assert bench.approve(session, own) is P.SELF
    assert bench.approve(session, Verdict(4, specialist="bob")) is P.DONE


def test_nobody_renews_their_own_session() -> None:
    bench = Bench(policy=Policy(renewal_s=300))
    session = bench.active()
    bench.later(300)
    assert bench.approve(session, Verdict(3, specialist="alice")) is P.SELF
    bench.later(61)
    assert bench.last(session) == (S.ENDED, R.PRESENCE_NOT_RENEWED)


def test_four_eyes_asked_for_meanwhile_are_asked_for() -> None:
    bench = Bench()
    session = waiting(bench)
    bench.policy(four_eyes=True)
    assert bench.approve(session, Verdict(1)) is P.MORE


async def test_an_approver_is_bound_to_the_specialist(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.command("pin-set", approver=2, pin="135791", specialist="alice")
        session = w.request()
        await w.answer(session)
        await w.reached(session, S.PRESENCE)
        with pytest.raises(ControlError, match="specialist's own"):
            await w.command("approve", pin="135791")
        # Another PIN for the same approver is no way around it, nor is a restart.
        await w.command("pin-set", approver=2, pin="135792")
        with pytest.raises(ControlError, match="specialist's own"):
            await w.command("approve", pin="135792")
        await w.command("approve", pin=PIN)
        update = await w.reached(session, S.ACTIVE)
        assert update.approvers == [1]
        with pytest.raises(ControlError, match="letters, digits"):
            await w.command("pin-set", approver=3, pin="135793", specialist="al ice")


async def test_four_eyes_through_a_whole_agent(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.command("pin-set", approver=2, pin="135791")
        it = document(four_eyes=True)
        await w.command("site-policy-offer", document=_plain(it))
        await w.command("site-policy-accept", digest=it.digest, pin=PIN)
        session = w.request()
        await w.answer(session)
        await w.reached(session, S.PRESENCE)
        assert (await w.command("approve", pin=PIN))["more"] is True
        with pytest.raises(ControlError, match="Somebody else"):
            await w.command("approve", pin=PIN)
        await w.command("approve", pin="135791")
        assert (await w.reached(session, S.ACTIVE)).approvers == [1, 2]


def _plain(it: object) -> object:
    import msgspec

    return msgspec.to_builtins(it)


# --- one consent for one ticket -------------------------------------------------------------------


def consented(hours: int = 2, **policy: object) -> Bench:
    """A bench where approver 7 consented to alice's ticket T-1, and the first session is over."""
    bench = Bench(policy=Policy(ticket_h=4, **policy))  # type: ignore[arg-type]
    session = waiting(bench)
    assert bench.approve(session, Verdict(7), hours) is P.DONE
    bench.end(session)
    return bench


def again(bench: Bench, **changes: object) -> SessionState:
    session = bench.request(**changes)  # type: ignore[arg-type]
    bench.answer(session)
    return bench.state(session)


def test_a_later_session_on_the_ticket_starts_and_says_whose_consent_covers_it() -> None:
    bench = consented()
    first = bench.desk.session(f"{1:032x}")
    session = bench.request()
    bench.answer(session)
    assert bench.state(session) is S.ACTIVE
    assert bench.records(session) == [
        ("session:challenge", "alice", "allowed", None),
        ("presence:cover", "approver-7", "allowed", None),
        ("session:start", "alice", "allowed", None),
    ]
    it = bench.desk.session(session)
    assert it is not None
    assert first is not None
    assert it.covered
    assert it.approvers == [7]
    assert bench.desk.consents(bench.now)[0]["ticket"] == "T-1"


def test_what_a_consent_does_not_cover() -> None:
    for changes in (
        {"specialist": "bob"},
        {"ticket": "T-2"},
        {"ticket": None},
        {"break_glass": True},
    ):
        bench = consented()
        session = bench.request(**changes)  # type: ignore[arg-type]
        who = bench.bob if "specialist" in changes else bench.alice
        bench.answer_as(who, session)
        assert bench.state(session) is S.PRESENCE, changes


def test_no_higher_level_than_was_approved() -> None:
    bench = Bench(policy=Policy(ticket_h=4, service=Rule.ASK))
    session = waiting(bench, level=Level.SERVICE, services=["web"])
    bench.approve(session, Verdict(7), 4)
    bench.end(session)
    assert again(bench, level=Level.OS) is S.PRESENCE
    bench.refuse()


def test_a_lower_level_is_covered() -> None:
    bench = consented(service=Rule.ASK)
    assert again(bench, level=Level.SERVICE, services=["web"]) is S.ACTIVE


def test_its_time_is_over_by_the_boot_clock() -> None:
    bench = consented(hours=2)
    bench.later(2 * HOUR - 1)
    assert again(bench) is S.ACTIVE
    bench = consented(hours=2)
    bench.later(2 * HOUR)
    assert again(bench) is S.PRESENCE
    assert bench.desk.consents(bench.now) == []


def test_a_policy_that_gives_less_by_then_covers_less() -> None:
    bench = consented(hours=4)
    bench.policy(ticket_h=1)
    bench.later(HOUR + 1)
    assert again(bench) is S.PRESENCE
    bench = consented()
    bench.policy(ticket_h=0)
    assert again(bench) is S.PRESENCE
    bench = consented()
    bench.policy(four_eyes=True)
    assert again(bench) is S.PRESENCE


@pytest.mark.parametrize("hours", [5, -1])
def test_no_longer_than_the_policy_allows(hours: int) -> None:
    bench = Bench(policy=Policy(ticket_h=4))
    session = waiting(bench)
    assert bench.approve(session, Verdict(1), hours) is P.NO_TICKET
    assert bench.state(session) is S.PRESENCE


@pytest.mark.parametrize("changes", [{"ticket": None}, {"break_glass": True}])
def test_what_never_gives_consent_to_a_ticket(changes: dict[str, object]) -> None:
    bench = Bench(policy=Policy(ticket_h=4))
    session = waiting(bench, **changes)
    assert bench.approve(session, Verdict(1), 1) is P.NO_TICKET
    assert bench.approve(session, Verdict(1)) is P.DONE
    assert bench.desk.consents(bench.now) == []


def test_four_eyes_consent_to_what_both_gave() -> None:
    bench = Bench(policy=Policy(ticket_h=4, four_eyes=True))
    session = waiting(bench)
    bench.approve(session, Verdict(1), 4)
    bench.approve(session, Verdict(2), 1)
    assert [c["left_s"] for c in bench.desk.consents(bench.now)] == [HOUR]
    bench = Bench(policy=Policy(ticket_h=4, four_eyes=True))
    session = waiting(bench)
    bench.approve(session, Verdict(1), 4)
    bench.approve(session, Verdict(2))
    assert bench.desk.consents(bench.now) == []


def test_stop_withdraws_it_and_the_switch_does() -> None:
    bench = consented()
    assert again(bench) is S.ACTIVE
    bench.stop()
    assert again(bench) is S.PRESENCE
    bench = consented()
    bench.policy(remote=False)
    bench.policy(remote=True)
    assert again(bench) is S.PRESENCE
    bench = consented()
    bench.desk.withdraw()
    assert again(bench) is S.PRESENCE


def test_a_covered_session_is_renewed_and_stopped_like_any_other() -> None:
    bench = consented(renewal_s=300)
    assert again(bench) is S.ACTIVE
    bench.later(300)
    bench.later(61)
    assert bench.last(f"{2:032x}") == (S.ENDED, R.PRESENCE_NOT_RENEWED)


def test_in_use_a_consent_stands_for_nobody() -> None:
    bench = consented()
    session = bench.request()
    bench.clinical(ClinicalState.FILLING)
    bench.answer(session)
    assert bench.state(session) is S.PRESENCE


async def test_no_consent_outlives_a_restart(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.command("policy-set", policy={"ticket_h": 2}, pin=PIN)
        session = w.request(ticket="T-1")
        await w.answer(session)
        await w.reached(session, S.PRESENCE)
        await w.command("approve", pin=PIN, ticket_h=2)
        w.end(session)
        await w.reached(session, S.ENDED)
        covered = w.request(ticket="T-1")
        await w.answer(covered)
        assert (await w.reached(covered, S.ACTIVE)).approvers == [1]
        assert ("presence:cover", "approver-1", "allowed", None) in w.audit(covered)
        await w.stop()
        await w.start()
        later = w.request(ticket="T-1")
        await w.answer(later)
        await w.reached(later, S.PRESENCE)
