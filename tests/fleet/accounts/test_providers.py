"""OpenID providers (R-ACC-1): whom one signs in, and how it, or somebody, may lie."""

from collections.abc import Callable, Iterator
from io import StringIO
from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialAccount
from django.core.management import CommandError, call_command
from django.test import Client

from fleet.accounts import people, providers
from fleet.accounts.models import IdentityProvider, Organisation, Role, User
from fleet.audit.models import Entry
from fleet.core import clock
from fleet.core.errors import Conflict, Invalid, NotFound
from tests.conftest import PASSWORD
from tests.mfa import code, give_app
from tests.oidc import OpenIDProvider, sign_in, target_of


@pytest.fixture(scope="module")
def started() -> Iterator[OpenIDProvider]:
    with OpenIDProvider() as provider:
        yield provider


@pytest.fixture
def provider(started: OpenIDProvider) -> OpenIDProvider:
    started.lie, started.userinfo = "", None
    started.claims = {"sub": "s-1", "email": "mia@north.example", "email_verified": True}
    return started


def _add(organisation: Organisation, provider: OpenIDProvider, **more: Any) -> IdentityProvider:
    options: dict[str, Any] = {
        "name": f"{organisation.name} ID", "issuer": provider.issuer, "client_id": "portal",
        "client_secret": "s3cret", "domain_names": [f"{organisation.pk}.example"],
        "actor": "portal", "now": clock.now(),
    }  # fmt: skip
    return providers.add(organisation, **{**options, **more})


@pytest.fixture
def row(hospital: Organisation, provider: OpenIDProvider) -> IdentityProvider:
    return _add(hospital, provider)


@pytest.fixture
def mia(hospital: Organisation) -> User:
    """Invited, with no password."""
    return people.invite(
        hospital, username="mia", role=Role.HOSPITAL, email="mia@north.example", first_name="Mia",
        last_name="North", password=None, actor="portal", now=clock.now(),
    )  # fmt: skip


def _in(client: Client) -> bool:
    return client.get("/devices/").status_code == 200


def _last() -> tuple[str, str, str | None]:
    entry = Entry.objects.order_by("pk").values_list("entry", flat=True).last()
    assert entry is not None
    return entry["action"], entry["outcome"], entry["reason"]


def test_an_invited_person_comes_in_and_is_linked(
    row: IdentityProvider, mia: User, provider: OpenIDProvider
) -> None:
    client = Client()
    answer = sign_in(client, provider, row.pk, next="/jobs/")
    assert answer["Location"] == "/jobs/"
    assert _in(client)
    link = SocialAccount.objects.get()
    assert (link.user_id, link.provider, link.uid) == (mia.pk, row.pk, "s-1")
    assert link.extra_data == {}, "nothing else of them is kept"
    assert _last() == ("account:sign_in", "allowed", "provider")
    # What was asked for, and how.
    assert set(provider.asked["scope"].split()) == {"openid", "email"}
    assert provider.asked["max_age"] == "43200", "so that it says when it saw the person"
    assert provider.asked["code_challenge_method"] == "S256"
    assert provider.exchanged["code_verifier"]
    # From now on the subject is who it is, whatever the address says.
    provider.claims |= {"email": "renamed@elsewhere.example", "email_verified": False}
    again = Client()
    sign_in(again, provider, row.pk)
    assert _in(again)


def test_the_organisation_is_found_by_the_address(
    row: IdentityProvider, mia: User, provider: OpenIDProvider
) -> None:
    client = Client()
    answer = client.post("/sign-in/organisation/", {"email": "Mia@NORTH.example"})
    target = target_of(answer)
    assert target.startswith(provider.issuer + "/auth?")
    assert "login_hint=Mia%40NORTH.example" in target
    unknown = client.post("/sign-in/organisation/", {"email": "mia@other.example"})
    assert "No organisation signs in here" in unknown.content.decode()


def test_the_address_may_come_by_userinfo(
    row: IdentityProvider, mia: User, provider: OpenIDProvider
) -> None:
    provider.claims = {"sub": "s-1"}
    provider.userinfo = {"email": "mia@north.example", "email_verified": True}
    client = Client()
    sign_in(client, provider, row.pk)
    assert _in(client)


@pytest.mark.parametrize(
    "lie",
    [
        "issuer", "discovery", "x", "key", "audience", "azp", "expired", "nonce", "no_nonce",
        "none", "hs256", "no_subject", "long_subject", "no_token", "refuses", "no_json",
    ],
)  # fmt: skip
def test_a_wrong_answer_signs_nobody_in(
    lie: str, row: IdentityProvider, mia: User, provider: OpenIDProvider
) -> None:
    client = Client()
    if lie in ("discovery", "x", "no_json"):
        provider.lie = lie
        answer = client.post(f"/sign-in/with/{row.pk}/")
    else:
        address = target_of(client.post(f"/sign-in/with/{row.pk}/"))
        provider.lie = lie
        answer = client.get(f"/sign-in/with/{row.pk}/back/", provider.authorize(address))
    assert answer.status_code == 403
    assert "is not valid" in answer.content.decode()
    assert not _in(client)
    assert not SocialAccount.objects.exists()
    assert _last() == ("account:sign_in", "refused", "provider_wrong")


def test_userinfo_of_another_subject_signs_nobody_in(
    row: IdentityProvider, mia: User, provider: OpenIDProvider
) -> None:
    provider.claims = {"sub": "s-1"}
    provider.userinfo = {"email": "mia@north.example", "email_verified": True}
    provider.lie = "userinfo"
    client = Client()
    assert "is not valid" in sign_in(client, provider, row.pk).content.decode()
    assert not _in(client)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_provider_that_is_down_says_so(
    when: str, row: IdentityProvider, mia: User, provider: OpenIDProvider
) -> None:
    client = Client()
    if when == "before":
        provider.lie = "down"
        answer = client.post(f"/sign-in/with/{row.pk}/")
    else:
        address = target_of(client.post(f"/sign-in/with/{row.pk}/"))
        provider.lie = "down"
        answer = client.get(f"/sign-in/with/{row.pk}/back/", provider.authorize(address))
    assert answer.status_code == 503
    assert "cannot be reached now" in answer.content.decode()
    assert _last()[2] == "provider_away"


def test_a_provider_that_is_not_there_says_so(hospital: Organisation, mia: User) -> None:
    with OpenIDProvider() as gone:
        row = _add(hospital, gone)
    assert Client().post(f"/sign-in/with/{row.pk}/").status_code == 503


@pytest.mark.parametrize(
    ("claims", "reason", "words"),
    [
        ({"email_verified": False}, "email_unverified", "has not verified"),
        ({"email_verified": "true"}, "email_unverified", "has not verified"),
        ({"email": "eve@north.example"}, "not_invited", "Ask an administrator"),
        ({"email": "mia@sud.example"}, "not_invited", "Ask an administrator"),
        ({"email": "mia@north.example.evil.example"}, "not_invited", "Ask an administrator"),
        ({"email": "evil@north.example,mia@north.example"}, "not_invited", "Ask an administrator"),
        ({"email": ""}, "not_invited", "Ask an administrator"),
    ],
)
def test_who_was_not_invited_stays_out(
    claims: dict[str, Any], reason: str, words: str, row: IdentityProvider, mia: User,
    provider: OpenIDProvider,
) -> None:  # fmt: skip
    provider.claims |= claims
    client = Client()
    answer = sign_in(client, provider, row.pk)
    assert answer.status_code == 403
    assert words in answer.content.decode()
    assert not _in(client)
    assert _last() == ("account:sign_in", "refused", reason)
    assert User.objects.count() == 1, "nobody is signed up"


def test_no_provider_brings_in_people_of_another_organisation(
    row: IdentityProvider, mia: User, other_hospital: Organisation, stranger: User
) -> None:
    """THREATS: a user of organisation A never through organisation B's provider."""
    with OpenIDProvider() as evil:
        other = _add(other_hospital, evil)
        evil.claims = {"sub": "s-1", "email": "mia@north.example", "email_verified": True}
        client = Client()
        assert sign_in(client, evil, other.pk).status_code == 403
        assert not _in(client)
        # Nor when the person was linked and has moved since.
        User.objects.filter(pk=stranger.pk).update(email="sam@sud.example")
        evil.claims["email"] = "sam@sud.example"
        sign_in(client, evil, other.pk)
        assert _in(client)
        User.objects.filter(pk=stranger.pk).update(organisation=row.organisation)
        again = Client()
        assert sign_in(again, evil, other.pk).status_code == 403
        assert not _in(again)
        # Nor with an answer that another provider's question was for.
        address = target_of(client.post(f"/sign-in/with/{other.pk}/"))
        mixed = client.get(f"/sign-in/with/{row.pk}/back/", evil.authorize(address))
        assert "begun in another browser" in mixed.content.decode()


def test_a_linked_person_is_not_taken_over_by_a_second_subject(
    row: IdentityProvider, mia: User, provider: OpenIDProvider
) -> None:
    """An address that was given to somebody else at the provider opens nothing here."""
    sign_in(Client(), provider, row.pk)
    provider.claims["sub"] = "s-2"
    client = Client()
    assert sign_in(client, provider, row.pk).status_code == 403
    assert not _in(client)


def test_an_answer_is_taken_once_and_in_its_own_browser(
    row: IdentityProvider, mia: User, provider: OpenIDProvider
) -> None:
    """Replayed state, and login CSRF: an answer that another browser's question was for."""
    client = Client()
    address = target_of(client.post(f"/sign-in/with/{row.pk}/"))
    back = provider.authorize(address)
    victim = Client()
    assert victim.get(f"/sign-in/with/{row.pk}/back/", back).status_code == 403
    assert not _in(victim)
    client.get(f"/sign-in/with/{row.pk}/back/", back)
    assert _in(client)
    client.post("/sign-out/")
    replayed = client.get(f"/sign-in/with/{row.pk}/back/", back)
    assert "Begin again" in replayed.content.decode()
    assert not _in(client)
    for nothing in ({}, {"state": "x", "code": "c"}, {"code": "c"}):
        assert client.get(f"/sign-in/with/{row.pk}/back/", nothing).status_code == 403
    left = Client()
    address = target_of(left.post(f"/sign-in/with/{row.pk}/"))
    state = provider.authorize(address)["state"]
    answer = left.get(f"/sign-in/with/{row.pk}/back/", {"error": "access_denied", "state": state})
    assert "You left the sign-in" in answer.content.decode()


def test_a_strangers_page_begins_nothing_and_adds_nothing(
    row: IdentityProvider, mia: User, provider: OpenIDProvider
) -> None:
    path = f"/sign-in/with/{row.pk}/"
    assert "Continue to" in Client().get(path).content.decode(), "a button, and no more"
    assert Client(enforce_csrf_checks=True).post(path).status_code == 403
    assert Client(enforce_csrf_checks=True).post("/sign-in/organisation/").status_code == 403
    query = "?scope=admin&auth_params=prompt%3Dnone&process=connect&next=https://evil.example/"
    client = Client()
    target = target_of(client.post(path + query))
    assert "admin" not in target
    assert "prompt" not in target
    back = client.get(f"{path}back/", provider.authorize(target))
    assert back["Location"] == "/"
    assert Client(headers={"host": "evil.example"}).post(path).status_code == 400


def test_behind_a_proxy_that_ends_tls_it_comes_back_by_https(
    row: IdentityProvider, provider: OpenIDProvider, settings: Any
) -> None:
    settings.SESSION_COOKIE_SECURE = True
    provider.authorize(target_of(Client().post(f"/sign-in/with/{row.pk}/")))
    assert provider.asked["redirect_uri"] == f"https://testserver/sign-in/with/{row.pk}/back/"
    answer = Client().post("/api/v1/sign-in/device/", {"client_id": "patency"})
    assert answer.json()["verification_uri"] == "https://testserver/connect/"


@pytest.mark.parametrize("next_url", ["https://evil.example/", "//evil.example", "/\\evil.example"])
def test_it_leads_nowhere_else(
    next_url: str, row: IdentityProvider, mia: User, provider: OpenIDProvider
) -> None:
    assert sign_in(Client(), provider, row.pk, next=next_url)["Location"] == "/"


def test_a_provider_that_is_switched_off_is_like_none(
    row: IdentityProvider, mia: User, provider: OpenIDProvider
) -> None:
    client = Client()
    address = target_of(client.post(f"/sign-in/with/{row.pk}/"))
    providers.change(row.pk, actor="portal", now=clock.now(), enabled=False)
    back = provider.authorize(address)
    assert client.get(f"/sign-in/with/{row.pk}/back/", back).status_code == 404
    assert client.post(f"/sign-in/with/{row.pk}/").status_code == 404
    assert client.get("/sign-in/with/none-such/").status_code == 404
    assert providers.for_email("mia@north.example") is None


# --- required, and the second factor ------------------------------------------------------------


def test_an_organisation_can_insist_on_its_provider(
    row: IdentityProvider, member: User, mia: User, provider: OpenIDProvider
) -> None:
    providers.change(row.pk, actor="portal", now=clock.now(), required=True)
    client = Client()
    right = {"username": "member", "password": PASSWORD}
    answer = client.post("/sign-in/", right, follow=True)
    assert "signs in with North Hospital ID alone" in answer.content.decode()
    assert not _in(client)
    assert _last() == ("account:sign_in", "refused", "provider_required")
    sign_in(client, provider, row.pk)
    assert _in(client)


@pytest.fixture
def vera(vendor: Organisation) -> User:
    return people.invite(
        vendor, username="vera", role=Role.SPECIALIST, email="vera@vendor.example",
        first_name="Vera", last_name="V", password=None, actor="portal", now=clock.now(),
    )  # fmt: skip


@pytest.mark.parametrize("trusted", [False, True])
@pytest.mark.parametrize("amr", [None, ["pwd"], ["pwd", "mfa"], "mfa"])
def test_a_providers_word_for_the_second_factor(
    trusted: bool, amr: Any, vendor: Organisation, vera: User, provider: OpenIDProvider
) -> None:
    """Off by default; then “mfa” in amr, and nothing else."""
    row = _add(vendor, provider, trusts_mfa=trusted)
    provider.claims |= {"email": "vera@vendor.example", "amr": amr}
    client = Client()
    sign_in(client, provider, row.pk)
    if trusted and amr == ["pwd", "mfa"]:
        assert _in(client)
    else:
        assert client.get("/devices/")["Location"] == "/account/security/needed/"


def test_an_app_is_asked_for_after_the_provider(
    vendor: Organisation, vera: User, provider: OpenIDProvider
) -> None:
    row = _add(vendor, provider)
    give_app(vera)
    provider.claims["email"] = "vera@vendor.example"
    client = Client()
    assert sign_in(client, provider, row.pk, next="/jobs/")["Location"] == "/sign-in/code/"
    assert not _in(client)
    assert client.post("/sign-in/code/", {"code": code()})["Location"] == "/jobs/"
    assert _last() == ("account:sign_in", "allowed", "provider_totp")


def test_confirming_with_the_provider_asks_it_to_ask(
    row: IdentityProvider, mia: User, provider: OpenIDProvider
) -> None:
    """Whom the provider remembers for hours has not been seen just now."""
    provider.claims["auth_time"] = 0
    client = Client()
    sign_in(client, provider, row.pk)
    assert client.get("/account/security/passkeys/new/").status_code == 302
    page = client.get("/account/confirm/").content.decode()
    assert "Sign in again with North Hospital ID" in page
    provider.claims.pop("auth_time")
    sign_in(client, provider, row.pk, next="/account/security/passkeys/new/")
    assert provider.asked["prompt"] == "login"
    assert provider.asked["max_age"] == "0"
    assert client.get("/account/security/passkeys/new/").status_code == 200


# --- by hand --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "issuer",
    ["", "http://login.example", "ftp://x", "https://", "https://a/?x=1", "https://a/#f", "login"],
)
def test_an_issuer_is_https(hospital: Organisation, provider: OpenIDProvider, issuer: str) -> None:
    with pytest.raises(Invalid, match="issuer"):
        _add(hospital, provider, issuer=issuer)


def test_a_domain_has_one_provider(
    row: IdentityProvider, other_hospital: Organisation, provider: OpenIDProvider
) -> None:
    with pytest.raises(Conflict, match="another provider"):
        _add(other_hospital, provider, domain_names=["NORTH.example"])
    for wrong in ([], ["no domain"], [""]):
        with pytest.raises(Invalid):
            _add(other_hospital, provider, domain_names=wrong)
    with pytest.raises(Invalid, match="does not change"):
        providers.change(row.pk, actor="portal", now=clock.now(), issuer="https://a.example")
    with pytest.raises(NotFound):
        providers.change("none", actor="portal", now=clock.now())


def test_the_clients_secret_is_sealed(row: IdentityProvider) -> None:
    row.refresh_from_db()
    assert "s3cret" not in row.secret
    assert providers.secret(row) == "s3cret"


def test_the_commands(
    hospital: Organisation, vendor: Organisation, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = StringIO()
    monkeypatch.setattr("sys.stdin", StringIO("s3cret\n"))
    call_command(
        "provider", "add", "North Hospital", "--name", "North ID", "--issuer",
        "https://login.north.example", "--client-id", "p", "--domain", "north.example",
        stdout=out, stderr=StringIO(),
    )  # fmt: skip
    row = IdentityProvider.objects.get()
    assert out.getvalue().strip() == row.pk
    assert (row.enabled, row.required, row.trusts_mfa) == (True, False, False)
    monkeypatch.setattr("sys.stdin", StringIO("another\n"))
    call_command("provider", "change", row.pk, "--required", "--secret", "--domain", "n.example")
    row.refresh_from_db()
    assert (row.required, row.domains, providers.secret(row)) == (True, "n.example", "another")
    call_command("provider", "show", stdout=out)
    assert "https://login.north.example" in out.getvalue()
    with pytest.raises(CommandError, match="Those there are: North Hospital, Vendor"):
        call_command("person", "invite", "Nowhere", "x", "--role", "hospital")

    call_command(
        "person", "invite", "north", "mia", "--role", "hospital", "--email", "Mia@n.example"
    )
    mia = User.objects.get(username="mia")
    assert (mia.email, mia.has_usable_password()) == ("mia@n.example", False)
    for wrong in (
        ["vendor", "eve", "--role", "hospital"],
        ["north", "eve", "--role", "specialist"],
        ["north", "eve", "--role", "hospital", "--email", "MIA@n.example"],
        ["north", "e v e", "--role", "hospital"],
    ):
        with pytest.raises(CommandError):
            call_command("person", "invite", *wrong)
    monkeypatch.setattr("sys.stdin", StringIO("short\n"))
    with pytest.raises(CommandError, match="12"):
        call_command("person", "invite", "north", "eve", "--role", "hospital", "--password")
    call_command("person", "link", "mia", "--provider", row.pk, "--subject", "s-9")
    assert SocialAccount.objects.get().uid == "s-9"
    with pytest.raises(CommandError, match="Another subject"):
        call_command("person", "link", "mia", "--provider", row.pk, "--subject", "s-10")


def test_a_lost_telephone(member: User, browser: Callable[[User], Client], api: Any) -> None:
    """After a reset nothing of before lets anybody in, and a factor is set up again."""
    client, program = browser(member), api(member)
    people.reset(member, actor="portal", now=clock.now())
    assert not Authenticator.objects.filter(user=member).exists()
    assert program.get("/api/v1/me/").status_code == 401
    assert _last()[0] == "account:reset"
    call_command("person", "close", "member")
    assert client.get("/devices/").status_code == 302
    call_command("person", "open", "member")
    with pytest.raises(CommandError, match="nobody"):
        call_command("person", "reset", "nobody")
