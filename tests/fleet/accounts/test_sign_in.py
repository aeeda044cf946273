"""Getting in (R-ACC-1): password and code, passkey, and what must not get in."""

import html
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from django.conf import settings
from django.contrib.auth.hashers import get_hasher
from django.test import Client

from fleet.accounts import factors, services
from fleet.accounts.models import SignInFailure, User
from fleet.audit.models import Entry
from fleet.core import clock
from tests.conftest import PASSWORD
from tests.mfa import SECRET, code, give_app, open_session
from tests.passkeys import Passkey

ORIGIN = settings.PATENCY_ORIGINS[0]


def _password(client: Client, user: User, **more: str) -> Any:
    return client.post("/sign-in/", {"username": user.username, "password": PASSWORD, **more})


def _audit() -> list[tuple[str, str, str | None]]:
    rows = Entry.objects.order_by("pk").values_list("entry", flat=True)
    return [(row["action"], row["outcome"], row["reason"]) for row in rows]


def test_password_then_code(owner: User) -> None:
    give_app(owner)
    client = Client()
    first = _password(client, owner, next="/devices/")
    assert first["Location"] == "/sign-in/code/"
    assert client.get("/devices/").status_code == 302, "half-way is not in"
    assert client.get("/api/v1/me/").status_code in (401, 403)
    page = client.get("/sign-in/code/")
    assert 'autocomplete="one-time-code"' in page.content.decode()
    assert client.post("/sign-in/code/", {"code": code()})["Location"] == "/devices/"
    assert client.get("/devices/").status_code == 200
    assert _audit()[-1] == ("account:sign_in", "allowed", "password_totp")


def test_the_session_is_a_new_one(owner: User) -> None:
    """Session fixation: what an attacker planted before is not what is signed in."""
    give_app(owner)
    client = Client()
    client.get("/sign-in/passkey/", headers={"accept": "application/json"})
    planted = client.cookies[settings.SESSION_COOKIE_NAME].value
    _password(client, owner)
    client.post("/sign-in/code/", {"code": code()})
    assert client.cookies[settings.SESSION_COOKIE_NAME].value != planted
    thief = Client()
    thief.cookies[settings.SESSION_COOKIE_NAME] = planted
    assert thief.get("/devices/").status_code == 302


def test_a_code_is_taken_once_and_so_is_no_older_one(owner: User) -> None:
    give_app(owner)
    now = code()
    for attempt, wanted in ((now, 302), (now, 200), (code(step=-1), 200), (code(step=1), 302)):
        client = Client()
        _password(client, owner)
        answer = client.post("/sign-in/code/", {"code": attempt})
        assert answer.status_code == wanted
        if wanted == 200:
            assert "used already" in answer.content.decode()


def test_spaces_in_a_code_do_not_matter(owner: User) -> None:
    give_app(owner)
    client = Client()
    _password(client, owner)
    shown = code()
    assert client.post("/sign-in/code/", {"code": f" {shown[:3]} {shown[3:]} "}).status_code == 302


@pytest.mark.parametrize("step", [-3, 3])
def test_a_code_of_another_time_is_wrong(owner: User, step: int) -> None:
    give_app(owner)
    client = Client()
    _password(client, owner)
    assert "wrong" in client.post("/sign-in/code/", {"code": code(step=step)}).content.decode()


def test_guessing_codes_is_locked_and_recorded(owner: User) -> None:
    """Brute force: five wrong codes close it, also for the right one, from a new sign-in too."""
    give_app(owner)
    client = Client()
    _password(client, owner)
    for guess in range(5):
        client.post("/sign-in/code/", {"code": f"00000{guess}"})
    again = Client()
    _password(again, owner)
    answer = again.post("/sign-in/code/", {"code": code()})
    assert "Wait 15 minutes" in answer.content.decode()
    assert ("account:sign_in", "refused", "wrong_code") in _audit()
    assert _audit()[-1] == ("account:lock", "refused", "too_many_failures")
    assert SignInFailure.objects.filter(kind="code").count() == 5
    # The password's own count is untouched, and the other way round.
    services.check_sign_in_rate(username="owner", address="127.0.0.1", now=clock.now())


def test_a_recovery_code_lets_in_once(owner: User, browser: Callable[[User], Client]) -> None:
    client = browser(owner)
    client.post("/account/security/codes/new/")
    shown = re.findall(
        r"<code>(\d{8})</code>", client.get("/account/security/codes/").content.decode()
    )
    assert len(shown) == 10
    assert shown[0] not in client.get("/account/security/codes/").content.decode()
    for wanted in (302, 200):
        lost = Client()
        _password(lost, owner)
        assert lost.post("/sign-in/code/", {"code": shown[0]}).status_code == wanted


def test_the_secrets_are_sealed_in_the_database(owner: User) -> None:
    give_app(owner)
    row = Authenticator.objects.get(user=owner)
    assert SECRET not in json.dumps(row.data)


def test_an_app_sealed_under_another_key_says_so(owner: User, settings: Any) -> None:
    give_app(owner)
    settings.SECRET_KEY = "another key than the one it was sealed with"
    client = Client()
    _password(client, owner)
    answer = client.post("/sign-in/code/", {"code": code()})
    assert "not known here any more" in answer.content.decode()


def test_the_code_page_is_for_the_middle_of_a_sign_in(owner: User) -> None:
    assert Client().get("/sign-in/code/")["Location"] == "/sign-in/"
    assert Client().post("/sign-in/code/", {"code": code()})["Location"] == "/sign-in/"


def test_an_account_that_is_closed_half_way_stays_out(owner: User) -> None:
    give_app(owner)
    client = Client()
    _password(client, owner)
    User.objects.filter(pk=owner.pk).update(is_active=False)
    client.post("/sign-in/code/", {"code": code()})
    assert client.get("/devices/").status_code == 302


def test_forms_want_their_csrf_token(owner: User) -> None:
    client = Client(enforce_csrf_checks=True)
    for path in ("/sign-in/", "/sign-in/code/", "/sign-in/passkey/", "/account/confirm/"):
        assert client.post(path, {"username": "owner"}).status_code == 403, path


def test_another_host_is_not_answered(db: None) -> None:
    for path in ("/sign-in/", "/sign-in/passkey/"):
        assert Client(headers={"host": "evil.example"}).get(path).status_code == 400


def test_nobody_signs_up(db: None) -> None:
    for path in ("/sign-up/", "/accounts/signup/", "/signup/", "/accounts/password/reset/"):
        assert Client().get(path).status_code == 404


# --- passkeys -------------------------------------------------------------------------------------


def _options(text: str) -> dict[str, Any]:
    found = re.search(r'data-passkey-options-value="([^"]+)"', text)
    assert found is not None
    options: dict[str, Any] = json.loads(html.unescape(found[1]))["publicKey"]
    return options


def _add(client: Client, key: Passkey, name: str = "telephone") -> Any:
    asked = _options(client.get("/account/security/passkeys/new/").content.decode())
    answer = {"name": name, "credential": json.dumps(key.make(asked))}
    return client.post("/account/security/passkeys/new/", answer)


def _ask(client: Client) -> dict[str, Any]:
    answer = client.get("/sign-in/passkey/", headers={"accept": "application/json"})
    asked: dict[str, Any] = answer.json()["request_options"]["publicKey"]
    return asked


@pytest.fixture
def passkey(owner: User, browser: Callable[[User], Client]) -> Passkey:
    """A passkey of the owner."""
    key = Passkey(ORIGIN)
    client = browser(owner)
    client.defaults["HTTP_HOST"] = ORIGIN.removeprefix("http://")
    assert _add(client, key).status_code == 302
    return key


@pytest.fixture
def client() -> Client:
    return Client(headers={"host": ORIGIN.removeprefix("http://")})


def test_a_passkey_signs_in_alone(owner: User, passkey: Passkey, client: Client) -> None:
    asked = _ask(client)
    assert asked["userVerification"] == "required"
    assert not asked.get("allowCredentials"), "whose it is, the passkey says"
    body = {"credential": json.dumps(passkey.use(asked)), "next": "/devices/"}
    assert client.post("/sign-in/passkey/", body)["Location"] == "/devices/"
    assert client.get("/devices/").status_code == 200
    assert _audit()[-1] == ("account:sign_in", "allowed", "passkey")


def test_a_passkey_as_second_factor(owner: User, passkey: Passkey, client: Client) -> None:
    _password(client, owner)
    asked = _options(client.get("/sign-in/code/").content.decode())
    assert len(asked["allowCredentials"]) == 1
    body = {"credential": json.dumps(passkey.use(asked))}
    assert client.post("/sign-in/code/", body)["Location"] == "/"
    assert client.get("/devices/").status_code == 200


@pytest.mark.parametrize("origin", ["http://localhost:8001", "https://evil.example", "null", ""])
def test_a_signature_made_on_another_page_is_refused(
    owner: User, passkey: Passkey, client: Client, origin: str
) -> None:
    """The access origin has the same host in the demo: the origin tells them apart."""
    passkey.origin = origin
    client.post("/sign-in/passkey/", {"credential": json.dumps(passkey.use(_ask(client)))})
    assert client.get("/devices/").status_code == 302


def test_a_passkey_that_verified_nobody_is_refused(
    owner: User, passkey: Passkey, client: Client
) -> None:
    passkey.verified = False
    client.post("/sign-in/passkey/", {"credential": json.dumps(passkey.use(_ask(client)))})
    assert client.get("/devices/").status_code == 302


def test_a_signature_is_taken_once(owner: User, passkey: Passkey, client: Client) -> None:
    body = {"credential": json.dumps(passkey.use(_ask(client)))}
    client.post("/sign-in/passkey/", body)
    thief = Client(headers={"host": ORIGIN.removeprefix("http://")})
    _ask(thief)
    thief.post("/sign-in/passkey/", body)
    assert thief.get("/devices/").status_code == 302


@pytest.mark.parametrize(
    "credential", ["", "{}", "[]", "7", '"x"', "{", '{"response": {"clientDataJSON": "e30"}}']
)
def test_what_is_no_passkey_is_refused(db: None, client: Client, credential: str) -> None:
    _ask(client)
    assert client.post("/sign-in/passkey/", {"credential": credential})["Location"] == "/sign-in/"


def test_a_passkey_of_a_colleague_does_not_confirm(
    owner: User, colleague: User, passkey: Passkey, client: Client
) -> None:
    open_session(client, colleague, age_s=1000)
    other = Passkey(ORIGIN, user=passkey.user)
    Authenticator.objects.filter(user=colleague).delete()
    open_session(client, colleague)
    _add(client, other)
    open_session(client, colleague, age_s=1000)
    asked = _options(client.get("/account/confirm/").content.decode())
    client.post("/account/confirm/", {"credential": json.dumps(passkey.use(asked))})
    assert client.get("/account/security/codes/new/").status_code == 302
    client.get("/account/confirm/")
    asked = _options(client.get("/account/confirm/").content.decode())
    client.post("/account/confirm/", {"credential": json.dumps(other.use(asked))})
    assert client.get("/account/security/codes/new/").status_code == 200


def test_a_removed_passkey_is_dead(
    owner: User, passkey: Passkey, client: Client, browser: Callable[[User], Client]
) -> None:
    row = Authenticator.objects.get(user=owner, type="webauthn")
    browser(owner).post(f"/account/security/passkeys/{row.pk}/remove/")
    client.post("/sign-in/passkey/", {"credential": json.dumps(passkey.use(_ask(client)))})
    assert client.get("/devices/").status_code == 302


def test_factors_tell_the_last_one(owner: User, member: User, passkey: Passkey) -> None:
    app = Authenticator.objects.get(user=owner, type="totp")
    assert not factors.is_last(app)
    Authenticator.objects.filter(user=owner, type="webauthn").delete()
    assert factors.is_last(app)
    assert not factors.may_remove(app, owner)
    give_app(member)
    assert factors.may_remove(Authenticator.objects.get(user=member), member)


# --- what time tells ------------------------------------------------------------------------------


def test_an_unknown_name_takes_as_long_as_a_known_one(
    owner: User, member: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The password is hashed once, whether the person exists, has a password, or is closed."""
    User.objects.filter(pk=member.pk).update(is_active=False)
    owner.set_unusable_password()
    owner.save()
    hashed: list[str] = []
    hasher = get_hasher()
    real = type(hasher).encode

    def counted(self: Any, password: str, *arguments: Any, **more: Any) -> str:
        hashed.append(password)
        return str(real(self, password, *arguments, **more))

    monkeypatch.setattr(type(hasher), "encode", counted)
    for username in ("nobody", "owner", "member"):
        hashed.clear()
        answer = Client().post("/sign-in/", {"username": username, "password": "guess"})
        assert len(hashed) == 1, username
        assert "user name or the password is wrong" in answer.content.decode()
