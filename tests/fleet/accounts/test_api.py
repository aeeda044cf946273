"""Authentication, errors and languages of the API."""

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from fleet.accounts.models import User
from tests.conftest import PASSWORD
from tests.mfa import open_session


def test_me(api: Callable[[User], Any], owner: User) -> None:
    assert api(owner).get("/api/v1/me/").json() == {
        "username": "owner",
        "name": "Olga Owner",
        "role": "specialist",
        "organisation": "Vendor",
        "language": "en",
        "scopes": ["read", "access", "jobs"],
    }


@pytest.mark.parametrize("header", ["Bearer nonsense", "Bearer ", "bearer " + "x" * 5000])
def test_a_bad_token_is_401_with_a_remedy(db: None, header: str) -> None:
    answer = Client().get("/api/v1/me/", headers={"authorization": header})
    assert answer.status_code == 401
    assert answer["WWW-Authenticate"] == "Bearer"
    assert "new one" in answer.json()["detail"]


def test_a_session_writes_only_with_its_csrf_token(owner: User) -> None:
    client = Client(enforce_csrf_checks=True)
    open_session(client, owner)
    answer = client.post("/api/v1/access/sessions/", {}, content_type="application/json")
    assert answer.status_code == 403


def test_signing_in_with_the_password(client: Client, member: User, owner: User) -> None:
    assert client.login(username="member", password=PASSWORD)
    assert client.get("/api/v1/me/").json()["username"] == "member"
    # Of the vendor's people it is not enough (R-ACC-1).
    assert client.login(username="owner", password=PASSWORD)
    answer = client.get("/api/v1/me/")
    assert (answer.status_code, answer.json()["error"]) == (403, "second_factor")


def test_the_language_is_the_users_unless_the_program_asks(
    api: Callable[[User], Any], stranger: User
) -> None:
    stranger.language = "fr-ca"
    stranger.save()
    client = api(stranger)
    assert client.get("/api/v1/me/")["Content-Language"] == "fr-ca"
    assert client.get("/api/v1/me/", headers={"accept-language": "en"})["Content-Language"] == "en"


def test_errors_have_one_form(api: Callable[[User], Any], owner: User) -> None:
    client = api(owner)
    gone = client.get("/api/v1/devices/none-such/")
    assert (gone.status_code, gone.json()["error"]) == (404, "not_found")
    broken = client.post("/api/v1/access/sessions/", "{", content_type="application/json")
    assert (broken.status_code, broken.json()["error"]) == (400, "parse_error")
    wrong = client.post("/api/v1/access/sessions/", {"level": "root"}, format="json")
    assert wrong.status_code == 400
    assert set(wrong.json()) == {"error", "detail", "fields"}
    method = client.delete("/api/v1/devices/")
    assert (method.status_code, method.json()["error"]) == (405, "method_not_allowed")
