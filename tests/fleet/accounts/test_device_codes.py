"""A command line signs in by the browser (R-ACC-1): RFC 8628, and who tries to cheat."""

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.test import Client

from fleet.accounts import device_codes
from fleet.accounts.device_codes import NotYet
from fleet.accounts.models import ApiToken, DeviceCode, User
from fleet.audit.models import Entry
from fleet.core import clock
from fleet.core.errors import Invalid, NotFound, TooMany
from tests.mfa import code, open_session

CLIENT = {"client_id": "patency"}
GRANT = {**CLIENT, "grant_type": "urn:ietf:params:oauth:grant-type:device_code"}
TOKEN = "/api/v1/sign-in/token/"


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], datetime]:
    """now(s): it is s seconds later, for the portal as well."""
    start = clock.now()

    def at(seconds: float) -> datetime:
        moment = start + timedelta(seconds=seconds)
        monkeypatch.setattr("fleet.core.clock.now", lambda: moment)
        return moment

    at(0)
    return at


def _begin(**form: str) -> dict[str, Any]:
    answer = Client().post("/api/v1/sign-in/device/", {**CLIENT, "name": "laptop", **form})
    assert answer.status_code == 200, answer.content
    assert answer["Cache-Control"] == "no-store"
    found: dict[str, Any] = answer.json()
    return found


def _ask(begun: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    answer = Client().post(TOKEN, {**GRANT, "device_code": begun["device_code"]})
    return answer.status_code, answer.json()


def _approve(client: Client, begun: dict[str, Any], *scopes: str, days: str = "30") -> Any:
    body = {"code": begun["user_code"], "decision": "approve", "days": days, "scopes": list(scopes)}
    return client.post("/connect/", body)


def test_from_the_first_call_to_the_token(
    owner: User, browser: Callable[[User], Client], now: Callable[[float], datetime]
) -> None:
    begun = _begin()
    assert re.fullmatch(r"[B-Z]{4}-[B-Z]{4}", begun["user_code"])
    assert begun["verification_uri"] == "http://testserver/connect/"
    assert begun["verification_uri_complete"].endswith(f"?code={begun['user_code']}")
    status, told = _ask(begun)
    assert (status, told["error"]) == (400, "authorization_pending")

    client = browser(owner)
    page = client.get(f"/connect/?code={begun['user_code']}").content.decode()
    assert "laptop" not in page, "a link alone shows nothing and decides nothing"
    asked = client.post("/connect/", {"code": begun["user_code"].lower().replace("-", " ")})
    text = asked.content.decode()
    for fact in ("laptop", "127.0.0.1", begun["user_code"]):
        assert fact in text
    assert DeviceCode.objects.get().state == "waiting"
    assert "signed in" in _approve(client, begun, "read", "access").content.decode()

    now(3)
    status, told = _ask(begun)
    assert (status, told["token_type"], told["scope"]) == (200, "Bearer", "read access")
    assert told["expires_in"] == 30 * 24 * 3600
    me = Client().get("/api/v1/me/", headers={"authorization": f"Bearer {told['access_token']}"})
    assert (me.json()["username"], me.json()["scopes"]) == ("owner", ["read", "access"])
    assert _ask(begun)[1]["error"] == "invalid_grant", "once"
    assert ApiToken.objects.count() == 1
    rows = [row["entry"] for row in Entry.objects.order_by("pk").values("entry")]
    assert [(row["action"], row["reason"]) for row in rows][-2:] == [
        ("token:approve", None), ("token:create", "device_code"),
    ]  # fmt: skip


def test_what_asks_too_often_is_slowed_down(now: Callable[[float], datetime], db: None) -> None:
    begun = _begin()
    _ask(begun)
    now(1)
    assert _ask(begun)[1]["error"] == "slow_down"
    now(4)
    assert _ask(begun)[1]["error"] == "slow_down", "two seconds are no longer enough"
    now(17)
    assert _ask(begun)[1]["error"] == "authorization_pending"


def test_denied_and_out_of_time(
    owner: User, browser: Callable[[User], Client], now: Callable[[float], datetime]
) -> None:
    denied, late = _begin(), _begin()
    client = browser(owner)
    answer = client.post("/connect/", {"code": denied["user_code"], "decision": "deny"})
    assert "Denied" in answer.content.decode()
    assert _ask(denied)[1]["error"] == "access_denied"
    now(600)
    assert _ask(late)[1]["error"] == "expired_token"
    assert client.post("/connect/", {"code": late["user_code"]}).status_code in (302, 404)
    assert not ApiToken.objects.exists()


def test_an_approval_runs_out_as_well(
    owner: User, browser: Callable[[User], Client], now: Callable[[float], datetime]
) -> None:
    begun = _begin()
    _approve(browser(owner), begun, "read")
    now(601)
    assert _ask(begun)[1]["error"] == "expired_token"


def test_whose_account_is_closed_meanwhile_gets_nothing(
    owner: User, browser: Callable[[User], Client]
) -> None:
    begun = _begin()
    _approve(browser(owner), begun, "read")
    User.objects.filter(pk=owner.pk).update(is_active=False)
    assert _ask(begun)[1]["error"] == "access_denied"


def test_never_more_than_was_asked_or_than_the_person_may(
    member: User, owner: User, browser: Callable[[User], Client]
) -> None:
    begun = _begin(scope="read admin")
    page = browser(owner).post("/connect/", {"code": begun["user_code"]}).content.decode()
    assert 'value="read"' in page
    assert 'value="admin"' not in page
    assert _approve(browser(owner), begun, "admin").status_code == 200, "not offered: asked again"
    _approve(browser(owner), begun, "read", "access")
    assert _ask(begun)[0] == 400
    _approve(browser(owner), begun, "read")
    assert _ask(begun)[1]["scope"] == "read"


def test_guessing_short_codes_is_locked_and_recorded(
    owner: User, browser: Callable[[User], Client]
) -> None:
    """Brute force: 25,600,000,000 codes, five tries."""
    begun = _begin()
    client = browser(owner)
    for guess in ("BBBB-BBBB", "CCCC-CCCC", "", "<b>", "DDDD-DDDD", "FFFF-FFFF", "GGGG-GGGG"):
        client.post("/connect/", {"code": guess})
    answer = client.post("/connect/", {"code": begun["user_code"]})
    assert answer.status_code == 429
    actions = list(Entry.objects.order_by("pk").values_list("action", flat=True))
    assert actions[-1] == "account:lock"


def test_the_long_code_is_not_guessed_and_kept_as_a_digest(db: None) -> None:
    begun = _begin()
    row = DeviceCode.objects.get()
    assert begun["device_code"] not in str(vars(row))
    for wrong in ("", "x" * 5000, begun["device_code"][:-1]):
        answer = Client().post(TOKEN, {**GRANT, "device_code": wrong})
        assert answer.json()["error"] == "invalid_grant"


@pytest.mark.parametrize(
    ("form", "status", "error"),
    [
        ({}, 401, "invalid_client"),
        ({"client_id": "other"}, 401, "invalid_client"),
        ({**CLIENT, "scope": "root"}, 400, "invalid_scope"),
        ({**CLIENT, "name": "x" * 100}, 400, "invalid_scope"),
        ({**CLIENT, "name": "a\x1b[2J"}, 400, "invalid_scope"),
    ],
)
def test_a_beginning_that_is_none(db: None, form: dict[str, str], status: int, error: str) -> None:
    answer = Client().post("/api/v1/sign-in/device/", form)
    assert (answer.status_code, answer.json()["error"]) == (status, error)
    assert answer.json()["error_description"]


def test_other_ways_of_asking_are_refused(db: None) -> None:
    for form in ({**CLIENT, "grant_type": "password"}, {**GRANT, "client_id": "other"}):
        assert Client().post(TOKEN, form).status_code in (400, 401)
    assert Client().get(TOKEN).status_code == 405


def test_so_many_wait_and_no_more(db: None) -> None:
    now = clock.now()
    for _number in range(device_codes.MAX_OF_ADDRESS):
        device_codes.start(name="x", scopes=(), address="10.0.0.1", now=now)
    with pytest.raises(TooMany):
        device_codes.start(name="x", scopes=(), address="10.0.0.1", now=now)
    device_codes.start(name="x", scopes=(), address="10.0.0.2", now=now)
    device_codes.start(name="x", scopes=(), address="10.0.0.1", now=now + device_codes.LIFE)
    assert DeviceCode.objects.count() == 1, "what ran out is gone"


def test_it_is_decided_once(owner: User, colleague: User) -> None:
    now = clock.now()
    started = device_codes.start(name="x", scopes=(), address="10.0.0.1", now=now)
    row = device_codes.find(owner, started.user_code, address="", now=now)
    with pytest.raises(Invalid):
        device_codes.approve(owner, row, scopes=[], life=timedelta(days=1), now=now)
    with pytest.raises(Invalid, match="90 days"):
        device_codes.approve(owner, row, scopes=["access"], life=timedelta(days=91), now=now)
    device_codes.approve(owner, row, scopes=["read"], life=timedelta(days=1), now=now)
    with pytest.raises(NotFound):
        device_codes.deny(colleague, row, now=now)
    secret, _row = device_codes.ask(started.device_code, now=now)
    assert secret.startswith("pat_")
    with pytest.raises(NotYet, match="used"):
        device_codes.ask(started.device_code, now=now)


def test_approving_asks_again_who_it_is(owner: User) -> None:
    begun = _begin()
    client = Client()
    open_session(client, owner, age_s=301)
    answer = _approve(client, begun, "read")
    assert answer["Location"].startswith("/account/confirm/?next=%2Fconnect%2F")
    assert _ask(begun)[1]["error"] == "authorization_pending"
    done = client.post("/account/confirm/", {"code": code(), "next": "/connect/"})
    assert "signed in" in done.content.decode()


def test_a_page_of_another_site_cannot_approve(owner: User) -> None:
    begun = _begin()
    client = Client(enforce_csrf_checks=True)
    open_session(client, owner)
    assert _approve(client, begun, "read").status_code == 403
