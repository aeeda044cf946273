"""Signing in, the language, tokens of one's own, error pages."""

import logging
import re
import sys
from collections.abc import Callable

import pytest
from django.conf import settings
from django.test import Client

from fleet.accounts.models import ApiToken, User
from fleet.accounts.services import use_token
from fleet.audit.models import Entry
from fleet.core import clock
from fleet.core.logs import StrangersFilter
from tests.conftest import PASSWORD
from tests.mfa import open_session


def test_signing_in_and_out(member: User) -> None:
    client = Client()
    asked = client.get("/devices/")
    assert asked.headers["Location"] == "/sign-in/?next=/devices/"
    wrong = client.post("/sign-in/", {"username": "member", "password": "no"})
    assert 'role="alert"' in wrong.content.decode()
    right = {"username": "member", "password": PASSWORD, "next": "/devices/"}
    assert client.post("/sign-in/", right).headers["Location"] == "/devices/"
    assert client.get("/devices/").status_code == 200
    assert client.post("/sign-out/").headers["Location"] == "/sign-in/"
    assert client.get("/devices/").status_code == 302


@pytest.mark.parametrize(
    "target",
    [
        "https://elsewhere.example/",
        "//elsewhere.example/",
        "/\\elsewhere.example",
        "now",
        "x" * 3000,
    ],
)
def test_signing_in_leads_nowhere_else(target: str, member: User) -> None:
    answers = {"username": "member", "password": PASSWORD, "next": target}
    assert Client().post("/sign-in/", answers).headers["Location"] == "/"


def test_the_language_is_remembered(owner: User, browser: Callable[[User], Client]) -> None:
    """R-ASR-4: with the account, and before signing in by a cookie."""
    client = browser(owner)
    client.post("/language/", {"language": "fr-ca", "next": "/devices/"})
    owner.refresh_from_db()
    assert owner.language == "fr-ca"
    assert '<html lang="fr-ca">' in client.get("/").content.decode()

    nobody = Client()
    nobody.post("/language/", {"language": "fr-ca", "next": "/sign-in/"})
    assert '<html lang="fr-ca">' in nobody.get("/sign-in/").content.decode()


@pytest.mark.parametrize(
    "target", ["https://elsewhere.example/", "//elsewhere.example", "", "now", "1e308", "é" * 3000]
)
def test_the_language_form_leads_nowhere_else(target: str, db: None) -> None:
    response = Client().post("/language/", {"language": "en", "next": target})
    assert response.headers["Location"] == "/"


def test_an_unknown_language_changes_nothing(
    owner: User, browser: Callable[[User], Client]
) -> None:
    browser(owner).post("/language/", {"language": "tlh", "next": "/"})
    owner.refresh_from_db()
    assert owner.language == "en"


def test_a_token_is_shown_once_and_can_be_revoked(
    owner: User, browser: Callable[[User], Client]
) -> None:
    client = browser(owner)
    made = client.post("/account/tokens/", {"name": "laptop", "days": "30", "scopes": "read"})
    found = re.search(r"pat_[\w-]+", made.content.decode())
    assert found is not None
    assert use_token(found[0], now=clock.now()) == owner
    assert found[0] not in client.get("/account/").content.decode()
    token = ApiToken.objects.get()
    response = client.post(f"/account/tokens/{token.pk}/revoke/", follow=True)
    assert "revoked" in response.content.decode()
    assert use_token(found[0], now=clock.now()) is None
    actions = list(Entry.objects.order_by("index").values_list("action", flat=True))
    assert actions == ["token:create", "token:revoke"]


@pytest.mark.parametrize(
    "answers",
    [
        {},
        {"name": "  ", "days": "30", "scopes": "read"},
        {"name": "x", "days": "9", "scopes": "read"},
        {"name": "x", "days": "30"},
        {"name": "x", "days": "30", "scopes": "root"},
        {"name": "x", "days": "30", "scopes": "admin"},
        {"name": "x", "days": "365", "scopes": "access"},
    ],
)
def test_a_wrong_token_is_not_made(
    answers: dict[str, str], owner: User, browser: Callable[[User], Client]
) -> None:
    assert browser(owner).post("/account/tokens/", answers).status_code == 400
    assert not ApiToken.objects.exists()


def test_twenty_tokens_are_enough(owner: User, browser: Callable[[User], Client]) -> None:
    client = browser(owner)
    for number in range(20):
        client.post("/account/tokens/", {"name": f"t{number}", "days": "1", "scopes": "read"})
    response = client.post("/account/tokens/", {"name": "one more", "days": "1", "scopes": "read"})
    assert "Revoke one first" in response.content.decode()


def test_a_token_of_others_is_like_none(
    owner: User, colleague: User, browser: Callable[[User], Client]
) -> None:
    browser(owner).post("/account/tokens/", {"name": "laptop", "days": "30", "scopes": "read"})
    token = ApiToken.objects.get()
    assert browser(colleague).post(f"/account/tokens/{token.pk}/revoke/").status_code == 404
    assert ApiToken.objects.exists()


# --- errors ---------------------------------------------------------------------------------------


def test_error_pages_speak_the_readers_language(
    owner: User, browser: Callable[[User], Client]
) -> None:
    owner.language = "fr-ca"
    owner.save()
    response = browser(owner).get("/nowhere/")
    assert response.status_code == 404
    text = response.content.decode()
    assert '<html lang="fr-ca">' in text
    assert 'href="/"' in text


def test_a_fault_of_ours_has_a_page(
    owner: User, browser: Callable[[User], Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(user: User) -> None:
        raise RuntimeError("told to nobody")

    monkeypatch.setattr("fleet.telemetry.pages.conditions", fail)
    client = browser(owner)
    client.raise_request_exception = False
    response = client.get("/")
    assert response.status_code == 500
    assert "told to nobody" not in response.content.decode()
    assert "on our side" in response.content.decode()


def test_a_form_without_its_token_is_told_what_to_do(owner: User) -> None:
    client = Client(enforce_csrf_checks=True)
    open_session(client, owner)
    response = client.post("/account/tokens/", {"name": "x", "days": "1"})
    assert response.status_code == 403
    text = response.content.decode()
    assert "open for too long" in text
    assert "This form has expired" in text
    assert "Not for your role" not in text


@pytest.mark.parametrize(
    ("path", "methods"),
    [("/sign-out/", "POST"), (f"/executions/{'0' * 32}/bundle/", "POST"), ("/language/", "POST")],
)
def test_an_address_of_a_button_has_a_way_back(
    path: str, methods: str, owner: User, browser: Callable[[User], Client]
) -> None:
    response = browser(owner).get(path)
    assert response.status_code == 405
    assert methods in response.headers["Allow"]
    text = response.content.decode()
    assert "Go back" in text
    assert 'href="/"' in text


def test_a_request_that_cannot_be_understood(db: None, caplog: pytest.LogCaptureFixture) -> None:
    response = Client(headers={"host": "elsewhere.example"}).get("/sign-in/")
    assert response.status_code == 400
    [record] = caplog.records
    assert record.name == "django.security.DisallowedHost"
    assert StrangersFilter().filter(record)
    line = logging.Formatter().format(record)
    assert "elsewhere.example" in line
    assert "Traceback" not in line


def test_a_strangers_line_is_bounded_and_our_own_faults_are_whole() -> None:
    try:
        raise RuntimeError("told whole")
    except RuntimeError:
        fault = sys.exc_info()
    long = logging.LogRecord("django.security.x", 40, "", 1, "%s", ("x" * 9000,), fault)
    ours = logging.LogRecord("fleet.core", 40, "", 1, "y" * 900, (), fault)
    assert StrangersFilter().filter(long)
    assert StrangersFilter().filter(ours)
    assert len(logging.Formatter().format(long)) == 300
    assert "told whole" in logging.Formatter().format(ours)
    assert settings.LOGGING["handlers"]["stderr"]["filters"] == ["strangers"]
