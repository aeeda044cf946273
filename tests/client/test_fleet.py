"""login, devices, watch, and what an unreachable or strange portal gives (R-CON-7)."""

import csv
import io
import json
import socket

import pytest

from fleet.client.errors import ClientError
from fleet.client.portal import check_url, language
from tests.client.conftest import REQUEST, Command
from tests.client.portal import TOKEN, TestPortal

SESSION = {
    "session": "5e" * 16, "device": "dev_Alpha-01", "serial": "S-1001", "specialist": "noor",
    "state": "requested", "state_reason": None, "challenge": None, "challenge_signature": None,
    "certificates": [], "request": "e30=",
}  # fmt: skip
COLUMNS = [
    "serial", "device", "product_line", "organisation", "site", "online", "state",
    "software_version", "last_seen_at",
]  # fmt: skip


def test_login_stores_who_and_where_for_its_owner_only(
    portal: TestPortal, command: Command
) -> None:
    file = command.folder / "profile.json"
    assert file.stat().st_mode & 0o777 == 0o600
    stored = json.loads(file.read_text())
    assert (stored["url"], stored["token"], stored["specialist"]) == (portal.url, TOKEN, "noor")
    done = command("login", given=b"\n")  # asks, and offers what is known
    assert TOKEN not in done.stdout.decode() + done.stderr.decode()


def test_a_wrong_token_is_not_stored(portal: TestPortal, command: Command) -> None:
    before = (command.folder / "profile.json").read_text()
    done = command("login", portal.url, "--token", "pat_wrong", expect=3)
    assert "The token is unknown. Sign in again" in done.stderr.decode()
    assert (command.folder / "profile.json").read_text() == before


@pytest.mark.parametrize(
    "url", ["", "portal", "ftp://portal.example", "http://portal.example", "https://x/?q=1"]
)
def test_an_address_is_checked_before_the_token_goes_there(url: str) -> None:
    with pytest.raises(ClientError):
        check_url(url)


def test_addresses_that_may_be_used() -> None:
    assert check_url("https://portal.example/") == "https://portal.example"
    assert check_url("http://localhost:8000") == "http://localhost:8000"
    assert check_url("http://[::1]:8000") == "http://[::1]:8000"


def test_devices_are_listed_whole_in_the_contracts_form(
    portal: TestPortal, command: Command
) -> None:
    found = command.json("devices")
    assert [list(it) for it in found] == [COLUMNS, COLUMNS]
    assert [it["serial"] for it in found] == ["S-1001", "S-1002"]  # both pages
    rows = list(csv.DictReader(io.StringIO(command("devices", "-o", "csv").stdout.decode())))
    assert [it["device"] for it in rows] == ["dev_Alpha-01", "dev_Bravo-02"]
    assert [it["online"] for it in rows] == ["true", "true"]  # JSON's words, not Python's
    assert len(command("devices", "S-1002").stdout.splitlines()) == 2


def test_a_filter_that_nothing_can_meet_is_a_mistake(portal: TestPortal, command: Command) -> None:
    for option in ("--product-line", "--site"):
        assert "no such thing" in command("devices", option, "zz", expect=1).stderr.decode()
    said = command("devices", "--online", "--offline", expect=2).stderr.decode()
    assert "--offline" in said
    assert command.json("devices", "S-9", "--product-line", "ct-dual") == []


@pytest.mark.parametrize("site", ["site-1", "main", "Main"])
def test_a_site_goes_by_its_id_or_its_name(portal: TestPortal, command: Command, site: str) -> None:
    found = command.json("devices", "--site", site)
    assert [it["serial"] for it in found] == ["S-1001", "S-1002"]


def test_watch_prints_changes_only(portal: TestPortal, command: Command) -> None:
    lines = command("watch", "--every", "0.5", "--count", "2", "-o", "json").stdout.splitlines()
    assert [json.loads(line)["serial"] for line in lines] == ["S-1001", "S-1002"]
    assert b"S-1001  online  idle" in command("watch", "--count", "1").stdout


def test_the_language_of_the_reader_goes_along(
    portal: TestPortal, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R-ASR-4: the portal's words come back in the reader's language."""
    command.language = "fr_CA.UTF-8"
    command("devices")
    assert portal.languages[-1] == "fr-CA, fr;q=0.8"
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    assert language() == "en"
    monkeypatch.setenv("LANG", "C.UTF-8")
    assert language() == "en"


def test_a_portal_that_is_away_or_is_none(portal: TestPortal, command: Command) -> None:
    portal.away = True
    assert "502" in command("devices", expect=5).stderr.decode()
    profile = command.folder / "profile.json"
    stored = json.loads(profile.read_text())
    with socket.create_server(("127.0.0.1", 0)) as unused:
        nowhere = f"http://127.0.0.1:{unused.getsockname()[1]}"
    profile.write_text(json.dumps({**stored, "url": nowhere}))
    assert "cannot be reached" in command("devices", expect=5).stderr.decode()


def test_a_session_that_makes_no_sense_is_no_session(
    portal: TestPortal, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    for nonsense in ({}, {"state": "root"}, {"session": "../../profile"}, {"certificates": None}):
        shown = {} if not nonsense else {**SESSION, **nonsense}
        monkeypatch.setattr(portal, "_request", lambda body, shown=shown: (201, shown))
        done = command(*REQUEST, expect=5)
        assert "cannot read" in done.stderr.decode()
    assert list((command.folder / "sessions").glob("*.json")) == []


def test_the_portals_words_cannot_move_the_cursor(
    portal: TestPortal, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = (400, {"error": "invalid", "detail": "\x1b[2Jcleared\rgone\u202e"})
    monkeypatch.setattr(portal, "_request", lambda body: answer)
    said = command(*REQUEST, expect=6).stderr.decode()
    assert "cleared" in said
    assert not set(said) & {"\x1b", "\r", "\u202e"}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"url": 5}', "not json"])
def test_a_damaged_profile_has_a_remedy(command: Command, text: str) -> None:
    (command.folder / "profile.json").write_text(text)
    assert "patency login" in command("devices", expect=1).stderr.decode()


def test_a_token_that_others_could_read_is_theirs_no_more(
    portal: TestPortal, command: Command
) -> None:
    """All files are 0600 (docs/cli.md): put right, and said, since somebody may have read it."""
    file = command.folder / "profile.json"
    file.chmod(0o644)
    assert "Others could read" in command("devices").stderr.decode()
    assert file.stat().st_mode & 0o777 == 0o600
    assert command("devices").stderr == b""


def test_no_profile_is_no_sign_in(command: Command) -> None:
    assert "patency login" in command("devices", expect=3).stderr.decode()
