"""Proxy, cap and the doctor at the panel, by keys alone (R-CON-2, R-CON-7, R-ASR-4)."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from textual.widgets import Input

from agent.control import SOCKET
from agent.main import parts
from agent.network import settings
from agent.network.site import Site
from agent.panel.app import Panel
from agent.wire.messages import Hello
from tests.agent.network.relays import HttpProxy
from tests.agent.panel.test_panel import BIG, SMALL, Screen, panel
from tests.agent.support import EnrolmentServer, enrolled, portal, provision
from tests.agent.test_runtime import Running, until
from tests.tls import Authority

AUTHORITY = Authority()


@asynccontextmanager
async def network(
    tmp_path: Path, language: str = "en", size: tuple[int, int] = BIG
) -> AsyncIterator[tuple[Screen, Path, list[bool]]]:
    """The panel with its network screen open, and how often the agent was told to go by more."""
    told: list[bool] = []
    async with panel(tmp_path, language, size) as screen:
        site = Site(screen.script.state_dir, screen.script.control, lambda: told.append(True))
        site.open()
        await screen.press("f9")
        await screen.until("(F2)")
        yield screen, screen.script.state_dir, told


def field(screen: Screen, name: str) -> Input:
    return screen.app.screen.query_one(f"#{name}", Input)


async def test_the_proxy_is_typed_saved_and_shown_again_without_its_password(
    tmp_path: Path,
) -> None:
    async with network(tmp_path) as (screen, state, told):
        await screen.press(*"proxy.example:3128", "tab", *"ct2", "tab", *"s3cret", "f2")
        await screen.until("Saved.")
        kept = settings.load(state).proxy
        assert kept is not None
        assert (str(kept), kept.user, kept.password) == ("proxy.example:3128", "ct2", "s3cret")
        assert told == [True]
        assert field(screen, "password").value == ""
        await screen.press("escape")
        await screen.until("Network (F9)")
        await screen.press("f9")
        await screen.until("(F2)")
        await until_field(screen, "proxy", "proxy.example:3128")
        assert field(screen, "user").value == "ct2"
        assert field(screen, "password").value == ""
        await screen.press("f2")  # the password is not typed again, and stays
        await screen.until("Saved.")
        assert settings.load(state).proxy == kept


async def test_before_enrolment_the_proxy_is_all_that_anybody_types(tmp_path: Path) -> None:
    """R-CON-2: an injector out of the box, behind a proxy that alone reaches the portal."""
    async with portal(tmp_path / "gate", AUTHORITY) as served:
        server = EnrolmentServer(AUTHORITY, access_port=served.gate.port)
        async with server.serving():
            proxy = HttpProxy(("ct2", "s3cret"), {"localhost:1": server.port})
            state = tmp_path / "state"
            provision(state, AUTHORITY, port=1)
            async with proxy.serving() as port, Running(state, parts=parts()):
                app = Panel(state)
                async with app.run_test(size=BIG) as pilot:
                    screen = Screen(app, pilot, None)  # type: ignore[arg-type]
                    await screen.until("Network (F9)")
                    await until((state / SOCKET).exists)
                    await screen.press("f9")
                    await screen.until("(F2)")
                    address = f"127.0.0.1:{port}"
                    await screen.press(*address, "tab", *"ct2", "tab", *"s3cret", "f2")
                    await screen.until("Saved.")
                    await served.until(lambda: served.of(Hello), 20)
                    await screen.press("escape")
                    await screen.until("No remote session")


async def until_field(screen: Screen, name: str, value: str) -> None:
    for _each in range(200):
        if field(screen, name).value == value:
            return
        await screen.pilot.pause(0.02)
    raise AssertionError(f"{name} is {field(screen, name).value!r}")


async def test_emptying_the_fields_does_without(tmp_path: Path) -> None:
    async with network(tmp_path) as (screen, state, _told):
        await screen.press(*"p.example:1", "tab", "tab", "tab", *"64", "f2")
        await screen.until("Saved.")
        assert settings.load(state).up_bytes_s == 64_000
        for name in ("proxy", "cap"):
            field(screen, name).value = ""
        await screen.press("f2")
        await until_settings(screen, state)


async def until_settings(screen: Screen, state: Path) -> None:
    for _each in range(200):
        if settings.load(state) == settings.Settings():
            return
        await screen.pilot.pause(0.02)
    raise AssertionError(settings.load(state))


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (("proxy", "f2"), "HOST:PORT"),
        (("tab", "u", "f2"), "host and port first"),
        (("tab", "tab", "tab", "1", "f2"), "A cap is"),
    ],
)
async def test_what_cannot_be_set_is_said_and_not_kept(
    tmp_path: Path, keys: tuple[str, ...], said: str
) -> None:
    async with network(tmp_path) as (screen, state, told):
        await screen.press(
            *(key for part in keys for key in ([*part] if part == "proxy" else [part]))
        )
        await screen.until(said)
        assert not (state / "network.json").exists()
        assert told == []


@pytest.mark.parametrize(("language", "wrong"), [("en", "WRONG"), ("fr_CA", "ERREUR")])
async def test_the_doctor_says_what_is_wrong_in_the_panels_language(
    tmp_path: Path, free_port: int, language: str, wrong: str
) -> None:
    async with network(tmp_path, language) as (screen, state, _told):
        driver = (state / "driver.json").read_bytes()
        enrolled(state, AUTHORITY, free_port, enrol_port=free_port)
        (state / "driver.json").write_bytes(driver)
        await screen.press("f5")
        await screen.until(wrong, f"localhost:{free_port}")


async def test_the_doctor_without_a_bundle_says_so(tmp_path: Path) -> None:
    async with network(tmp_path) as (screen, _state, _told):
        await screen.press("f5")
        await screen.until("provisioning bundle")


@pytest.mark.parametrize("language", ["en", "fr_CA"])
async def test_on_a_small_screen_everything_is_in_reach(tmp_path: Path, language: str) -> None:
    async with network(tmp_path, language, SMALL) as (screen, _state, _told):
        for name in ("proxy", "user", "password", "cap", "network-save", "network-check"):
            assert screen.fits(name), name
        for name in ("network-leave", "network-save", "network-check"):
            button = screen.button(name)
            assert button.region.width >= len(str(button.label)) + 2
        await screen.press("escape")
        await screen.until("F9")
        assert screen.fits("network")


async def test_the_password_is_not_on_the_screen(tmp_path: Path) -> None:
    async with network(tmp_path) as (screen, _state, _told):
        await screen.press("tab", "tab", *"s3cret")
        shown = field(screen, "password")
        assert shown.value == "s3cret"
        assert "s3cret" not in "".join(segment.text for segment in shown.render_line(0))
