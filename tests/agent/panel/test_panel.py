"""The panel, driven by keys before a real control socket (R-ACC-6, R-ACC-7, R-CON-9, R-ASR-3)."""

import asyncio
import gettext
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Button

from agent import i18n
from agent.panel import client, words
from agent.panel.app import Panel
from agent.panel.widgets import Confirm, PinInput, Text
from agent.wire.catalogue import ClinicalState, Level, SessionState
from tests.agent.panel.scripted import CODE, PIN, Script, script

BIG, SMALL = (110, 40), (80, 24)


class Screen:
    """What a person sees and presses."""

    def __init__(self, app: Panel, pilot: Pilot[None], said: Script) -> None:
        self.app, self.pilot, self.script = app, pilot, said

    @property
    def text(self) -> str:
        """Everything that is shown, row by row."""
        shown = [
            str(widget.content) if isinstance(widget, Text) else str(widget.label)
            for widget in self.app.screen.query("Text, Button").results(Text | Button)  # type: ignore[type-var]
            if self._visible(widget)
        ]
        return "\n".join(shown)

    def _visible(self, widget: Any) -> bool:
        return bool(widget.region.size) and all(a.display for a in widget.ancestors_with_self)

    async def until(self, *texts: str, gone: str = "") -> None:
        try:
            async with asyncio.timeout(20):
                while not all(t in self.text for t in texts) or (gone and gone in self.text):
                    await self.pilot.pause(0.02)
        except TimeoutError:
            raise AssertionError(f"{texts} not in:\n{self.text}") from None

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)

    def button(self, id: str) -> Button:
        return self.app.screen.query_one(f"#{id}", Button)

    def fits(self, id: str) -> bool:
        """Whether the whole widget lies within the screen, and nothing covers its middle."""
        widget = self.app.screen.query_one(f"#{id}")
        if not self.app.screen.region.contains_region(widget.region):
            return False
        found, _region = self.app.screen.get_widget_at(*widget.region.center)  # type: ignore[arg-type]
        return widget in found.ancestors_with_self


@asynccontextmanager
async def panel(
    tmp_path: Path, language: str = "en", size: tuple[int, int] = BIG, **options: Any
) -> AsyncIterator[Screen]:
    async with script(tmp_path, language, **options) as said:
        app = Panel(said.state_dir)
        async with app.run_test(size=size) as pilot:
            screen = Screen(app, pilot, said)
            await screen.until("SN-2041")
            yield screen


# --- calm ----------------------------------------------------------------------------------------


async def test_nobody_is_connected(tmp_path: Path) -> None:
    async with panel(tmp_path) as p:
        await p.until("No remote session", "Ready for remote service", "Idle")
        assert p.button("stop").disabled
        assert "Approve" not in p.text


async def test_three_contacts_are_always_there(tmp_path: Path) -> None:
    """R-ASR-3"""
    async with panel(tmp_path, size=SMALL) as p:
        p.script.presence()
        await p.until("Device support", "Connectivity support", "Cybersecurity support")
        for name in ("device", "connectivity", "cybersecurity"):
            assert p.fits(f"contact-{name}")


async def test_contacts_of_the_vendor(tmp_path: Path) -> None:
    async with script(tmp_path) as said:
        (said.state_dir / "contacts.json").write_text(
            json.dumps({"device": "1-800-REPAIR", "connectivity": "net@x.example"})
        )
        app = Panel(said.state_dir)
        async with app.run_test(size=BIG) as pilot:
            await Screen(app, pilot, said).until("1-800-REPAIR", "net@x.example", "security@")


# --- a request -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [BIG, SMALL])
async def test_who_why_what_how_long_and_the_code(tmp_path: Path, size: tuple[int, int]) -> None:
    """R-ACC-6"""
    async with panel(tmp_path, size=size) as p:
        p.script.presence(
            name="Alice Tremblay", organisation="Injector Service", note="Pump noise", ticket=None
        )
        await p.until(
            "Alice Tremblay asks for access",
            "Injector Service (alice)",
            "Repair",
            "Full access to the system: ssh",
            "30 min",
            "to follow",
            "Pump noise",
            words.spaced(CODE),
            "5:00",
            "patient data included",
        )
        for id in ("pin", "approve", "refuse", "stop", "code", "left", "notice", "remote"):
            assert p.fits(id), id


async def test_the_longest_request_leaves_room_for_the_answer(tmp_path: Path) -> None:
    for language in ("en", "fr-CA"):
        folder = tmp_path / language
        folder.mkdir()
        async with panel(folder, language, size=SMALL) as p:
            session = p.script.presence(
                name="N" * 80,
                organisation="O" * 80,
                note="long words " * 18,
                ticket="T" * 32,
                services=["ssh", "console", "web", "logs"],
            )
            while not p.app.screen.query_one("#pin", PinInput).has_focus:
                await p.pilot.pause(0.02)
            await p.pilot.pause(0.1)
            for id in ("pin", "approve", "refuse", "stop", "code", "left"):
                assert p.fits(id), id
            await p.press(*PIN, "enter")
            while p.script.bench.state(session) is not SessionState.ACTIVE:
                await p.pilot.pause(0.02)


async def test_approve_with_keys_alone(tmp_path: Path) -> None:
    async with panel(tmp_path) as p:
        session = p.script.presence()
        await p.until("asks for access")
        assert p.app.focused is p.app.screen.query_one("#pin")
        await p.press(*PIN, "enter")
        await p.until("Alice is connected", "● Remote session", "Approved.")
        assert p.script.bench.state(session) is SessionState.ACTIVE
        assert p.script.bench.records(session)[-2][:2] == ("presence:approve", "approver-1")


async def test_nobody_sees_the_pin(tmp_path: Path) -> None:
    async with panel(tmp_path) as p:
        p.script.presence()
        await p.until("asks for access")
        await p.press(*PIN[:4], "x", "!")
        pin = p.app.screen.query_one("#pin", PinInput)
        assert pin.value == PIN[:4]
        assert PIN[:4] not in p.app.export_screenshot()


async def test_a_wrong_pin_and_then_the_right_one(tmp_path: Path) -> None:
    async with panel(tmp_path) as p:
        session = p.script.presence()
        await p.until("asks for access")
        await p.press("enter")
        await p.until("Enter your PIN first.")
        await p.press(*"111111", "enter")
        await p.until("The PIN is wrong; tries left: 2.")
        assert p.app.screen.query_one("#pin", PinInput).value == ""
        await p.press(*PIN, "enter")
        await p.until("is connected")
        assert p.script.bench.state(session) is SessionState.ACTIVE


async def test_too_many_wrong_pins(tmp_path: Path) -> None:
    async with panel(tmp_path) as p:
        p.script.presence()
        await p.until("asks for access")
        for _try in range(3):
            await p.press(*"111111", "enter")
            await p.pilot.pause(0.1)
        await p.until("Too many wrong PINs.", "The last request was refused: too many wrong PINs.")


async def test_refuse(tmp_path: Path) -> None:
    async with panel(tmp_path) as p:
        session = p.script.presence()
        await p.until("asks for access")
        await p.press("f3")
        await p.until("The last request was refused here.", gone="asks for access")
        assert p.script.bench.state(session) is SessionState.REFUSED


async def test_digits_for_one_session_do_not_approve_another(tmp_path: Path) -> None:
    async with panel(tmp_path) as p:
        first = p.script.presence()
        await p.until("asks for access")
        await p.press(*PIN)
        p.script.bench.end(first)
        second = p.script.presence(name="Bob", specialist="alice")
        await p.until("Bob asks for access")
        await p.press("enter")
        await p.until("Enter your PIN first.")
        assert p.script.bench.state(second) is SessionState.PRESENCE


async def test_before_the_signature_there_is_nothing_to_approve(tmp_path: Path) -> None:
    async with panel(tmp_path) as p:
        p.script.asked()
        await p.until("Waiting for the specialist to sign", "Refuse (F3)")
        assert "Approve" not in p.text
        await p.press("f2", "enter", "f3")
        await p.until("refused here")


async def test_text_from_the_network_is_inert(tmp_path: Path) -> None:
    async with panel(tmp_path) as p:
        p.script.presence(
            name="[bold red]Eve[/]",
            note="[@click=app.approve]click[/] [link='x']y",
            organisation="[",
        )
        await p.until("[bold red]Eve[/] asks for access", "[@click=app.approve]click[/]")


# --- in use --------------------------------------------------------------------------------------


async def test_in_use_it_waits_and_a_person_may_declare_no_patient(tmp_path: Path) -> None:
    """R-ACC-7"""
    async with panel(tmp_path) as p:
        p.script.clinical(ClinicalState.READY)
        p.script.asked()
        await p.until("The request waits until it is free", "Ready")
        await p.press("f6")
        await p.until("Is no patient connected to this injector?")
        await p.press("escape")
        await p.pilot.pause(0.05)
        assert p.script.clinical_state is ClinicalState.READY
        await p.press("f6", "tab", "enter")
        await p.until("Declared: no patient is connected.", "Waiting for the specialist to sign")
        assert p.script.recorded == [("clinical:no_patient", "panel")]


async def test_no_patient_cannot_be_declared_during_an_injection(tmp_path: Path) -> None:
    async with panel(tmp_path) as p:
        p.script.clinical(ClinicalState.INJECTING)
        await p.until("Injecting")
        await p.press("f6", "tab", "enter")
        await p.until("An injection is running.")


async def test_not_in_use_there_is_nothing_to_declare(tmp_path: Path) -> None:
    async with panel(tmp_path) as p:
        assert p.button("no-patient").disabled
        await p.press("f6")
        await p.pilot.pause(0.05)
        assert not isinstance(p.app.screen, Confirm)


# --- a session -----------------------------------------------------------------------------------


async def test_stop_with_one_key(tmp_path: Path) -> None:
    async with panel(tmp_path) as p:
        session = p.script.active()
        await p.until("is connected", "● Remote session", "30:00")
        assert not p.button("stop").disabled
        await p.press("f4")
        await p.until("The last session was stopped here.", "Stopped.")
        assert p.script.bench.state(session) is SessionState.ENDED


async def test_stop_works_while_a_question_is_open(tmp_path: Path) -> None:
    async with panel(tmp_path) as p:
        session = p.script.active()
        await p.until("is connected")
        await p.press("f7")
        await p.until("Switch remote connection off?")
        await p.press("f2", "f3", "f6", "f8", "f4")
        await p.until("Switch remote connection off?")
        async with asyncio.timeout(20):
            while p.script.bench.state(session) is not SessionState.ENDED:
                await p.pilot.pause(0.02)


async def test_held_while_in_use(tmp_path: Path) -> None:
    async with panel(tmp_path) as p:
        p.script.active()
        p.script.clinical(ClinicalState.ARMED)
        await p.until("On hold: the injector is in use.", "Armed")


async def test_presence_is_renewed(tmp_path: Path) -> None:
    """R-ACC-6"""
    async with panel(tmp_path) as p:
        session = p.script.active(life_s=7200)
        p.script.later(600)
        p.script.bench.moved(session, 10, 10)
        p.script.later(600)
        p.script.bench.moved(session, 20, 10)
        p.script.later(601)
        await p.until("Is somebody still here?", "Go on (Enter)", "1:00")
        await p.press(*PIN, "enter")
        await p.until("Stop ends the session at once.")
        assert p.script.bench.records(session)[-1][0] == "presence:renew"


async def test_diagnostics_promise_no_patient_data(tmp_path: Path) -> None:
    async with panel(tmp_path) as p:
        p.script.active(level=Level.DIAGNOSTICS, services=["logs"])
        await p.until("Read diagnostics: logs")
        assert "patient data" not in p.text


# --- the switch ----------------------------------------------------------------------------------


async def test_remote_connection_off_and_on_with_keys(tmp_path: Path) -> None:
    """R-CON-9"""
    async with panel(tmp_path) as p:
        await p.press("f7", "enter")  # the question's default is no
        await p.pilot.pause(0.05)
        assert p.script.bench.facts.policy.remote
        await p.press("f7", "tab", "enter")
        await p.until("Remote connection is off", "○ Remote connection off", "Remote on (F7)")
        await p.press("f7")
        await p.until("Switch remote connection on?")
        await p.press("enter")
        await p.until("A PIN is needed for this.")
        await p.press("f7", *PIN, "enter")
        await p.until("Remote connection is on.", "No remote session")
        assert p.script.recorded == [("remote:off", "panel"), ("remote:on", "approver-1")]


# --- language ------------------------------------------------------------------------------------


class French(gettext.NullTranslations):
    """Marks what was translated, whatever the catalogue holds by now."""

    def gettext(self, message: str) -> str:
        return f"«{message}»"


@pytest.fixture
def french(monkeypatch: pytest.MonkeyPatch) -> None:
    real = i18n._catalogue
    monkeypatch.setattr(i18n, "_catalogue", lambda tag: French() if tag == "fr_CA" else real(tag))


@pytest.mark.usefixtures("french")
async def test_the_injectors_language_and_the_switch(tmp_path: Path) -> None:
    """R-ASR-4: every text of the panel goes through the catalogue."""
    async with panel(tmp_path, "fr-CA", size=(200, 50)) as p:
        p.script.presence(note="", ticket=None)
        await p.until("«Alice asks for access»", "English (F8)", "«Approve (Enter)»")
        mine = (
            "English (F8)",
            "5:00",
            "4:5",
            words.spaced(CODE),
            "Alice, Vendor",
            "+1 800",
            "security@",
        )
        for line in p.text.splitlines():
            shown = line.startswith("«") or line.endswith("»") or not line
            assert shown or line.startswith(mine) or ": ssh" in line, line
        await p.press(*"111111", "enter")
        await p.until("«The PIN is wrong; tries left: 2.»")  # the agent answers in it as well
        await p.press("f8")
        await p.until("Alice asks for access", "Français (F8)", gone="«")
        await p.press(*"111111", "enter")
        await p.until("The PIN is wrong; tries left: 1.", gone="«")


def test_every_code_has_words() -> None:
    from agent.wire.catalogue import RequestReason, SessionReason

    assert {words.level(c) for c in Level}
    assert all(words.why(c) for c in RequestReason)
    assert all(words.clinical(c) for c in ClinicalState)
    assert all(words.over(SessionState.REFUSED, c) for c in [*SessionReason, None])
    assert all(words.over(SessionState.ENDED, c) for c in [*SessionReason, None])


@pytest.mark.parametrize(
    ("seconds", "long", "left"),
    [
        (45, "45 s", "0:45"),
        (60, "1 min", "1:00"),
        (1800, "30 min", "30:00"),
        (3600, "1 h", "1:00:00"),
        (5400, "1 h 30 min", "1:30:00"),
        (-3, "-3 s", "0:00"),
    ],
)
def test_times_for_people(seconds: int, long: str, left: str) -> None:
    assert (words.length(seconds), words.countdown(seconds)) == (long, left)


# --- the agent comes and goes --------------------------------------------------------------------


async def test_the_panel_survives_the_agents_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "AGAIN_S", 0.05)
    async with panel(tmp_path) as p:
        p.script.presence()
        await p.until("asks for access")
        await p.script.stop()
        await p.until("The agent does not answer", gone="asks for access")
        assert p.button("stop").disabled
        await p.press("f2", "f3", "f4", "f6", "f7", "enter")
        assert not isinstance(p.app.screen, Confirm)
        await p.script.start()
        await p.until("asks for access")
        await p.press(*PIN, "enter")
        await p.until("is connected")


async def test_the_first_frame_claims_nothing_of_an_agent_not_asked_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asyncio.Event()

    async def views(_state: Path) -> AsyncIterator[None]:
        await asked.wait()
        yield None

    monkeypatch.setattr(client, "views", views)
    async with script(tmp_path) as said, Panel(said.state_dir).run_test(size=BIG) as pilot:
        screen = Screen(pilot.app, pilot, said)  # type: ignore[arg-type]
        await screen.until("Connecting to the agent…")
        assert "does not answer" not in screen.text
        asked.set()
        await screen.until("The agent does not answer")


async def test_the_panel_waits_for_an_agent_that_is_not_there_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "AGAIN_S", 0.05)
    async with script(tmp_path) as said:
        await said.stop()
        app = Panel(said.state_dir)
        async with app.run_test(size=BIG) as pilot:
            screen = Screen(app, pilot, said)
            await screen.until("The agent does not answer")
            await said.start()
            await screen.until("No remote session")


@pytest.mark.parametrize(
    "line", [b"rubbish\n", b'{"ok": true, "result": {"v": 2}}\n', b'{"ok": false}\n', b"[]\n"]
)
async def test_an_agent_that_makes_no_sense(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: bytes
) -> None:
    monkeypatch.setattr(client, "AGAIN_S", 0.05)

    async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(line)
        await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(nonsense, path=str(tmp_path / "control.sock"))
    async with server:
        app = Panel(tmp_path)
        async with app.run_test(size=BIG) as pilot:
            for _ in range(5):
                await pilot.pause(0.05)
            assert app.is_running
            assert "does not answer" in str(app.query_one("#calm-title", Text).content)
