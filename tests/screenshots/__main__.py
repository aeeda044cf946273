"""Every page, light and dark, and the panel, in English and Canadian French, into var/screenshots.

    python -m tests.screenshots [PART OF A PAGE'S NAME …]

Runs the portal's own ASGI application on a free loopback port over a seeded database of its own.
"""

import contextlib
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.request import urlopen

CHROMIUM = os.environ.get("PATENCY_CHROMIUM", "/usr/bin/chromium")
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "var" / "screenshots"
START_DEADLINE_S = 30


@contextlib.contextmanager
def portal(data: Path) -> Iterator[tuple[str, Any]]:
    """The portal over a seeded database: its address and the seed."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    os.environ |= {"PATENCY_DATA": str(data), "PATENCY_HTTP": f"127.0.0.1:{port}"}
    os.environ["DJANGO_SETTINGS_MODULE"] = "fleet.settings"
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0)
    from tests.screenshots import seed

    made = seed.make(data)
    server = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "fleet.asgi:application", "--port", str(port),
         "--log-level", "warning", "--lifespan", "off", "--ws", "websockets-sansio"],
        cwd=ROOT,
    )  # fmt: skip
    try:
        _wait(f"http://127.0.0.1:{port}/-/live")
        yield f"http://127.0.0.1:{port}", made
    finally:
        server.terminate()
        server.wait(10)


def _wait(address: str) -> None:
    deadline = time.monotonic() + START_DEADLINE_S
    while True:
        try:
            with urlopen(address, timeout=2):
                return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def pages(seed: Any) -> dict[str, tuple[str, str]]:
    """name -> (who looks, address)."""
    devices, sessions = seed.devices, seed.sessions
    specialist, admin = "mdubois", "admin"
    return {
        "now": (specialist, "/"),
        "devices": (specialist, "/devices/"),
        "devices-none": (specialist, "/devices/?q=nothing"),
        "device-ct-multi": (specialist, f"/devices/{devices['CEN-20418'].pk}/"),
        "device-ct-dual": (specialist, f"/devices/{devices['STE-88120'].pk}/"),
        "device-mr": (specialist, f"/devices/{devices['MRX-01190'].pk}/"),
        "device-empty": (specialist, f"/devices/{devices['STE-90102'].pk}/"),
        "request": (specialist, f"/devices/{devices['CEN-20418'].pk}/request/"),
        "sessions": (specialist, "/access/"),
        "session-requested": (specialist, f"/access/{sessions['requested'].pk}/"),
        "session-challenged": (specialist, f"/access/{sessions['challenged'].pk}/"),
        "session-presence": (specialist, f"/access/{sessions['presence'].pk}/"),
        "session-active": (specialist, f"/access/{sessions['active'].pk}/"),
        "session-ended": (specialist, f"/access/{sessions['ended'].pk}/"),
        "handover": (specialist, f"/access/{sessions['ended'].pk}/handover/"),
        "ticket": (specialist, f"/access/{sessions['active'].pk}/ticket/"),
        "credential": (admin, f"/devices/{devices['CEN-20417'].pk}/identity/"),
        "report": (specialist, f"/access/{sessions['ended'].pk}/report/"),
        "jobs": (specialist, "/jobs/"),
        "job-new": (specialist, "/jobs/new/"),
        "job": (specialist, f"/jobs/{seed.jobs['many']}/"),
        "audit": (admin, "/audit/"),
        "account": (specialist, "/account/"),
        "security": (specialist, "/account/security/"),
        "phone-security": (specialist, "/account/security/"),
        "signed-in": (specialist, "/account/sessions/"),
        "passkey-new": (specialist, "/account/security/passkeys/new/"),
        "app-remove": (specialist, "/account/security/app/remove/"),
        "codes": (specialist, "/account/security/codes/"),
        "codes-new": (specialist, "/account/security/codes/new/"),
        "password": (specialist, "/account/security/password/"),
        "confirm": (specialist, "/account/confirm/?next=/account/"),
        "connect": (specialist, "/connect/"),
        "connect-decide": (specialist, f"/connect/?code={seed.user_code}"),
        "factor-needed": ("tokafor", "/account/security/needed/"),
        "app-new": ("tokafor", "/account/security/app/"),
        "code": ("half-way", "/sign-in/code/"),
        "servers": (admin, "/servers/"),
        "servers-new": (admin, "/servers/new/"),
        "servers-one": (admin, "/servers/halifax/"),
        "allow-list": ("", "/allow-list/"),
        "phone-allow-list": ("", "/allow-list/"),
        "notices": ("harbour-it", "/notices/"),
        "hospital-now": ("harbour-it", "/"),
        "not-found": (specialist, "/devices/nothing-here/"),
        "sign-in": ("", "/sign-in/"),
        "organisation": ("", "/sign-in/organisation/"),
        "provider": ("", f"/sign-in/with/{seed.provider}/"),
        "provider-refused": ("", f"/sign-in/with/{seed.provider}/back/"),
        "phone-now": (specialist, "/"),
        "phone-devices": (specialist, "/devices/"),
        "phone-device": (specialist, f"/devices/{devices['CEN-20418'].pk}/"),
        "phone-credential": (admin, f"/devices/{devices['CEN-20417'].pk}/identity/"),
        "phone-session": (specialist, f"/access/{sessions['presence'].pk}/"),
        "menu": (specialist, "/devices/"),
    }


def shoot(
    browser: Any, address: str, seed: Any, theme: str, language: str, only: list[str]
) -> None:
    contexts: dict[str, Any] = {}
    for name, (username, path) in pages(seed).items():
        if only and not any(part in name for part in only):
            continue
        if username not in contexts:
            contexts[username] = _context(browser, address, seed, username, theme, language)
        target = OUT / f"{language}-{theme}" / f"{name}.png"
        for complaint in _picture(contexts[username], address + path, target):
            print(f"{target.relative_to(OUT)}: {complaint}")
    for context in contexts.values():
        context.close()


def _picture(context: Any, address: str, target: Path) -> list[str]:
    """Take one picture. Returns what the browser complained of."""
    complaints: list[str] = []
    page = context.new_page()
    page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    if target.stem.startswith("phone-"):
        page.set_viewport_size({"width": 390, "height": 844})
    page.goto(address)
    if target.stem == "menu":
        page.click(".menu > summary")
    if target.stem == "connect-decide":
        page.click("form.card-body button[type=submit]")
    page.wait_for_timeout(700)  # the charts and the times are drawn
    target.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=target, full_page=True)
    if page.evaluate("document.documentElement.scrollWidth > window.innerWidth"):
        complaints.append("wider than the window")
    page.close()
    return [complaint for complaint in complaints if not re.search("40[34]", complaint)]


def _apart(call: Callable[[str], str], argument: str) -> str:
    """In another thread: the browser's runs a loop, in which Django touches no database."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call, argument).result()


def _context(
    browser: Any, address: str, seed: Any, username: str, theme: str, language: str
) -> Any:
    context = browser.new_context(
        viewport={"width": 1360, "height": 850}, color_scheme=theme, locale=language,
        timezone_id="America/Halifax",
    )  # fmt: skip
    page = context.new_page()
    page.goto(address + "/sign-in/")
    with page.expect_navigation():  # a page closed while it still loads never answers
        page.click(f"button[name=language][value={language.lower()}]")
    if username:
        # Signed in beforehand: a code of the authenticator app is taken once in half a minute.
        context.add_cookies(
            [{"name": "patency_session", "value": _apart(seed.sign_in, username), "url": address}]
        )
        page.goto(address + ("/sign-in/code/" if username == "half-way" else "/account/security/"))
        if (
            username != "half-way"
            and page.evaluate("document.documentElement.lang") != language.lower()
        ):
            if username != "tokafor":  # whose page has no menu yet
                page.click(".menu summary")
            with page.expect_navigation():
                page.click(f"button[name=language][value={language.lower()}]")
    page.close()
    return context


def main(only: list[str]) -> None:
    from playwright.sync_api import sync_playwright

    from tests.screenshots import panel

    drawn = panel.draw(only)
    with (
        tempfile.TemporaryDirectory(prefix="patency-pictures-") as data,
        portal(Path(data)) as (address, seed),
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        for language in ("en", "fr-CA"):
            for theme in ("light", "dark"):
                shoot(browser, address, seed, theme, language, only)
        panel.shoot(browser, drawn, OUT)
        browser.close()
    print(f"pictures are in {OUT}")


if __name__ == "__main__":
    main(sys.argv[1:])
