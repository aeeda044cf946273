"""Getting in with real parts (R-ACC-1): an OpenID provider that this test starts, a browser with a
virtual authenticator, and the command line that the browser signs in."""

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.demo import ROOT, Demo, free_port, until
from tests.system.test_browser import page as page
from tests.system.test_browser import show_code, sign_in

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

FOLDER = Path(__file__).parent / "oidc"
PEOPLE = {
    "s-mia": {"email": "mia@harbour.example", "email_verified": True},
    "s-noah": {"email": "noah@harbour.example", "email_verified": False},
    "s-eve": {"email": "eve@harbour.example", "email_verified": True},
    "s-vera": {"email": "vera@service.example", "email_verified": True},
}


def manage(demo: Demo, *arguments: str, given: str = "") -> str:
    """A command of manage.py on the demo's data; its output."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "manage.py"), *arguments],
        env={
            **os.environ, "PATENCY_DATA": str(demo.data), "PYTHONWARNINGS": "",
            "PATENCY_HTTP": f"127.0.0.1:{demo.http}", "PATENCY_MQTT": f"127.0.0.1:{demo.mqtt}",
        },
        cwd=ROOT, input=given, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@dataclass
class OpenID:
    """The provider, which can be stopped and started, and the portal's rows for it."""

    demo: Demo
    port: int = field(default_factory=free_port)
    rows: dict[str, str] = field(default_factory=dict)
    process: "subprocess.Popen[str] | None" = None

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def add(self, key: str, organisation: str, domain: str, issuer: str | None = None) -> None:
        self.rows[key] = manage(
            self.demo, "provider", "add", organisation, "--name", f"Test {key}", "--issuer",
            issuer or self.issuer, "--client-id", "portal", "--domain", domain, given="s3cret\n",
        )  # fmt: skip

    def path(self, key: str) -> str:
        return f"/sign-in/with/{self.rows[key]}/"

    def start(self) -> None:
        config = {
            "issuer": self.issuer,
            "port": self.port,
            "redirects": [f"{self.demo.url}{self.path(key)}back/" for key in self.rows],
            "people": PEOPLE,
        }
        self.process = subprocess.Popen(
            ["node", "server.mjs", json.dumps(config)], cwd=FOLDER, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        assert self.process.stdout.readline().strip() == "ready", "is `npm ci` done? .ci/packages"

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


@pytest.fixture(scope="module")
def openid(demo: Demo) -> Iterator[OpenID]:
    made = OpenID(demo)
    made.add("harbour", "Harbour General Hospital", "harbour.example")
    made.add("other", "Hôpital Sainte-Claire", "claire.example")
    made.add("service", "Patency Service", "service.example")
    # The same server under a name that it does not call itself by.
    made.add("wrong", "Harbour General Hospital", "h.example", f"http://localhost:{made.port}")
    people = (
        ("Harbour General Hospital", "mia", "hospital"),
        ("Harbour General Hospital", "noah", "hospital"),
        ("Patency Service", "vera", "specialist"),
    )
    for organisation, name, role in people:
        email = str(PEOPLE[f"s-{name}"]["email"])
        manage(demo, "person", "invite", organisation, name, "--role", role, "--email", email)
    made.start()
    try:
        yield made
    finally:
        made.stop()


def at_the_provider(page: "Page", openid: OpenID, who: str) -> None:
    """Sign in on the provider's own pages, and agree."""
    page.wait_for_url(f"{openid.issuer}/interaction/**")
    page.locator("input[name=login]").fill(who)
    page.locator("input[name=password]").fill("anything")
    page.locator("button[type=submit]").click()
    page.locator("button[type=submit]", has_text="Continue").click()


def by(page: "Page", openid: OpenID, key: str, who: str) -> None:
    page.goto(openid.path(key))
    page.get_by_role("button", name=re.compile("Continue to Test")).click()
    at_the_provider(page, openid, who)


def signed_in(page: "Page") -> bool:
    return page.request.get("/api/v1/me/").status == 200


def test_a_hospitals_person_comes_in_by_their_provider(page: "Page", openid: OpenID) -> None:
    """From the address alone, by keyboard, to the page that was asked for; a second time too."""
    page.goto("/jobs/")
    page.get_by_role("link", name="Sign in with your organisation").click()
    page.get_by_label("E-mail address").fill("mia@harbour.example")
    page.keyboard.press("Enter")
    at_the_provider(page, openid, "s-mia")
    page.wait_for_url("**/jobs/")
    assert page.request.get("/api/v1/me/").json()["username"] == "mia"
    page.goto(f"{openid.path('harbour')}back/?code=used&state=used")
    page.get_by_text("begun in another browser").wait_for()
    page.goto("/account/sessions/")
    page.get_by_text("Chrome, Linux").first.wait_for()


@pytest.mark.parametrize(
    ("key", "who", "told"),
    [
        ("harbour", "s-noah", "has not verified your e-mail address"),
        ("harbour", "s-eve", "no account here is yours"),
        ("other", "s-mia", "no account here is yours"),
    ],
)
def test_who_stays_out(page: "Page", openid: OpenID, key: str, who: str, told: str) -> None:
    by(page, openid, key, who)
    page.get_by_text(told).wait_for()
    assert not signed_in(page)


def test_an_answer_is_taken_once(page: "Page", openid: OpenID) -> None:
    """The real answer, caught on its way, signs in once and never again."""
    seen: list[str] = []
    page.on(
        "request", lambda request: seen.append(request.url) if "/back/?" in request.url else None
    )
    by(page, openid, "harbour", "s-mia")
    until(lambda: signed_in(page))
    [answer] = seen
    page.context.clear_cookies()
    page.goto(answer)
    page.get_by_text("begun in another browser").wait_for()
    assert not signed_in(page)


def test_a_provider_under_another_name_is_not_believed(page: "Page", openid: OpenID) -> None:
    page.goto(openid.path("wrong"))
    page.get_by_role("button", name=re.compile("Continue to Test")).click()
    page.get_by_text("is not valid, so nobody was signed in").wait_for()


def test_a_provider_that_is_down_is_named(page: "Page", openid: OpenID) -> None:
    openid.stop()
    try:
        page.goto(openid.path("harbour"))
        page.get_by_role("button", name=re.compile("Continue to Test")).click()
        page.get_by_text("Test harbour cannot be reached now").wait_for()
        page.get_by_role("link", name="Begin again").wait_for()
    finally:
        openid.start()


@contextlib.contextmanager
def authenticator(page: "Page") -> Iterator[Any]:
    """The browser's own virtual authenticator: it verifies its person by itself."""
    session = page.context.new_cdp_session(page)
    session.send("WebAuthn.enable")
    options = {
        "protocol": "ctap2", "transport": "internal", "hasResidentKey": True,
        "hasUserVerification": True, "isUserVerified": True, "automaticPresenceSimulation": True,
    }  # fmt: skip
    made = session.send("WebAuthn.addVirtualAuthenticator", {"options": options})
    yield made["authenticatorId"]
    session.send("WebAuthn.disable")


def test_a_specialist_needs_a_second_factor_and_a_passkey_is_one(
    page: "Page", openid: OpenID
) -> None:
    """By the provider, then the set-up and nothing else; then the passkey alone, and as proof."""
    with authenticator(page):
        by(page, openid, "service", "s-vera")
        page.get_by_role("heading", name="Set up a second factor").wait_for()
        page.goto("/devices/")
        page.get_by_role("heading", name="Set up a second factor").wait_for()
        assert page.request.get("/api/v1/devices/").status == 403
        page.get_by_role("link", name="Add a passkey").click()
        # The provider remembered nobody: that sign-in is recent, and no confirmation is asked.
        page.get_by_label("Name").fill("virtual")
        page.get_by_role("button", name="Add a passkey").click()
        page.get_by_role("heading", name="Recovery codes").wait_for()
        assert page.locator(".codes code").count() == 10
        page.get_by_role("link", name="I have kept them").click()
        page.get_by_text("virtual").first.wait_for()

        page.locator("details.menu > summary").click()
        page.get_by_role("button", name="Sign out").click()
        page.get_by_role("button", name="Sign in with a passkey").click()
        page.get_by_role("heading", name="What is wrong now").wait_for()
        assert page.request.get("/api/v1/me/").json()["username"] == "vera"

        page.goto("/account/confirm/?next=/account/security/codes/new/")
        page.get_by_role("button", name="Use a passkey").click()
        page.get_by_role("heading", name="New recovery codes").wait_for()


def test_no_passkey_is_said_and_not_silent(page: "Page", openid: OpenID) -> None:
    with authenticator(page):
        page.goto("/sign-in/")
        page.get_by_role("button", name="Sign in with a passkey").click()
        page.get_by_text("No passkey was used").wait_for()


def test_the_command_line_signs_in_by_the_browser(demo: Demo, page: "Page", tmp_path: Path) -> None:
    """`patency login` as a person does it, and the token works."""
    command = subprocess.Popen(
        [demo.info["cli"], "login", demo.url],
        env={**os.environ, "PATENCY_PROFILE": str(tmp_path / "profile"), "LC_ALL": "C.UTF-8"},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert command.stderr is not None
        found = re.search(r"Open (\S+) in .*code: ([A-Z]{4}-[A-Z]{4})", command.stderr.readline())
        assert found is not None
        user = demo.user("specialist", which=1)
        page.goto(found[1])
        sign_in_here(page, user)
        page.wait_for_url("**/connect/")
        page.get_by_label(re.compile("Code|^Code")).first.fill(found[2])
        page.get_by_role("button", name=re.compile("Continue|Continuer")).click()
        page.get_by_text("patency, ").first.wait_for()
        page.locator("button[name=decision][value=approve]").click()
        page.get_by_role("status").wait_for()
        _out, err = command.communicate(timeout=30)
        assert command.returncode == 0, err
    finally:
        if command.poll() is None:
            command.kill()
            command.communicate()
    stored = json.loads((tmp_path / "profile" / "profile.json").read_text())
    assert stored["specialist"] == user["username"]
    done = demo.patency("devices", "-o", "json", profile=str(tmp_path / "profile"))
    assert len(json.loads(done.stdout)) == 12


def sign_in_here(page: "Page", user: dict[str, Any]) -> None:
    page.get_by_label("User name").fill(user["username"])
    page.get_by_label("Password").fill(user["password"])
    page.get_by_role("button", name="Sign in", exact=True).click()
    show_code(page, user["totp"])


def test_a_specialist_signs_in_with_the_demos_own_words(demo: Demo, page: "Page") -> None:
    """As the README says: the password, then what `manage.py code` shows."""
    user = demo.user("specialist", which=1)
    shown = manage(demo, "code", user["username"])
    assert re.fullmatch(r"\d{6}", shown)
    sign_in(page, user)
    assert signed_in(page)
