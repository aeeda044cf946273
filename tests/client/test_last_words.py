"""What the command says when it cannot go on: whole commands, in the reader's language, and never a
traceback (R-ACC-3, R-ASR-4)."""

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fleet.client import advice, clicks, i18n
from tests.client.conftest import REQUEST, Command
from tests.client.portal import DEVICE, TestPortal


def advised(said: bytes, command: Command) -> list[list[str]]:
    """The `patency` commands in a text, each with its words; all for the profile in use."""
    prefix = f"PATENCY_PROFILE={shlex.quote(str(command.folder))} patency "
    return [
        shlex.split(part.split(" && ")[0].splitlines()[0])
        for part in said.decode().split(prefix)[1:]
    ]


# --- advice ---------------------------------------------------------------------------------------


def test_a_service_that_the_session_lacks_is_asked_for_with_those_it_has(
    portal: TestPortal, command: Command, session: str
) -> None:
    """Pasted as it is, the advice ends the open session and asks for both, at the level needed."""
    done = command("forward", "S-1001", "ssh", 0, expect=4)
    end, request = advised(done.stderr, command)
    assert end == ["end", session]
    command(*end)
    assert json.loads(command(*request, "-o", "json").stdout)["state"] == "active"
    sent = json.loads(list(portal.sessions.values())[-1].request)
    assert (sent["services"], sent["level"]) == (["web", "console", "ssh"], "os")
    assert (sent["reason"], sent["ticket"], sent["life_s"]) == ("repair", "T-1", 1800)


def test_a_service_that_the_injector_has_not_is_said(
    portal: TestPortal, command: Command, session: str
) -> None:
    said = command("forward", "S-1001", "vnc", 0, expect=4).stderr.decode()
    assert "S-1001 has no service vnc. It has: console, ssh, web." in said


def test_without_a_session_the_whole_request_is_advised(
    portal: TestPortal, command: Command
) -> None:
    (request,) = advised(command("forward", "S-1001", "web", 0, expect=4).stderr, command)
    assert command(*request, "-o", "json").returncode == 0
    sent = json.loads(list(portal.sessions.values())[-1].request)
    assert (sent["services"], sent["level"]) == (["web"], "diagnostics")


def test_an_ended_session_is_asked_for_again(
    portal: TestPortal, command: Command, session: str
) -> None:
    portal.sessions[session].state, portal.sessions[session].reason = "ended", "idle"
    (request,) = advised(command("shell", "S-1001", expect=8).stderr, command)
    assert request[:3] == ["request", "S-1001", "--level"]
    command(*request)


def test_a_level_too_low_is_refused_with_the_level_needed(
    portal: TestPortal, command: Command
) -> None:
    """`ssh` at `service`, refused by the portal and at the device: exit 6 both times."""
    ask = ("request", "S-1001", "--level", "service", "--service", "ssh", "--reason", "repair")
    portal.deny = 400
    (request,) = advised(command(*ask, expect=6).stderr, command)
    portal.deny, portal.refuse = None, "level_too_low"
    assert advised(command(*ask, "--wait", expect=6).stderr, command) == [request]
    portal.refuse = None
    command(*request)
    assert json.loads(list(portal.sessions.values())[-1].request)["level"] == "os"


def test_my_own_open_session_is_the_one_to_end(
    portal: TestPortal, command: Command, session: str
) -> None:
    portal.deny = 409
    (end,) = advised(command(*REQUEST, expect=6).stderr, command)
    assert end == ["end", session]


def test_an_advice_names_the_program_as_it_was_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PATENCY_PROFILE", raising=False)
    monkeypatch.setattr(sys, "argv", ["/opt/my tools/patency"])
    assert advice.command("end", "S-1") == "'/opt/my tools/patency' end S-1"
    monkeypatch.setenv("PATENCY_PROFILE", "/a b")
    monkeypatch.setattr(sys, "argv", ["pytest"])
    assert advice.command("login") == "PATENCY_PROFILE='/a b' patency login"
    assert advice.private(Path("/a b/key")) == "chmod 600 '/a b/key'"


# --- before anybody is asked ----------------------------------------------------------------------


@pytest.mark.parametrize("spoilt", ["mode", "key", "root", "folder"])
def test_what_cannot_be_followed_through_is_not_asked_for(
    portal: TestPortal, command: Command, spoilt: str
) -> None:
    """No half-done request is left behind by an unusable key, device root or profile folder."""
    key, root = command.folder / "id_ed25519", command.folder / "device-root.pem"
    if spoilt == "mode":
        key.chmod(0o644)
    elif spoilt == "key":
        key.write_text("no key")
    elif spoilt == "root":
        root.write_text("no certificate")
    else:
        (command.folder / "sessions").write_text("")
    said = command(*REQUEST, "--wait", expect=1).stderr.decode()
    assert "Traceback" not in said
    assert portal.sessions == {}


# --- Ctrl-C ---------------------------------------------------------------------------------------


def test_ctrl_c_leaves_the_session_open_and_says_so(portal: TestPortal, command: Command) -> None:
    portal.slow_s = 60
    with command.started(*REQUEST, "--wait", "-o", "json") as process:
        for line in process.stderr:
            if b"requested" in line:
                break
        process.send_signal(signal.SIGINT)
        out, said = process.communicate(timeout=20)
    assert process.returncode == 130
    shown = json.loads(out)
    assert (shown["state"], shown["code"]) == ("requested", None)
    assert advised(said, command) == [["answer", shown["session"]], ["end", shown["session"]]]
    assert portal.sessions[shown["session"]].state == "requested"


def test_ctrl_c_ends_a_watch(portal: TestPortal, command: Command) -> None:
    with command.started("watch", "-o", "json") as process:
        assert process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _out, said = process.communicate(timeout=20)
    assert (process.returncode, said) == (0, b"")


# --- what is no text ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        (b"devices", b"\xff"),
        (b"request", b"\xff", b"--service", b"web", b"--reason", b"repair"),
        (b"request", b"S-1001", b"--service", b"web", b"--reason", b"repair", b"--note", b"\xff"),
        (b"login", b"--token", b"\xff"),
        (b"\xff",),
    ],
    ids=lambda it: it[0].decode("ascii", "replace"),
)
def test_what_is_not_in_utf_8_is_wrong_usage(
    command: Command, arguments: tuple[bytes, ...]
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fleet.client.main", *arguments],
        env={**os.environ, "PATENCY_PROFILE": str(command.folder), "LC_ALL": "C.UTF-8"},
        capture_output=True, timeout=30,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert b"UTF-8" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("token", ["jeton-é", "two words", "line\nbreak", ""])
def test_a_token_that_can_be_none_is_refused_here(
    portal: TestPortal, command: Command, token: str
) -> None:
    file = command.folder / "profile.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "token": token}))
    said = command("devices", expect=3).stderr.decode()
    assert "no token" in said
    assert advised(said.encode(), command) == [["login"]]


def test_a_token_from_standard_input_that_is_no_text(portal: TestPortal, command: Command) -> None:
    command("login", portal.url, "--token", "-", given=b"\xff\n", expect=2)


@pytest.mark.parametrize("url", ["http://[", "http://localhost:99999", "http://localhost:x"])
def test_an_address_that_is_none(command: Command, url: str) -> None:
    assert "address" in command("login", url, "--token", "x", expect=2).stderr.decode()


def test_an_id_leads_to_a_session_and_nowhere_else(portal: TestPortal, command: Command) -> None:
    for command_name in ("audit", "end", "answer"):
        command(command_name, "--session", "../../me", expect=None)
    said = command("audit", "--session", "../../me", expect=2).stderr.decode()
    assert "32 hexadecimal digits" in said


def test_a_folder_that_is_none(tmp_path: Path, portal: TestPortal) -> None:
    file = tmp_path / "file"
    file.write_text("")
    said = Command(file)("login", portal.url, "--token", "pat_test", expect=1).stderr.decode()
    assert str(file) in said


def test_the_end_of_the_input_is_no_answer(command: Command) -> None:
    assert "input ended" in command("login", expect=1).stderr.decode()


# --- the reader's language ------------------------------------------------------------------------


def test_errors_are_in_the_readers_language(portal: TestPortal, command: Command) -> None:
    """R-ASR-4: the client's own words, click's, and no-break spaces as they are."""
    command.language = "fr_CA.UTF-8"
    said = command("forward", "S-1001", "web", 0, expect=4).stderr.decode()
    assert "Vous n’avez pas de session avec S-1001. Demandez-en une avec\u00a0: " in said
    said = command("request", "S-1001", "--reason", "repair", expect=2).stderr.decode()
    assert "Il manque l’option '--service'" in said
    said = command("request", "S-1001", "--service", "A", "--reason", "x", expect=2).stderr.decode()
    assert "Error" not in said
    command.language = "en_CA.UTF-8"
    assert (
        "Missing option"
        in command("request", "S-1", "--reason", "repair", expect=2).stderr.decode()
    )


def test_the_portals_no_break_spaces_stay(
    portal: TestPortal, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = (400, {"error": "invalid", "detail": "Attention\u00a0: «\u202fnon\u202f»"})
    monkeypatch.setattr(portal, "_request", lambda body: answer)
    assert "Attention\u00a0: «\u202fnon\u202f»" in command(*REQUEST, expect=6).stderr.decode()


@pytest.mark.parametrize(
    ("environment", "spoken"),
    [("fr_FR.UTF-8", "fr_CA"), ("fr_CA", "fr_CA"), ("C", "en"), ("de_DE@euro", "en")],
)
def test_any_french_is_answered_in_french(
    monkeypatch: pytest.MonkeyPatch, environment: str, spoken: str
) -> None:
    monkeypatch.setenv("LC_ALL", environment)
    assert i18n.language() == spoken


def test_clicks_words_are_those_of_the_click_installed() -> None:
    """Its messages are translated by their text: one that changed would come out in English."""
    import click

    source = "".join(
        path.read_text(encoding="utf-8") for path in Path(click.__file__).parent.glob("*.py")
    )
    texts = [*clicks.MESSAGES, *(text for pair in clicks.PLURALS for text in pair)]
    missing = [
        text for text in texts if text.replace("\n", "\\n").replace("\t", "\\t") not in source
    ]
    assert missing == []


def test_a_character_set_that_lacks_a_letter_stops_nothing(
    portal: TestPortal, command: Command
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fleet.client.main", "forward", DEVICE, "vnc", "0"],
        env={
            **os.environ, "PATENCY_PROFILE": str(command.folder), "LC_ALL": "fr_CA.UTF-8",
            "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0",
        },
        capture_output=True, timeout=30,
    )  # fmt: skip
    assert done.returncode == 4, done.stderr
    assert b"Traceback" not in done.stderr
