"""What people decide at the panel: not now, the ticket, the hospital's policy (R-ACC-6)."""

from pathlib import Path

import pytest

from agent.access import site as sites
from agent.access.effects import PanelResult
from agent.access.pins import Verdict
from agent.access.policy import Policy
from agent.wire.catalogue import ClientKind, SessionReason, SessionState
from tests.agent.panel.scripted import PIN
from tests.agent.panel.test_panel import BIG, SMALL, panel
from tests.sites import document


@pytest.mark.parametrize("size", [BIG, SMALL])
@pytest.mark.parametrize("language", ["en", "fr-CA"])
async def test_everything_a_person_needs_fits(
    tmp_path: Path, size: tuple[int, int], language: str
) -> None:
    policy = Policy(ticket_h=4)
    async with panel(tmp_path, language, size=size, policy=policy) as p:
        p.script.presence(note="N" * 60)
        await p.until("(F5)", "(F10)")
        for id in ("pin", "approve", "refuse", "not-now", "ticket", "stop", "remote", "code"):
            assert p.fits(id), id


async def test_a_patient_on_the_table_in_one_touch(tmp_path: Path) -> None:
    async with panel(tmp_path) as p:
        session = p.script.presence()
        await p.until("asks for access", "Not now: patient (F5)")
        await p.press("f5")
        await p.until("a patient was here", gone="asks for access")
        last = (SessionState.REFUSED, SessionReason.PATIENT_ON_TABLE)
        assert p.script.bench.last(session) == last


async def test_a_session_that_runs_is_not_put_off_by_it(tmp_path: Path) -> None:
    async with panel(tmp_path) as p:
        session = p.script.active()
        await p.until("is connected")
        await p.press("f5")
        await p.pilot.pause(0.1)
        assert p.script.bench.state(session) is SessionState.ACTIVE


async def test_an_approval_counts_for_the_ticket_for_as_long_as_was_chosen(tmp_path: Path) -> None:
    async with panel(tmp_path, policy=Policy(ticket_h=2)) as p:
        p.script.presence(ticket="T-1")
        await p.until("This session only (F10)")
        await p.press("f10")
        await p.until("This ticket for 1 h (F10)")
        await p.press("f10")
        await p.until("This ticket for 2 h (F10)")
        await p.press(*PIN, "enter")
        await p.until("is connected")
        assert [c["left_s"] for c in p.script.desk.consents(p.script.now())] == [7200]
        p.script.bench.end(p.script.desk.open[0].id)
        p.script.look_changed()
        await p.until("Consent: alice, ticket T-1, for another 2 h")
        # What was chosen for one is not carried on to another.
        p.script.presence(ticket="T-2")
        await p.until("This session only (F10)")


@pytest.mark.parametrize("changes", [{"ticket": None}, {"break_glass": True}])
async def test_no_ticket_to_consent_to(tmp_path: Path, changes: dict[str, object]) -> None:
    async with panel(tmp_path, policy=Policy(ticket_h=2)) as p:
        p.script.presence(**changes)
        await p.until("asks for access")
        assert "F10" not in p.text
        await p.press("f10", *PIN, "enter")
        await p.until("is connected")
        assert p.script.desk.consents(p.script.now()) == []


async def test_four_eyes_at_the_panel(tmp_path: Path) -> None:
    async with panel(tmp_path, policy=Policy(four_eyes=True)) as p:
        session = p.script.presence()
        await p.until("Two different people must approve.")
        await p.press(*PIN, "enter")
        await p.until("Approved by one person. Somebody else must approve as well.")
        await p.press(*PIN, "enter")
        await p.until("You approved already.")
        assert p.script.bench.approve(session, Verdict(2)) is PanelResult.DONE
        p.script.look_changed()
        await p.until("is connected")


async def test_broken_glass_is_loud_and_the_client_is_named(tmp_path: Path) -> None:
    async with panel(tmp_path) as p:
        p.script.presence(break_glass=True)
        await p.until("EMERGENCY ACCESS", "command line")
        assert p.app.screen.query_one("#card").has_class("glass")
    other = tmp_path / "other"
    other.mkdir()
    async with panel(other, policy=Policy(browser_os=True)) as p:
        p.script.asked(client=ClientKind.BROWSER)
        await p.until("(browser)")
        assert not p.app.screen.query_one("#card").has_class("glass")


async def test_the_last_sessions_report_stays_on_the_screen(tmp_path: Path) -> None:
    """R-ACC-10"""
    async with panel(tmp_path) as p:
        session = p.script.active(name="Alice Tremblay", organisation="Injector Service")
        p.script.bench.moved(session, 3_400_000, 120_000)
        p.script.later(600)
        p.script.bench.stop()
        p.script.look_changed()
        await p.until(
            "The last session was stopped here.",
            "Alice Tremblay, Injector Service · Full access to the system",
            "10 min, 3.4 MB sent, 120 kB received",
            "Approved by: 1",
        )


async def test_the_hospitals_policy_is_accepted_after_its_fingerprint_was_seen(
    tmp_path: Path,
) -> None:
    """R-ACC-7"""
    async with panel(tmp_path) as p:
        await p.until("Policy: as it was set at this panel")
        it = document(sessions=2)
        p.script.set_site(sites.Site().offered(it, Policy(), at_panel=True))
        p.script.look_changed()
        await p.until("A policy of the hospital waits (F10)")
        await p.press("f10")
        await p.until(it.fingerprint, "It loosens: sessions")
        await p.press("escape")
        assert p.script.in_force.site.held is None
        await p.press("f10")
        await p.until(it.fingerprint)
        await p.press(*"111111", "enter")
        await p.until("The PIN is wrong")
        assert p.script.in_force.site.held is None
        await p.press("f10")
        await p.until(it.fingerprint)
        await p.press(*PIN, "enter")
        await p.until("The policy holds.", f"signed by the hospital's key {it.fingerprint[:11]}")
        assert p.script.in_force.site.held == it


async def test_a_policy_that_was_tampered_with_is_said(tmp_path: Path) -> None:
    async with panel(tmp_path) as p:
        p.script.set_site(sites.BROKEN)
        p.script.look_changed()
        await p.until("cannot be believed: nothing is allowed")
