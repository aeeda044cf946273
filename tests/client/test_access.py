"""request, answer, end, audit: what is asked, believed and signed (R-ACC-3, R-ACC-4)."""

import json
import re
from pathlib import Path

import pytest

from agent.wire import challenge
from fleet.client import keys, sessions
from tests.client.conftest import REQUEST, Command
from tests.client.portal import DEVICE, TestPortal


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "FIRST_WAIT_S", 0.2)


LIES = {
    "bytes": "not signed by the injector",
    "key": "not signed by the injector",
    "signature": "not signed by the injector",
    "root": "does not lead to your device root",
    "garbage": "certificates cannot be read",
    "device": "another injector",
    "session": "another session",
    "digest": "received another request",
    "request": "another request than you made",
    "level": "other terms",
    "services": "other terms",
    "life": "other terms",
    "specialist": "other terms",
}


def test_a_request_gives_session_state_and_the_code_of_the_challenge(
    portal: TestPortal, command: Command
) -> None:
    """R-ACC-6: the code is computed here, from bytes that were verified."""
    given = command.json(*REQUEST)
    held = portal.sessions[given["session"]]
    assert held.challenge is not None
    assert given == {
        "session": held.id, "state": "challenged", "code": challenge.code(held.challenge),
    }  # fmt: skip
    sent = json.loads(held.request)
    assert (sent["device"], sent["level"], sent["services"]) == (
        DEVICE,
        "service",
        ["web", "console"],
    )
    assert (sent["reason"], sent["ticket"], sent["note"]) == ("repair", "T-1", "heater")
    assert sent["life_s"] == 1800
    assert portal.answers == []
    file = command.folder / "sessions" / f"{held.id}.json"
    assert file.stat().st_mode & 0o777 == 0o600


def test_an_injector_may_be_named_by_its_device_id(portal: TestPortal, command: Command) -> None:
    assert command.json("request", DEVICE, *REQUEST[2:])["state"] == "challenged"


@pytest.mark.usefixtures("impatient")
def test_a_slow_injector_gives_no_code_yet(portal: TestPortal, command: Command) -> None:
    portal.slow_s = 60
    given = command.json(*REQUEST)
    assert (given["state"], given["code"]) == ("requested", None)


def test_waiting_answers_and_returns_when_active(portal: TestPortal, command: Command) -> None:
    portal.slow_s = 0.5
    done = command(*REQUEST, "--wait", "-o", "json")
    given = json.loads(done.stdout)
    assert given["state"] == "active"
    assert re.fullmatch(r"[0-9A-Z]{4}-[0-9A-Z]{4}", given["code"])
    assert f"Compare the code: {given['code']}" in done.stderr.decode()
    assert len(portal.answers) == 1


def test_answer_finds_the_session_by_serial_and_can_be_repeated(
    portal: TestPortal, command: Command
) -> None:
    session = command.json(*REQUEST)["session"]
    assert command.json("answer", "S-1001")["state"] == "active"
    assert command.json("answer", session)["state"] == "active"
    portal.sessions[session].state = "challenged"  # as if the answer had been lost
    assert command.json("answer", "--session", session)["state"] == "active"
    first, second = portal.answers
    assert first == second  # the same key and signature, not a second one


@pytest.mark.parametrize("lie", LIES)
def test_a_lying_portal_gets_no_signature(portal: TestPortal, command: Command, lie: str) -> None:
    """R-ACC-4: nothing is signed that the injector did not make, or that was not asked for."""
    portal.lie = lie
    done = command(*REQUEST, "--wait", expect=9)
    assert LIES[lie] in done.stderr.decode()
    assert "Nothing was signed" in done.stderr.decode()
    assert b"code" not in done.stdout
    assert portal.answers == []


@pytest.mark.usefixtures("impatient")
def test_refusal_and_expiry_have_their_own_exits(portal: TestPortal, command: Command) -> None:
    portal.refuse = "in_use"
    done = command(*REQUEST, "--wait", "-o", "json", expect=6)
    assert json.loads(done.stdout)["state"] == "refused"
    assert "in use" in done.stderr.decode()
    command(*REQUEST)  # without --wait the request itself was made
    portal.refuse = None
    portal.slow_s = 60
    session = command.json(*REQUEST)["session"]
    portal.sessions[session].state = "expired"
    portal.sessions[session].reason = "no_approval"
    assert "Nobody at the injector" in command("answer", session, expect=7).stderr.decode()
    portal.sessions[session].state = "accepted"
    command("answer", session, "--timeout", "1s", expect=10)


def test_a_key_that_is_not_rostered_is_refused_by_the_injector(
    portal: TestPortal, command: Command
) -> None:
    (command.folder / "id_ed25519").unlink()
    command("key", "new")
    done = command(*REQUEST, "--wait", expect=6)
    assert "does not accept the signature" in done.stderr.decode()


def test_a_request_made_elsewhere_is_read_by_a_person_first(
    portal: TestPortal, command: Command
) -> None:
    body = {
        "device": DEVICE, "level": "service", "services": ["web"], "reason": "repair",
        "ticket": None, "note": "from the browser", "life_s": 900,
    }  # fmt: skip
    held = portal.make_session(body)
    done = command("answer", held.id, given=b"n\n", expect=1)
    assert "from the browser" in done.stderr.decode()
    assert portal.answers == []
    command("answer", held.id, given=b"y\n")
    assert portal.sessions[held.id].state == "active"
    portal.lie = "level"
    other = portal.make_session(body)
    command("answer", other.id, "--yes", expect=9)


def test_no_device_root_no_belief(portal: TestPortal, command: Command) -> None:
    (command.folder / "device-root.pem").unlink()
    done = command(*REQUEST, "--wait", expect=1)
    assert "--device-root" in done.stderr.decode()
    assert portal.answers == []


@pytest.mark.parametrize(
    ("arguments", "exit", "words"),
    [
        (("--level", "root"), 2, "root"),
        (("--reason", "curiosity"), 2, "curiosity"),
        (("--service", "127.0.0.1:22"), 2, "lower-case"),
        (("--ticket", "T 1"), 2, "ticket"),
        (("--note", "two\nlines"), 2, "one line"),
        (("--note", "x" * 201), 2, "200"),
        (("--for", "soon"), 2, "no duration"),
        (("--for", "9h"), 2, "not within"),
        (("--note", "rogue"), 1, "note: Too long."),
    ],
)
def test_bad_input_is_refused_with_the_remedy(
    portal: TestPortal, command: Command, arguments: tuple[str, str], exit: int, words: str
) -> None:
    done = command(*REQUEST, *arguments, expect=exit)
    assert words in done.stderr.decode()
    assert portal.sessions == {}


def test_an_unknown_injector_or_session(portal: TestPortal, command: Command) -> None:
    assert "S-9" in command("request", "S-9", *REQUEST[2:], expect=4).stderr.decode()
    assert "no session" in command("answer", "S-1001", expect=4).stderr.decode()
    command("answer", "0" * 32, expect=4)
    command("answer", expect=2)
    command("forward", "S-1001", "web", 0, expect=4)


def test_the_same_again_is_a_new_request_with_the_same_words(
    portal: TestPortal, command: Command
) -> None:
    """R-ACC-3: one key less to press at three in the morning."""
    first = command.json(*REQUEST)["session"]
    again = command.json("request", "--again", first)["session"]
    assert again != first
    one, two = (json.loads(portal.sessions[it].request) for it in (first, again))
    assert {**two, "session": "", "at": 0} == {**one, "session": "", "at": 0}


def test_the_same_again_of_one_made_elsewhere_is_read_first(
    portal: TestPortal, command: Command
) -> None:
    held = portal.make_session(
        {"device": DEVICE, "level": "service", "services": ["web"], "reason": "repair",
         "ticket": None, "note": "from the browser", "life_s": 900}
    )  # fmt: skip
    done = command("request", "--again", held.id, given=b"n\n", expect=1)
    assert "from the browser" in done.stderr.decode()
    assert len(portal.sessions) == 1
    command("request", "--again", held.id, "--yes")
    assert len(portal.sessions) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--again", "0" * 32, "S-1001"), "leave the rest out"),
        (("--again", "0" * 32, "--level", "os"), "leave the rest out"),
        ((), "Name an injector"),
        (("S-1001", "--reason", "repair"), "Missing option '--service'"),
        (("S-1001", "--service", "web"), "Missing option '--reason'"),
    ],
)
def test_what_a_request_needs(
    portal: TestPortal, command: Command, arguments: tuple[str, ...], words: str
) -> None:
    assert words in command("request", *arguments, expect=2).stderr.decode()
    assert portal.sessions == {}


def test_a_ticket_that_follows(portal: TestPortal, command: Command) -> None:
    body = {
        "device": DEVICE, "level": "service", "services": ["web"], "reason": "repair",
        "ticket": None, "note": "", "life_s": 900,
    }  # fmt: skip
    held = portal.make_session(body)
    given = command.json("ticket", held.id, "T-9")
    assert given == {"session": held.id, "state": held.state, "ticket": "T-9"}
    other = portal.make_session({**body, "ticket": "T-1"})
    assert "another ticket" in command("ticket", other.id, "T-9", expect=1).stderr.decode()
    assert "ticket" in command("ticket", held.id, "T 9", expect=2).stderr.decode()
    command("ticket", "0" * 32, "T-9", expect=4)


def test_end_and_audit(portal: TestPortal, command: Command, session: str) -> None:
    sides = [it["side"] for it in command.json("audit", "--session", session)]
    assert sides == ["server", "device"]
    assert b"device" in command("audit", "S-1001").stdout
    assert command.json("end", "S-1001")["state"] == "ended"
    assert not (command.folder / "sessions" / f"{session}.json").exists()
    assert "ended it" in command("end", "S-1001", expect=8).stderr.decode()


def test_another_profile_cannot_use_the_session(
    portal: TestPortal, command: Command, session: str, tmp_path: Path
) -> None:
    """The session's key never leaves the profile that answered."""
    other = Command(tmp_path / "other")
    other("login", portal.url, "--token", "-", given=b"pat_test\n")
    done = other("forward", "S-1001", "web", 0, expect=4)
    assert "answered elsewhere" in done.stderr.decode()


def test_a_key_that_others_may_read_is_not_used(portal: TestPortal, command: Command) -> None:
    (command.folder / "id_ed25519").chmod(0o644)
    assert "chmod 600" in command(*REQUEST, "--wait", expect=1).stderr.decode()
    assert portal.answers == []
    assert keys.fingerprint(bytes(32)).startswith("SHA256:")
