"""The panel beside a whole agent at the real gate: a person lets a specialist in (R-ACC-6)."""

import asyncio
from pathlib import Path

from agent.panel import words
from agent.panel.app import Panel
from agent.panel.widgets import PinInput, Text
from agent.wire import challenge
from agent.wire.catalogue import SessionReason, SessionState
from tests.agent.access.world import PIN, world


async def test_a_person_approves_and_stops_a_real_session(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        app = Panel(w.state)
        async with app.run_test(size=(110, 40)) as pilot:

            async def until(id: str, text: str) -> None:
                async with asyncio.timeout(20):
                    while text not in str(app.query_one(f"#{id}", Text).content):
                        await pilot.pause(0.02)

            await until("link", "Ready for remote service")
            session = w.request()
            await w.answer(session)
            await until("title", "Alice asks for access")
            # The code is worked out by each side from the same signed bytes.
            seen = challenge.code((await w.challenge(session)).challenge)
            await until("code", words.spaced(seen))
            await until("advice", "Have the specialist read out the code.")
            async with asyncio.timeout(20):  # the cursor comes with the next frame
                while app.focused is not app.query_one("#pin", PinInput):
                    await pilot.pause(0.02)
            await pilot.press(*PIN, "enter")
            await w.reached(session, SessionState.ACTIVE)
            await until("title", "Alice is connected")
            await pilot.press("f4")
            ended = await w.reached(session, SessionState.ENDED)
            assert ended.reason is SessionReason.STOPPED_AT_PANEL
            await until("last", "The last session was stopped here.")
