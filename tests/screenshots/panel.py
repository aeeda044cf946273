"""The panel at the injector, in each of its moments, as the browser draws Textual's own picture."""

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.access import site as sites
from agent.access.policy import Policy
from agent.network.site import Site
from agent.panel.app import Panel
from tests.agent.panel.scripted import Script, script
from tests.sites import document

SIZES = {"": (100, 36), "-small": (80, 24)}  # columns, lines
REQUEST: dict[str, Any] = {
    "name": "Marie Dubois",
    "organisation": "Northfield Imaging Service",
    "ticket": "SR-20418",
    "note": "Pressure sensor drifts on syringe A",
}


def _calm(_said: Script) -> None:
    pass


def _asked(said: Script) -> None:
    said.presence(**REQUEST)


def _active(said: Script) -> None:
    said.active(**REQUEST)


def _network(said: Script) -> None:
    Site(said.state_dir, said.control, lambda: None).open()


def _last(said: Script) -> None:
    said.active(**REQUEST)
    said.bench.moved(said.desk.open[0].id, 3_400_000, 120_000)
    said.later(720)
    said.bench.stop()
    said.look_changed()


def _glass(said: Script) -> None:
    said.presence(**REQUEST, break_glass=True)


def _four_eyes(said: Script) -> None:
    said.set_policy(Policy(four_eyes=True, ticket_h=4))
    session = said.presence(**REQUEST)
    said.bench.approve(session)
    said.look_changed()


def _covered(said: Script) -> None:
    said.set_policy(Policy(ticket_h=4))
    session = said.presence(**REQUEST)
    said.bench.approve(session, ticket_h=4)
    said.bench.end(session)
    said.asked(**REQUEST)
    said.bench.answer(said.desk.open[0].id)
    said.look_changed()


def _policy(said: Script) -> None:
    held = sites.Site().offered(document(), Policy(), at_panel=True)
    assert held.waiting is not None
    held = held.accepted(held.waiting.digest)
    said.set_site(held.offered(document(2, sessions=2, ticket_h=4), Policy(), at_panel=True))
    said.look_changed()


MOMENTS = {
    "panel-calm": _calm,
    "panel-request": _asked,
    "panel-active": _active,
    "panel-network": _network,
    "panel-last": _last,
    "panel-glass": _glass,
    "panel-four-eyes": _four_eyes,
    "panel-covered": _covered,
    "panel-policy": _policy,
    "panel-policy-question": _policy,
}
KEYS = {"panel-network": "f9", "panel-policy-question": "f10"}


def draw(only: list[str]) -> dict[str, str]:
    """Where a picture belongs -> its SVG. Runs an event loop: call it where none runs."""
    return asyncio.run(_draw(only))


def shoot(browser: Any, drawn: dict[str, str], out: Path) -> None:
    context = browser.new_context(offline=True, viewport={"width": 1360, "height": 1000})
    page = context.new_page()
    for name, svg in drawn.items():
        target = out / f"{name}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        page.set_content(svg, wait_until="domcontentloaded")
        page.locator("svg").first.screenshot(path=target)
    context.close()


async def _draw(only: list[str]) -> dict[str, str]:
    drawn = {}
    for moment, happen in MOMENTS.items():
        if only and not any(part in moment for part in only):
            continue
        for language in ("en", "fr-CA"):
            for suffix, size in SIZES.items():
                svg = await _picture(happen, language, size, KEYS.get(moment))
                drawn[f"{language}-dark/{moment}{suffix}"] = svg
    return drawn


async def _picture(
    happen: Callable[[Script], None], language: str, size: tuple[int, int], key: str | None
) -> str:
    with tempfile.TemporaryDirectory(prefix="patency-panel-") as folder:
        async with script(Path(folder), language) as said:
            app = Panel(said.state_dir)
            async with app.run_test(size=size) as pilot:
                happen(said)
                await pilot.pause(1.2)  # the panel has heard, and has laid itself out
                if key is not None:
                    await pilot.press(key)
                    await pilot.pause(1.2)
                return app.export_screenshot()
