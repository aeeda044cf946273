"""A second factor is required of the vendor's people; what is done with it ends other sessions."""

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from allauth.usersessions.models import UserSession
from django.conf import settings
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session
from django.test import Client
from django.urls import get_resolver

from fleet.access.stream import DoorClosedError, Pass, admit
from fleet.accounts import device_codes, doors, sign_ins
from fleet.accounts.middleware import OPEN_WITHOUT_FACTOR
from fleet.accounts.models import DeviceCode, User
from fleet.audit.models import Entry
from fleet.core import clock
from fleet.inventory.models import Device
from tests.conftest import PASSWORD
from tests.fleet.pages.test_every_page import whole_and_safe
from tests.fleet.routes import ROUTES, Kind
from tests.mfa import code, give_app, open_session


def _actions() -> list[str]:
    return list(Entry.objects.order_by("pk").values_list("action", flat=True))


def _signed_in(user: User, step: int = 0) -> Client:
    """Through the forms: a session that is on record."""
    client = Client(headers={"user-agent": "Mozilla/5.0 (X11; Linux) Firefox/140.0"})
    client.post("/sign-in/", {"username": user.username, "password": PASSWORD})
    if Authenticator.objects.filter(user=user).exists():
        client.post("/sign-in/code/", {"code": code(step=step)})
    assert client.session.get("_auth_user_id") == str(user.pk)
    return client


# --- required -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "route", [r for r, (kind, _i) in ROUTES.items() if kind is not Kind.PUBLIC]
)
def test_without_the_factor_there_are_only_the_pages_that_set_one_up(
    route: str, owner: User
) -> None:
    """R-ACC-1, on every route of the table."""
    client = Client()
    open_session(client, owner, factor=False)
    path = re.sub(r"<int:\w+>", "1", re.sub(r"<str:\w+>", "x", route))
    pattern = next(p for p in _patterns(get_resolver().url_patterns, "") if p[0] == route)
    for method in ("get", "post"):
        answer = getattr(client, method)(f"/{path}")
        if pattern[1] in OPEN_WITHOUT_FACTOR:
            assert answer.status_code in (200, 302, 400, 403, 404, 405)
        elif route.startswith("api/"):
            assert (answer.status_code, answer.json()["error"]) == (403, "second_factor"), method
        else:
            assert answer["Location"] == "/account/security/needed/", method


def _patterns(patterns: Any, prefix: str) -> Any:
    for entry in patterns:
        route = prefix + str(entry.pattern)
        if hasattr(entry, "url_patterns"):
            yield from _patterns(entry.url_patterns, route)
        else:
            yield route, entry.name


def test_who_has_an_app_but_did_not_show_it_is_asked_for_it(owner: User) -> None:
    give_app(owner)
    client = Client()
    open_session(client, owner, factor=False)
    asked = client.get("/devices/?q=x")
    assert asked["Location"] == "/account/confirm/?next=%2Fdevices%2F%3Fq%3Dx"
    page = client.get(asked["Location"]).content.decode()
    assert 'name="password"' not in page, "the first factor again is no second one"
    client.post("/account/confirm/", {"password": PASSWORD})
    assert client.get("/devices/").status_code == 302
    answer = client.post("/account/confirm/", {"code": code(), "next": "/devices/?q=x"})
    assert answer["Location"] == "/devices/?q=x"
    assert client.get("/devices/").status_code == 200


def test_websockets_and_streams_ask_the_same(owner: User, member: User, device: Device) -> None:
    client = Client()
    open_session(client, owner, factor=False)
    key = client.cookies[settings.SESSION_COOKIE_NAME].value
    assert doors.person_of(SessionStore(key)) is None
    with pytest.raises(DoorClosedError) as refused:
        admit(Pass(None, key, settings.PATENCY_ORIGINS[0]), "0" * 32)
    assert refused.value.code == 4401
    open_session(client, owner)
    key = client.cookies[settings.SESSION_COOKIE_NAME].value
    assert doors.person_of(SessionStore(key)) == owner
    open_session(client, member, factor=False)
    key = client.cookies[settings.SESSION_COOKIE_NAME].value
    assert doors.person_of(SessionStore(key)) == member, "of a hospital's people it is not asked"


@pytest.mark.parametrize("language", ["en", "fr-ca"])
@pytest.mark.parametrize(
    "path", ["/account/security/needed/", "/account/security/app/", "/account/confirm/"]
)
def test_the_pages_of_the_set_up_are_whole(
    path: str, language: str, owner: User, read: Callable[[Any], Any]
) -> None:
    owner.language = language
    owner.save()
    client = Client()
    open_session(client, owner, factor=False)
    response = client.get(path)
    assert response.status_code == 200
    whole_and_safe(read(response), response, language)
    assert "no-store" in response.headers["Cache-Control"]


@pytest.mark.parametrize("language", ["en", "fr-ca"])
def test_the_page_of_the_code_is_whole(
    language: str, owner: User, read: Callable[[Any], Any]
) -> None:
    give_app(owner)
    client = Client(headers={"accept-language": language})
    client.post("/sign-in/", {"username": "owner", "password": PASSWORD})
    response = client.get("/sign-in/code/")
    whole_and_safe(read(response), response, language)


@pytest.mark.django_db(transaction=True)  # allauth tells after the commit
def test_setting_an_app_up_opens_the_door(owner: User, read: Callable[[Any], Any]) -> None:
    client = Client()
    client.post("/sign-in/", {"username": "owner", "password": PASSWORD})
    assert client.get("/devices/")["Location"] == "/account/security/needed/"
    page = client.get("/account/security/app/").content.decode()
    found = re.search(r'<code class="secret">([A-Z2-7]{32})</code>', page)
    assert found is not None
    assert 'src="data:image/svg+xml;base64,' in page
    wrong = client.post("/account/security/app/", {"code": "000000"})
    assert wrong.status_code == 200
    done = client.post("/account/security/app/", {"code": code(found[1])})
    assert done["Location"] == "/account/security/codes/"
    response = client.get("/account/security/codes/")
    whole_and_safe(read(response), response, "en")
    assert len(re.findall(r"<code>\d{8}</code>", response.content.decode())) == 10
    assert client.get("/devices/").status_code == 200
    assert "account:factor_add" in _actions()


def test_the_last_factor_of_the_vendors_people_stays(
    owner: User, member: User, browser: Callable[[User], Client]
) -> None:
    answer = browser(owner).post("/account/security/app/remove/")
    assert "Add another one" in answer.content.decode()
    assert Authenticator.objects.filter(user=owner, type="totp").exists()
    key = Authenticator.objects.create(
        user=colleague_of(owner), type="webauthn", data={"name": "k"}
    )
    client = Client()
    open_session(client, key.user)
    Authenticator.objects.filter(user=key.user, type="totp").delete()
    answer = client.post(f"/account/security/passkeys/{key.pk}/remove/", follow=True)
    assert "Add another one" in answer.content.decode()
    assert Authenticator.objects.filter(pk=key.pk).exists()
    browser(member).post("/account/security/app/remove/")
    assert not Authenticator.objects.filter(user=member).exists()


def colleague_of(user: User) -> User:
    return User.objects.create_user(
        "second", password=PASSWORD, organisation=user.organisation, role="specialist"
    )


# --- confirming -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/account/security/app/remove/", "/account/security/codes/new/",
        "/account/security/passkeys/new/", "/devices/device-0001/request/",
    ],
)  # fmt: skip
def test_what_hurts_most_asks_again_after_five_minutes(
    path: str, owner: User, device: Device
) -> None:
    client = Client()
    open_session(client, owner, age_s=299)
    assert client.get(path).status_code == 200
    open_session(client, owner, age_s=301)
    for method in (client.post, client.get):
        assert method(path)["Location"].startswith("/account/confirm/?next="), path
    client.post("/account/confirm/", {"password": "wrong", "next": path})
    assert client.get(path).status_code == 302
    assert (
        client.post("/account/confirm/", {"password": PASSWORD, "next": path})["Location"] == path
    )
    assert client.get(path).status_code == 200


@pytest.mark.parametrize("path", ["/account/tokens/", "/connect/", f"/access/{'0' * 32}/browser/"])
def test_buttons_ask_again_as_well(path: str, owner: User) -> None:
    """Also the one that leads to the origin where the device's challenge is signed."""
    client = Client()
    open_session(client, owner, age_s=301)
    assert client.post(path)["Location"].startswith("/account/confirm/?next="), path


def test_a_form_that_was_interrupted_goes_on(owner: User) -> None:
    client = Client()
    open_session(client, owner, age_s=301)
    asked = client.post("/account/tokens/", {"name": "laptop", "days": "30", "scopes": "read"})
    target = "/account/tokens/"
    assert asked["Location"] == "/account/confirm/?next=%2Faccount%2Ftokens%2F"
    answer = client.post("/account/confirm/", {"code": code(), "next": target})
    assert re.search(r"pat_[\w-]+", answer.content.decode())
    assert owner.tokens.get().name == "laptop"


def test_a_form_that_was_given_up_is_not_sent_later(owner: User, device: Device) -> None:
    client = Client()
    open_session(client, owner, age_s=301)
    path = f"/devices/{device.pk}/request/"
    client.post(path, {"level": "os", "services": ["ssh"], "reason": "repair", "minutes": "30"})
    client.get(path)
    assert client.post("/account/confirm/", {"code": code(), "next": path})["Location"] == path
    assert not device.sessions.exists()


@pytest.mark.parametrize("target", ["https://evil.example/", "//evil.example", "now"])
def test_confirming_leads_nowhere_else(target: str, owner: User) -> None:
    client = Client()
    open_session(client, owner)
    answer = client.post("/account/confirm/", {"password": PASSWORD, "next": target})
    assert answer["Location"] == "/account/security/"


@pytest.mark.parametrize("field", ["password", "code"])
def test_guessing_at_a_screen_left_open_is_locked(field: str, owner: User) -> None:
    client = Client()
    open_session(client, owner, age_s=301)
    for guess in range(5):
        client.post("/account/confirm/", {field: f"00000{guess}"})
    right = {"password": PASSWORD, "code": code()}[field]
    answer = client.post("/account/confirm/", {field: right})
    assert "Wait 15 minutes" in answer.content.decode()
    assert "account:lock" in _actions()


# --- sessions -------------------------------------------------------------------------------------


def test_sessions_are_listed_and_ended(member: User, stranger: User) -> None:
    here, there = _signed_in(member), _signed_in(member)
    text = here.get("/account/sessions/").content.decode()
    assert text.count("Firefox, Linux") >= 2
    assert "127.0.0.1" in text
    row = UserSession.objects.get(session_key=there.session.session_key)
    assert _signed_in(stranger).post(f"/account/sessions/{row.pk}/end/").status_code == 404
    assert there.get("/devices/").status_code == 200
    here.post(f"/account/sessions/{row.pk}/end/")
    assert there.get("/devices/").status_code == 302
    assert here.get("/devices/").status_code == 200
    assert "account:sessions_end" in _actions()


def test_all_other_sessions_end_at_once(member: User) -> None:
    here, *others = [_signed_in(member) for _number in range(3)]
    answer = here.post("/account/sessions/end/", follow=True)
    assert "2 other sessions are ended" in answer.content.decode()
    assert here.get("/devices/").status_code == 200
    assert [other.get("/devices/").status_code for other in others] == [302, 302]


def test_last_seen_is_kept_to_the_minute(member: User, monkeypatch: pytest.MonkeyPatch) -> None:
    client = _signed_in(member)
    row = UserSession.objects.get()
    before = row.last_seen_at
    later = before + 2 * sign_ins.SEEN_STEP
    monkeypatch.setattr("fleet.core.clock.now", lambda: later)
    client.get("/devices/")
    row.refresh_from_db()
    assert row.last_seen_at == later
    monkeypatch.setattr("fleet.core.clock.now", lambda: later + sign_ins.SEEN_STEP / 2)
    client.get("/devices/")
    row.refresh_from_db()
    assert row.last_seen_at == later


def test_who_only_knocks_is_kept_briefly_and_cleared_away(member: User) -> None:
    """Anybody can ask for a challenge: what is kept for that ends, and does not pile up."""
    for _number in range(3):
        Client().get("/sign-in/passkey/", headers={"accept": "application/json"})
    client = _signed_in(member)
    assert client.session.get_expiry_age() > 11 * 3600, "who is in stays a working day"
    device_codes.start(name="x", scopes=(), address="10.0.0.1", now=clock.now())
    assert Session.objects.count() == 4
    later = clock.now() + timedelta(minutes=16)
    sign_ins.forget(later)
    assert Session.objects.count() == 1
    assert client.get("/devices/").status_code == 200
    assert UserSession.objects.count() == 1
    assert not DeviceCode.objects.exists()
    sign_ins.forget(later + timedelta(hours=13))
    assert not Session.objects.exists()
    assert not UserSession.objects.exists()


@pytest.mark.parametrize(
    ("agent", "name"),
    [
        (
            "Mozilla/5.0 (Windows NT 10.0) AppleWebKit Chrome/140 Safari/537 Edg/140",
            "Edge, Windows",
        ),
        ("Mozilla/5.0 (iPhone; CPU) AppleWebKit Version/18 Safari/604", "Safari, iOS"),
        ("Mozilla/5.0 (X11; CrOS x86_64) Chrome/140 Safari", "Chrome, ChromeOS"),
        ("<script>alert(1)</script>", "Unknown browser"),
        ("", "Unknown browser"),
    ],
)
def test_a_browser_is_named_in_plain_words(agent: str, name: str) -> None:
    assert sign_ins.device_name(agent) == name


def test_a_new_password_signs_out_everywhere_else(member: User) -> None:
    here, there = _signed_in(member), _signed_in(member)
    answers = {
        "oldpassword": "wrong",
        "password1": "a much longer one",
        "password2": "a much longer one",
    }
    assert "not your present" in here.post("/account/security/password/", answers).content.decode()
    answers["oldpassword"] = PASSWORD
    short = {**answers, "password1": "short", "password2": "short"}
    assert here.post("/account/security/password/", short).status_code == 200
    assert here.post("/account/security/password/", answers)["Location"] == "/account/security/"
    assert here.get("/devices/").status_code == 200
    assert there.get("/devices/").status_code == 302
    assert "account:password" in _actions()


def test_a_factor_that_changes_signs_out_everywhere_else(member: User) -> None:
    give_app(member)
    there = _signed_in(member, step=-1)
    here = _signed_in(member, step=0)
    assert there.get("/devices/").status_code == 200
    here.post("/account/security/app/remove/")
    assert here.get("/devices/").status_code == 200
    assert there.get("/devices/").status_code == 302
    assert "account:factor_remove" in _actions()


def test_signing_out_is_recorded(member: User) -> None:
    _signed_in(member).post("/sign-out/")
    assert _actions()[-2:] == ["account:sign_in", "account:sign_out"]
