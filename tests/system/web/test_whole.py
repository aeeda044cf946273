"""The browser client beside the real demo: portal, gate, agent, injector (R-ACC-2, R-ACC-4,
R-ACC-6, R-ACC-10). A passkey is registered, the trust key signs it in, a specialist works."""

import base64
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agent.wire import challenge
from fleet.client import origin
from tests.demo import Demo, until
from tests.sessions import approve
from tests.system.test_browser import show_code
from tests.system.web.test_pages import authenticator, shown, sign

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]
PERSON = "maya"


@pytest.fixture
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    demo = Demo(tmp_path_factory.mktemp("browser") / "data")
    try:
        yield demo
    finally:
        demo.kill()


def register(page: "Page", demo: Demo, device_root: Path) -> dict[str, str]:
    """At the access origin's own page, before there is a portal: it needs none."""
    site = origin.Site(f"http://localhost:{demo.http}", device_root)
    server = origin.server(("127.0.0.1", demo.access), site)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        page.goto(f"http://localhost:{demo.access}/register/")
        page.get_by_label("User name").fill(PERSON)
        page.get_by_role("button", name="Make the passkey").click()
        entry: dict[str, str] = json.loads(page.locator("pre").inner_text())
        return entry
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


def ask(page: "Page", demo: Demo, device: dict[str, Any]) -> str:
    """Ask in the portal, and follow its button to the access origin. Returns the session."""
    page.goto(f"{demo.url}/devices/{device['device']}/request/")
    page.locator("input[name=level][value=os]").check()
    page.locator("input[name=services][value=console]").check()
    page.get_by_label("Reason").select_option("repair")
    page.get_by_label(re.compile("Ticket")).fill("T-78")
    page.get_by_role("button", name="Ask for access").click()
    page.wait_for_url(re.compile(r"/access/[0-9a-f]{32}/"))
    [session] = re.findall(r"[0-9a-f]{32}", page.url)
    # In this tab and not in another: a virtual authenticator belongs to its tab.
    page.locator("form[target=_blank]").evaluate("form => form.removeAttribute('target')")
    page.get_by_role("button", name="Open in the browser").click()
    return session


def test_a_specialist_works_in_a_browser(page: "Page", own: Demo, device_root: Path) -> None:
    authenticator(page)
    entry = register(page, own, device_root)
    folder = own.data / "trust"
    folder.mkdir(mode=0o700, parents=True)
    # The keeper of the trust key puts it into the members file; the demo signs what is there.
    (folder / "members.json").write_text(json.dumps([{"id": PERSON, "passkeys": [entry]}]))
    own.start()
    assert own.info["access_origin"] == f"http://localhost:{own.access}"
    device = own.device("ct-dual")
    own.simulate(device, "idle")
    page.goto(own.url)
    page.get_by_label("User name").fill(PERSON)
    page.get_by_label("Password").fill(own.user("specialist")["password"])
    page.get_by_role("button", name="Sign in", exact=True).click()
    show_code(page, own.user("specialist")["totp"])

    # `os` in a browser is for sites that opted in; before that, the injector says no.
    ask(page, own, device)
    sign(page)
    page.get_by_text("The site takes no answer from a browser for this.").wait_for()
    opted_in = own.agent(device, "policy", "browser_os=true", "--pin", device["pin"])
    assert opted_in.returncode == 0, opted_in.stderr

    session = ask(page, own, device)
    page.get_by_role("heading", name="The injector asks who you are").wait_for()
    assert page.url == f"http://localhost:{own.access}/"
    code = page.locator(".code").inner_text()
    assert device["device"] in page.locator(".facts").nth(1).inner_text()
    sign(page)
    page.get_by_text("A person at the injector is asked.").wait_for()
    approve(own, device)
    page.get_by_text("Connected", exact=True).wait_for()
    until(lambda: f"Console of the simulated injector {device['product_line']}" in shown(page))
    page.keyboard.type("status\n")
    until(lambda: "connected" in shown(page) and "software" in shown(page))

    with own.api("hospital") as hospital:
        seen = hospital.get(f"access/sessions/{session}/").json()
        assert challenge.code(base64.b64decode(seen["challenge"])) == code
        assert hospital.post(f"access/sessions/{session}/end/").status_code == 200
        page.get_by_text("The hospital ended it.").wait_for()

        def agreed() -> bool:
            told = hospital.get(f"access/sessions/{session}/audit/").json()
            sides = {(entry["side"], entry["action"]) for entry in told["entries"]}
            return bool(told["agree"]) and {
                ("server", "session:link"), ("server", "session:browser"),
                ("server", "session:answer"), ("device", "session:answer"),
                ("device", "presence:approve"), ("device", "session:end"),
            } <= sides  # fmt: skip

        until(agreed)
