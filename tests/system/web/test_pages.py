"""The browser client's pages in headless Chromium with a virtual authenticator: register, sign,
work (R-ACC-4, R-ACC-5, R-ACC-6), and what a portal in an attacker's hands can do with them."""

import base64
import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from agent.wire import challenge, roster
from fleet.client import trust
from tests.demo import until
from tests.system.web.portal import BrowserPortal

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

LIES = {
    "device": "another injector",
    "session": "another session",
    "digest": "another request",
    "specialist": "other terms",
    "level": "other terms",
    "services": "other terms",
    "life": "other terms",
    "root": "does not lead to this client's device root",
    "signature": "not signed by the injector",
    "bytes": "not signed by the injector",
    "key": "not signed by the injector",
    "garbage": "cannot be read",
}


def authenticator(page: "Page", **options: Any) -> None:
    """A virtual one, in this page's browser; it says yes by itself and verifies its user."""
    cdp = page.context.new_cdp_session(page)
    cdp.send("WebAuthn.enable")
    made = {
        "protocol": "ctap2", "transport": "internal", "hasResidentKey": True,
        "hasUserVerification": True, "isUserVerified": True, "automaticPresenceSimulation": True,
    }  # fmt: skip
    cdp.send("WebAuthn.addVirtualAuthenticator", {"options": {**made, **options}})


def register(page: "Page", portal: BrowserPortal, person: str = "noor") -> dict[str, str]:
    """Make a passkey on the page; the injector's end then knows it, as a roster would say."""
    page.goto(f"{portal.origin}/register/")
    page.get_by_label("User name").fill(person)
    page.get_by_role("button", name="Make the passkey").click()
    page.get_by_role("heading", name="The passkey is made").wait_for()
    entry: dict[str, str] = json.loads(page.locator("pre").inner_text())
    made = msgspec.convert(entry, roster.Passkey)
    portal.passkeys[made.id] = made
    return entry


def sign(page: "Page") -> None:
    page.get_by_role("button", name="Sign with your passkey").click()


@pytest.fixture
def honest(portal: BrowserPortal) -> Iterator[BrowserPortal]:
    yield portal
    portal.lie, portal.approves, portal.away, portal.turn_away = None, True, False, False


class Service:
    """A service at the injector; says what `banner` says to each connection."""

    def __init__(self, banner: bytes) -> None:
        self.banner = banner
        self.heard = b""
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.connection: socket.socket | None = None
        self.connections: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                self.connection, _address = self.listener.accept()
            except OSError:
                return
            self.connections.append(self.connection)
            threading.Thread(target=self._hear, args=(self.connection,), daemon=True).start()

    def _hear(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the test is over
            connection.sendall(self.banner)
            while data := connection.recv(65536):
                self.heard += data

    def say(self, data: bytes) -> None:
        assert self.connection is not None
        self.connection.sendall(data)

    def close(self) -> None:
        for each in (self.listener, *self.connections):
            each.close()


@pytest.fixture
def service(portal: BrowserPortal) -> Iterator[Callable[..., Service]]:
    made: list[Service] = []

    def start(banner: bytes, name: str = "console") -> Service:
        made.append(Service(banner))
        portal.services[name] = made[-1].listener.getsockname()[1]
        return made[-1]

    yield start
    for each in made:
        each.close()
    portal.services.clear()


def open_session(page: "Page", portal: BrowserPortal, **changes: Any) -> Any:
    """As far as the terminal."""
    authenticator(page)
    register(page, portal)
    link, held = portal.link(**changes)
    page.goto(link)
    sign(page)
    page.get_by_text("Connected", exact=True).wait_for()
    return held


def shown(page: "Page") -> str:
    return page.locator(".xterm-rows").inner_text().replace("\u00a0", " ")


# --- registering --------------------------------------------------------------------------------


def test_a_passkey_is_made_and_nothing_is_sent(page: "Page", honest: BrowserPortal) -> None:
    before = len(honest.calls)
    authenticator(page)
    entry = register(page, honest)
    assert len(honest.calls) == before
    id, key = base64.b64decode(entry["id"]), base64.b64decode(entry["key"])
    said = trust.passkey_fingerprint(roster.Passkey(id=id, key=key))  # as its keeper sees it
    assert page.locator(".digits").inner_text() == said.removeprefix("passkey:")
    assert page.get_by_text(honest.origin).is_visible()


def test_a_device_that_verifies_nobody_makes_none(page: "Page", honest: BrowserPortal) -> None:
    authenticator(page, hasUserVerification=False, isUserVerified=False)
    page.goto(f"{honest.origin}/register/")
    page.get_by_label("User name").fill("noor")
    page.get_by_role("button", name="Make the passkey").click()
    page.get_by_text("Not made:").wait_for()
    assert not page.get_by_text("The passkey is made").is_visible()


# --- the whole way ------------------------------------------------------------------------------


def test_sign_wait_type_and_end(
    page: "Page", honest: BrowserPortal, service: Callable[[bytes], Service]
) -> None:
    console = service(b"Console of the simulated injector.\n> ")
    honest.approves = False
    authenticator(page)
    register(page, honest)
    link, held = honest.link()
    page.goto(link)
    page.get_by_role("heading", name="The injector asks who you are").wait_for()

    # What the page shows is the injector's; the address holds nothing any more.
    assert page.url == f"{honest.origin}/"
    facts = page.locator(".facts").first.inner_text()
    for text in ("Noor Haddad (noor)", "Operating system", "console", "30 min", "T-77"):
        assert text in facts
    assert "heater <b>cold</b> after filling" in facts  # as text, and nothing else
    assert page.locator("main b").count() == 0
    assert held.challenge is not None
    assert page.locator(".code").inner_text() == challenge.code(held.challenge)
    assert not honest.answers or honest.answers[-1].get("session") != held.id

    sign(page)
    page.get_by_text("A person at the injector is asked.").wait_for()
    assert held.state == "presence"
    assert page.locator(".code").inner_text() == challenge.code(held.challenge)
    held.state = "active"
    page.get_by_text("Connected", exact=True).wait_for()
    until(lambda: "Console of the simulated injector." in shown(page))

    # A service that reads lines gets lines, corrected here.
    page.keyboard.type("status\n")
    until(lambda: console.heard == b"status\n")
    page.keyboard.type("helq")
    page.keyboard.press("Backspace")
    page.keyboard.type("p\n")
    until(lambda: console.heard.endswith(b"help\n"))
    console.say(b"\x1b[31mno such thing\x1b[0m\n> ")
    until(lambda: "no such thing" in shown(page))
    # Nobody on the way could read it.
    assert held.carried
    assert not any(b"help" in frame or b"such thing" in frame for frame in held.carried)

    page.get_by_role("button", name="End session").click()
    page.get_by_role("button", name="End it now").click()
    page.get_by_text("You ended it.").wait_for()
    assert held.state == "ended"
    assert page.evaluate("sessionStorage.length") == 0


def piece(kind: int, payload: bytes) -> bytes:
    return struct.pack(">BH", kind, len(payload)) + payload


def typed(heard: bytes) -> tuple[bytes, list[tuple[int, int]]]:
    """What was typed into a terminal, and the sizes that its window had."""
    text, sizes, at = b"", [], 0
    while len(heard) - at >= 3:
        kind, length = struct.unpack_from(">BH", heard, at)
        payload = heard[at + 3 : at + 3 + length]
        if kind == 2:
            sizes.append(struct.unpack(">HH", payload))
        else:
            text += payload
        at += 3 + length
    return text, sizes


def test_a_terminal_gets_keys_its_size_and_bracketed_paste(
    page: "Page", honest: BrowserPortal, service: Callable[..., Service]
) -> None:
    shell = service(piece(1, b"\x1b[?2004hinjector $ "), name="terminal")
    open_session(page, honest, services=["terminal"])
    until(lambda: "injector $" in shown(page))
    page.keyboard.type("ls\t")
    page.keyboard.press("Control+c")
    until(lambda: typed(shell.heard)[0] == b"ls\t\x03")

    page.set_viewport_size({"width": 700, "height": 600})
    until(lambda: len(typed(shell.heard)[1]) >= 2)
    sizes = typed(shell.heard)[1]
    assert sizes[-1][1] < sizes[0][1]
    assert len(sizes) < 6  # the window does not follow its own rows

    page.evaluate(
        """() => {
            const data = new DataTransfer();
            data.setData('text/plain', 'one\\ntwo\\x1b[201~rm -r /\\n');
            document.activeElement.dispatchEvent(
                new ClipboardEvent('paste', { clipboardData: data, bubbles: true }));
        }"""
    )
    # What would end the brackets early is taken out, so that nothing pasted runs by itself.
    until(lambda: b"\x1b[200~one\rtwo[201~rm -r /\r\x1b[201~" in typed(shell.heard)[0])

    # By keyboard alone there is a way out of the terminal.
    page.keyboard.press("Control+F6")
    assert page.evaluate("document.activeElement.textContent") == "End session"

    shell.say(piece(1, b"logout\r\n") + piece(3, b"\x82"))
    assert shell.connection is not None
    shell.connection.shutdown(socket.SHUT_WR)
    page.get_by_text("The shell has ended, with status 130.").wait_for()
    assert "logout" in shown(page)


def test_a_terminal_that_sends_what_is_none_is_cut(
    page: "Page", honest: BrowserPortal, service: Callable[..., Service]
) -> None:
    service(piece(2, b"\0\x18\0\x50"), name="terminal")
    open_session(page, honest, services=["terminal"])
    page.get_by_text("What the injector's terminal sent cannot be read.").wait_for()


def test_a_link_that_breaks_loses_nothing(
    page: "Page", honest: BrowserPortal, service: Callable[[bytes], Service]
) -> None:
    console = service(b"> ")
    held = open_session(page, honest)
    until(lambda: ">" in shown(page))
    for number in range(5):
        honest.turn_away = number % 2 == 0
        honest.call(honest.drop_websockets, held)
        page.get_by_text("Connection lost").wait_for()
        page.keyboard.type(f"line {number}\n")
        honest.turn_away = False
        page.get_by_text("Connected", exact=True).wait_for()
        console.say(b"%d\n" % number * 500)
    until(lambda: console.heard == b"".join(b"line %d\n" % n for n in range(5)))
    until(lambda: shown(page).rstrip().endswith("4"))
    assert "RESUME" in honest.stream_types(held)


def test_a_page_loaded_again_goes_on_without_another_signature(
    page: "Page", honest: BrowserPortal, service: Callable[[bytes], Service]
) -> None:
    service(b"first words\n")
    held = open_session(page, honest)
    until(lambda: "first words" in shown(page))
    answers = len(honest.answers)
    page.reload()
    page.get_by_text("Connected", exact=True).wait_for()
    until(lambda: "first words" in shown(page))
    assert len(honest.answers) == answers
    streams = {int.from_bytes(frame[20:24], "big") >> 16 for frame in held.carried}
    assert len(streams) == 2  # no stream number, so no nonce, was used twice


def test_the_key_cannot_be_read_out(page: "Page", honest: BrowserPortal) -> None:
    honest.approves = False
    authenticator(page)
    register(page, honest)
    page.goto(honest.link()[0])
    sign(page)
    page.get_by_text("A person at the injector is asked.").wait_for()
    read = page.evaluate(
        """async () => {
            const open = indexedDB.open('patency-access');
            await new Promise((done) => (open.onsuccess = done));
            const all = open.result.transaction('sessions').objectStore('sessions').getAll();
            await new Promise((done) => (all.onsuccess = done));
            const { privateKey } = all.result[0].pair;
            return crypto.subtle.exportKey('pkcs8', privateKey).then(() => 'read', (e) => e.name);
        }"""
    )
    assert read == "InvalidAccessError"


# --- attacks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("lie", LIES)
def test_a_portal_that_swaps_the_challenge_gets_no_signature(
    page: "Page", honest: BrowserPortal, lie: str
) -> None:
    """The portal swaps the challenge, or shows one of its own making."""
    authenticator(page)
    register(page, honest)
    answers = len(honest.answers)
    honest.lie = lie
    page.goto(honest.link(level="service")[0])
    page.get_by_text(LIES[lie]).wait_for()
    assert page.get_by_text("Nothing was signed.").is_visible()
    assert not page.get_by_role("button", name="Sign").is_visible()
    assert len(honest.answers) == answers


def test_a_request_that_the_portal_changed_is_shown_as_it_is(
    page: "Page", honest: BrowserPortal
) -> None:
    """It may ask for more than the specialist did; the page shows what the injector was asked."""
    honest.lie = "request"
    page.goto(honest.link(level="service", life_s=600)[0])
    facts = page.locator(".facts").first
    facts.wait_for()
    assert "Operating system" in facts.inner_text()
    assert "8 h" in facts.inner_text()


def test_a_page_that_the_portal_serves_gets_nothing_that_an_injector_takes(
    page: "Page", honest: BrowserPortal
) -> None:
    """A fake client at the portal's own address. Under another name no passkey of the access origin
    answers it; under the same name, as in a demo, the browser writes down who asked."""
    authenticator(page)
    register(page, honest)
    ask = """() => navigator.credentials.get({ publicKey: {
            challenge: new Uint8Array(32), rpId: 'localhost', userVerification: 'required' } })
            .then((it) => {
                const text = (buffer) => btoa(String.fromCharCode(...new Uint8Array(buffer)));
                return { id: text(it.rawId), signature: text(it.response.signature),
                    authenticator_data: text(it.response.authenticatorData),
                    client_data: text(it.response.clientDataJSON) };
            }, (error) => error.name)"""
    page.goto(f"{honest.url}/api/v1/me/")  # whatever the portal serves
    assert page.evaluate(ask) == "SecurityError"
    page.goto(f"{honest.url.replace('127.0.0.1', 'localhost')}/api/v1/me/")
    proof = page.evaluate(ask)
    assert not honest.is_signed(proof, bytes(32))
    page.goto(f"{honest.origin}/register/")
    assert honest.is_signed(page.evaluate(ask), bytes(32))


def test_another_persons_passkey_is_told_and_not_sent(page: "Page", honest: BrowserPortal) -> None:
    authenticator(page)
    register(page, honest, "mallory")
    answers = len(honest.answers)
    page.goto(honest.link()[0])
    sign(page)
    page.get_by_text("This passkey is of mallory, and noor asked for the session.").wait_for()
    assert len(honest.answers) == answers
    assert page.get_by_role("button", name="Sign with your passkey").is_enabled()


def test_a_link_works_once(page: "Page", honest: BrowserPortal) -> None:
    """Who finds it in a history or a log gets nothing with it."""
    page.goto(honest.link()[0])
    link, _held = honest.link()
    page.goto(link)
    page.get_by_role("heading", name="The injector asks who you are").wait_for()
    other = page.context.browser.new_context().new_page()  # type: ignore[union-attr]
    other.goto(link)
    other.get_by_text("This link was used before.").wait_for()
    other.context.close()


def test_the_pass_is_in_no_address(
    page: "Page", honest: BrowserPortal, service: Callable[[bytes], Service]
) -> None:
    service(b"> ")
    honest.calls.clear()
    open_session(page, honest)
    secrets = [*honest.tokens, *honest.tickets]
    assert not any(secret in path for path, _headers in honest.calls for secret in secrets)
    for _path, headers in honest.calls:
        assert b"cookie" not in headers
        assert b"referer" not in headers


def test_the_client_is_not_shown_inside_another_page(page: "Page", honest: BrowserPortal) -> None:
    page.goto(f"{honest.origin}/register/")
    refused = page.evaluate(
        """async (url) => {
            const frame = document.createElement('iframe');
            frame.src = url;
            document.body.append(frame);
            await new Promise((done) => (frame.onload = done));
            try { return frame.contentDocument === null } catch { return true }
        }""",
        f"{honest.origin}/",
    )
    assert refused
    page.evaluate("document.querySelector('iframe').remove()")


def test_what_an_injector_prints_opens_and_runs_nothing(
    page: "Page", honest: BrowserPortal, service: Callable[[bytes], Service]
) -> None:
    hostile = service(
        b"\x1b]8;;https://evil.example/\x07click me\x1b]8;;\x07 "
        b"\x1b]0;owned\x07\x1b]52;c;cm0gLXIgLw==\x07<img src=x onerror=alert(1)>\r\n"
    )
    open_session(page, honest)
    until(lambda: "<img src=x onerror=alert(1)>" in shown(page))
    page.get_by_text("click me").first.click(force=True)
    time.sleep(0.3)
    assert len(page.context.pages) == 1
    assert page.title() == "Access · Patency"
    assert page.locator("main img").count() == 0
    assert hostile.heard == b""


# --- what is wrong, in words --------------------------------------------------------------------


def test_a_page_without_a_session_says_what_to_do(page: "Page", honest: BrowserPortal) -> None:
    for fragment in ("", "#session=../../etc&ticket=x", "#session=" + "0" * 32):
        page.goto(f"{honest.origin}/{fragment}")
        page.get_by_text("This page was opened without a session.").wait_for()
        page.goto("about:blank")


def test_a_session_that_ends_elsewhere_is_told(
    page: "Page", honest: BrowserPortal, service: Callable[[bytes], Service]
) -> None:
    service(b"> ")
    held = open_session(page, honest)
    honest.call(honest.end, held, "ended_by_hospital")
    page.get_by_text("The hospital ended it.").wait_for()


def test_a_refusal_carries_its_remedy_and_french_is_french(
    page: "Page", honest: BrowserPortal
) -> None:
    link, held = honest.link()
    held.state, held.reason = "refused", "roster_expired"
    page.goto(link)
    page.get_by_text("Ask the keeper of the trust key to sign a new one.").wait_for()
    page.get_by_role("button", name="Français (Canada)").click()
    page.get_by_text("Cette page a été ouverte sans session.").wait_for()
    assert page.locator("html").get_attribute("lang") == "fr-CA"
