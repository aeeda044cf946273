"""Signing in by the browser (R-ACC-1): what the command shows, and every answer it may get."""

import json
from typing import Any

import pytest

from fleet.client import browser
from fleet.client.browser import Asked, wait
from fleet.client.errors import ClientError, Exit, Unreachable
from tests.client.conftest import Command
from tests.client.portal import TOKEN, TestPortal

PENDING = (400, {"error": "authorization_pending"})
SLOWER = (400, {"error": "slow_down"})


def test_the_code_is_shown_and_the_secret_is_not(portal: TestPortal, command: Command) -> None:
    done = command("login", portal.url, "--scope", "read", "--scope", "access")
    said = done.stderr.decode()
    assert "BCDF-GHJK" in said
    assert f"{portal.url}/connect/" in said, "the address that the person knows"
    assert "elsewhere" not in said
    assert "secret-of-this-sign-in" not in said + done.stdout.decode()
    assert portal.forms[0]["scope"] == "read access"
    assert portal.forms[0]["name"].startswith("patency, ")
    assert portal.forms[1] == {
        "client_id": "patency",
        "grant_type": "urn:ietf:params:oauth:grant-type:device_code",
        "device_code": "secret-of-this-sign-in",
    }
    file = command.folder / "profile.json"
    assert json.loads(file.read_text())["token"] == TOKEN
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        ((400, {"error": "access_denied"}), 3, "denied"),
        ((400, {"error": "expired_token"}), 7, "in time"),
        ((400, {"error": "invalid_grant", "detail": "used\x1b[2J"}), 1, "used"),
        ((200, {"access_token": 7}), 1, "no token"),
        ((200, ["x"]), 1, ""),
        ((200, {"access_token": "a b\n"}), 3, "no token"),
    ],
)
def test_an_end_without_a_token_stores_nothing(
    portal: TestPortal, command: Command, answer: Any, code: int, words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    before = (command.folder / "profile.json").read_text()
    portal.decisions = [answer, (400, {"error": "access_denied"})]
    if answer[1] == ["x"]:
        code = 3  # no answer of a portal: asked again, and denied then
    done = command("login", portal.url, expect=code)
    assert words in done.stderr.decode()
    assert "\x1b" not in done.stderr.decode()
    assert (command.folder / "profile.json").read_text() == before


class Clock:
    """Sleeps at once, and says how long it would have been."""

    def __init__(self) -> None:
        self.time, self.slept = 0.0, list[float]()

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds


def _wait(answers: list[Any], **asked: Any) -> tuple[str, list[float]]:
    clock, left = Clock(), list(answers)

    def ask() -> tuple[int, Any]:
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, tuple)
        return answer

    values: dict[str, Any] = {"expires_in": 600, "interval": 2} | asked
    return wait(Asked("d", "u", "/c", **values), ask, now=clock.now, sleep=clock.sleep), clock.slept


def test_it_asks_as_often_as_the_portal_likes() -> None:
    token, slept = _wait([PENDING, SLOWER, PENDING, (200, {"access_token": "t"})])
    assert (token, slept) == ("t", [2, 2, 7, 7])


def test_a_portal_that_is_away_for_a_moment_is_asked_again() -> None:
    token, slept = _wait([Unreachable("away"), PENDING, (200, {"access_token": "t"})])
    assert (token, slept) == ("t", [2, 4, 4])


@pytest.mark.parametrize("expires_in", [600, 1e12, 0, -5])
def test_it_does_not_wait_for_ever(expires_in: float) -> None:
    with pytest.raises(ClientError, match="in time") as end:
        _wait([PENDING], expires_in=expires_in)
    assert end.value.exit is Exit.EXPIRED


@pytest.mark.parametrize("interval", [0, -1, 1e9])
def test_a_strange_interval_is_bounded(interval: float) -> None:
    _token, slept = _wait([PENDING, (200, {"access_token": "t"})], interval=interval)
    assert all(1 <= seconds <= 60 for seconds in slept)


def test_a_portal_without_it_says_so(
    portal: TestPortal, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(portal, "_sign_in", lambda path: (404, {"detail": "nothing here"}))
    assert "nothing here" in command("login", portal.url, expect=1).stderr.decode()
    monkeypatch.setattr(portal, "_sign_in", lambda path: (200, {"device_code": 7}))
    assert "like a portal" in command("login", portal.url, expect=5).stderr.decode()
    portal.away = True
    assert "502" in command("login", portal.url, expect=5).stderr.decode()


def test_where_never_leads_elsewhere() -> None:
    assert browser._where("https://a.example", "https://b.example/x") == "https://a.example/x"
    assert browser._where("https://a.example", "javascript:alert(1)") == "https://a.example"
