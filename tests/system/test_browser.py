"""A specialist's morning in headless Chromium, beside the running demo and a real injector.

R-ACC-3, R-ACC-6, R-MNT-3, R-MNT-5, R-ASR-4: signs in, filters, opens a device, sees a chart move,
changes language, asks for access, sees the state change as the panel approves, downloads a bundle.
"""

import contextlib
import io
import json
import re
import subprocess
import zipfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.demo import Demo, until
from tests.mfa import code
from tests.screenshots.__main__ import CHROMIUM, CHROMIUM_FLAGS
from tests.sessions import approve, environment

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]


@pytest.fixture
def page(demo: Demo) -> Iterator["Page"]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        context = browser.new_context(base_url=demo.url, locale="en-CA", accept_downloads=True)
        context.set_default_timeout(15_000)
        page = context.new_page()
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on(
            "console",
            lambda line: faults.append(line.text) if "Content Security" in line.text else None,
        )
        try:
            yield page
            assert faults == []
        finally:
            browser.close()


def sign_in(page: "Page", user: dict[str, Any]) -> None:
    page.goto("/")
    page.get_by_label("User name").fill(user["username"])
    page.get_by_label("Password").fill(user["password"])
    page.get_by_role("button", name="Sign in", exact=True).click()
    if user["totp"] is not None:
        show_code(page, user["totp"])
    page.wait_for_url(re.compile(r"localhost:\d+/$"))


def show_code(page: "Page", secret: str) -> None:
    """Type what the authenticator app shows. Each code is taken once: other tests of the same demo
    may have used this one, so the next is tried, and then the one after it."""
    for step in (-1, 0, 1):
        page.get_by_label("Code").fill(code(secret, step=step))
        with page.expect_navigation():
            page.get_by_role("button", name="Continue").click()
        if "/sign-in/code/" not in page.url:
            return
    raise AssertionError(page.content())


def _points(chart: Any) -> int:
    return int(chart.get_attribute("data-points") or 0)


@contextlib.contextmanager
def answering(demo: Demo, session: str) -> Iterator["subprocess.Popen[str]"]:
    """`patency answer` of a request made in the browser, which ends once it is decided."""
    process = subprocess.Popen(
        [demo.info["cli"], "answer", session, "--yes", "-o", "json"],
        env=environment(demo), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def test_a_specialists_morning(demo: Demo, page: "Page") -> None:
    device = demo.device("ct-dual")
    demo.simulate(device, "idle")
    sign_in(page, demo.user("specialist"))
    page.get_by_role("heading", name="What is wrong now").wait_for()

    # Filters, without a reload of the page.
    page.get_by_role("link", name="Devices", exact=True).click()
    rows = page.locator("#list tbody tr")
    until(lambda: rows.count() == 12)
    page.get_by_label("Product line").select_option("ct-dual")
    until(lambda: 0 < rows.count() < 12)
    page.get_by_label(re.compile("Search by serial")).fill(device["serial"])
    until(lambda: rows.count() == 1)
    page.get_by_role("link", name=device["serial"]).click()

    # A chart moves: readings come in at the fast rate, and its picture changes with them.
    chart = page.locator(".uplot canvas").first
    chart.wait_for()
    live = page.locator('[data-controller="charts"][data-live="true"]')
    live.wait_for()
    points, before = _points(live), chart.evaluate("c => c.toDataURL()")
    until(lambda: _points(live) >= points + 5)
    assert chart.evaluate("c => c.toDataURL()") != before
    page.get_by_role("button", name="Pause").click()
    page.get_by_text("Paused").wait_for()
    page.get_by_text("The same as a table").click()
    page.get_by_role("columnheader", name=re.compile("Pressure · A")).wait_for()
    address = page.url

    # The other language, and back.
    page.locator("details.menu > summary").click()
    page.get_by_role("button", name="Français (Canada)").click()
    until(lambda: page.locator("html").get_attribute("lang") == "fr-ca")
    page.locator("details.menu > summary").click()
    page.get_by_role("button", name="English").click()
    until(lambda: page.locator("html").get_attribute("lang") == "en")

    # Asks for access; the command line signs; the injector's panel approves; the page follows.
    page.goto(address)
    page.get_by_role("link", name="Ask for access").click()
    page.locator("input[name=level][value=os]").check()
    page.locator("input[name=services][value=console]").check()
    page.get_by_label("Reason").select_option("repair")
    page.get_by_label(re.compile("Ticket")).fill("T-77")
    page.get_by_role("button", name="Ask for access").click()
    page.wait_for_url(re.compile(r"/access/[0-9a-f]{32}/"))
    session = re.findall(r"[0-9a-f]{32}", page.url)[0]
    page.get_by_text("Now sign").wait_for()
    with answering(demo, session) as command:
        page.get_by_text("Waiting for approval at the injector").first.wait_for()
        code = page.locator(".code-big").inner_text()
        approve(demo, device)
        page.get_by_text("Work on the injector").wait_for()
        out, err = command.communicate(timeout=20)
        assert command.returncode == 0, err
        # What the page computed is what the command line computed for itself.
        assert json.loads(out)["code"] == code
    page.get_by_text("End session").click()
    page.get_by_role("button", name="End it now").click()
    page.get_by_text("Ended by the specialist").first.wait_for()

    # A diagnostics bundle.
    page.goto(address)
    page.get_by_role("link", name="Collect diagnostics").click()
    page.get_by_role("button", name=re.compile("Collect|Create|Queue|Start")).click()
    page.wait_for_url(re.compile(r"/jobs/[^/]+/$"))
    with page.expect_download() as download:
        page.get_by_role("button", name=re.compile("Download|bundle", re.IGNORECASE)).click()
    data = download.value.path().read_bytes()
    manifest = json.loads(zipfile.ZipFile(io.BytesIO(data)).read("manifest.json"))
    assert manifest
