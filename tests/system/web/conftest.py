"""The two engines (node, and a page of the access origin), the origin itself, and a portal."""

import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from fleet.client import origin
from tests.screenshots.__main__ import CHROMIUM, CHROMIUM_FLAGS
from tests.system.web.engines import DRIVER, Engine, in_node, in_page
from tests.system.web.portal import BrowserPortal
from tests.tls import Authority

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page


@pytest.fixture(scope="session")
def node() -> Iterator[Engine]:
    with subprocess.Popen(
        ["node", "--no-warnings", str(DRIVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True,
    ) as process:  # fmt: skip
        try:
            yield in_node(process)
        finally:
            process.kill()


@pytest.fixture(scope="session")
def chromium() -> Iterator["Browser"]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="session")
def device_root(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("root") / "device-root.pem"
    path.write_bytes(authority.root.certificate.public_bytes(Encoding.PEM))
    return path


@pytest.fixture(scope="session")
def portal(authority: Authority, device_root: Path) -> Iterator[BrowserPortal]:
    """The portal; its `origin` is served beside it."""
    portal = BrowserPortal(authority, specialist_key=b"", origin="")
    with portal.running():
        server = origin.server(("127.0.0.1", 0), origin.Site(portal.url, device_root))
        portal.origin = f"http://localhost:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield portal
        finally:
            server.shutdown()
            thread.join(10)
            server.server_close()


@pytest.fixture(scope="session")
def chromium_engine(chromium: "Browser", portal: BrowserPortal) -> Iterator[Engine]:
    page = chromium.new_page()
    page.goto(f"{portal.origin}/register/")
    yield in_page(page)
    page.close()


@pytest.fixture(params=["node", "chromium_engine"])
def engine(request: pytest.FixtureRequest) -> Engine:
    found: Engine = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def page(chromium: "Browser") -> Iterator["Page"]:
    """A page without memory. What its policy refuses, and what breaks, fails the test."""
    context = chromium.new_context(locale="en-CA", viewport={"width": 1280, "height": 860})
    context.set_default_timeout(15_000)
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda line: faults.append(line.text) if _is_fault(line) else None)
    try:
        yield page
        assert faults == []
    finally:
        context.close()


def _is_fault(line: "ConsoleMessage") -> bool:
    """What a test brings about on purpose is none: an answer of the portal, a refused frame."""
    meant = ("Failed to load resource", "Framing '")
    return line.type == "error" and not any(text in line.text for text in meant)
