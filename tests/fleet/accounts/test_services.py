"""Tokens, keys and the slowing of guesses."""

from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.contrib.auth import authenticate
from django.core.exceptions import ValidationError
from django.test import RequestFactory

from fleet.accounts import services
from fleet.accounts.forms import SignInForm
from fleet.accounts.models import ApiToken, SignInFailure, User
from fleet.audit.models import Entry
from fleet.core import clock
from fleet.core.errors import Invalid, TooMany
from tests.conftest import PASSWORD


def test_a_token_is_kept_as_a_digest_and_ends(owner: User) -> None:
    now = clock.now()
    secret = services.issue_token(owner, "laptop", timedelta(hours=1), now=now)
    assert secret.startswith("pat_")
    token = ApiToken.objects.get()
    assert secret not in token.digest
    assert services.use_token(secret, now=now) == owner
    assert services.use_token(secret + "x", now=now) is None
    assert services.use_token(secret, now=now + timedelta(hours=1)) is None
    owner.is_active = False
    owner.save()
    assert services.use_token(secret, now=now) is None


@pytest.mark.parametrize("life", [timedelta(0), timedelta(days=-1), timedelta(days=400)])
def test_a_tokens_life_is_bounded(owner: User, life: timedelta) -> None:
    with pytest.raises(Invalid, match="366 days"):
        services.issue_token(owner, "x", life)


def test_a_key_has_one_owner(owner: User, colleague: User) -> None:
    raw = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    key = services.add_key(owner, raw)
    assert services.add_key(owner, raw).pk == key.pk
    with pytest.raises(Invalid, match="somebody else"):
        services.add_key(colleague, raw)
    with pytest.raises(Invalid, match="32 bytes"):
        services.add_key(owner, raw[:-1])


def test_the_fingerprint_has_openssh_form() -> None:
    text = services.fingerprint(bytes(32))
    assert text.startswith("SHA256:")
    assert len(text) == 7 + 43


def _try(username: str, password: str, address: str = "10.0.0.1") -> User | None:
    request = RequestFactory().get("/", REMOTE_ADDR=address)
    user = authenticate(request, username=username, password=password)
    assert user is None or isinstance(user, User)
    return user


def test_guessing_is_slowed_for_the_guesser_and_not_for_the_owner(owner: User) -> None:
    for _ in range(services.MAX_FAILURES_PAIR):
        assert _try("owner", "wrong") is None
    assert _try("owner", PASSWORD) is None  # even with the right one
    assert _try("owner", PASSWORD, address="10.0.0.2") == owner


def audited() -> list[tuple[str, str, str, str]]:
    """(chain, action, actor, reason) of what is on record, all of it refused."""
    rows = Entry.objects.order_by("index")
    assert all(row.entry["outcome"] == "refused" for row in rows)
    return [(r.organisation_id, r.action, r.entry["actor"], r.entry["reason"]) for r in rows]


def test_failed_sign_ins_and_the_lock_are_in_the_organisations_audit(
    member: User, owner: User
) -> None:
    """R-ACC-1, R-ACC-10: of known people; a flood adds nothing while it is locked out."""
    for _ in range(40):
        _try("member", "wrong")
        _try("nobody-of-ours", "wrong")
    failed = ("north", "account:sign_in", "member", "wrong_password")
    locked = ("north", "account:lock", "member", "too_many_failures")
    assert audited() == [failed] * services.MAX_FAILURES_PAIR + [locked]
    for number in range(40):
        _try("member", "wrong", address=f"10.1.0.{number}")
    assert audited() == [failed] * 5 + [locked] + [failed] * 15 + [locked]


def test_a_closed_account_is_told_apart_on_record(member: User) -> None:
    User.objects.update(is_active=False)
    assert _try("member", PASSWORD) is None
    assert [row[-1] for row in audited()] == ["account_closed"]


def test_a_name_too_long_is_nobodys(member: User) -> None:
    _try("member" + "x" * 200, "wrong")
    assert audited() == []


def test_success_forgets_failures(owner: User) -> None:
    for _ in range(services.MAX_FAILURES_PAIR - 1):
        _try("owner", "wrong")
    assert _try("owner", PASSWORD) == owner
    assert not SignInFailure.objects.exists()


def test_a_hunt_over_many_addresses_or_names_is_slowed(owner: User) -> None:
    now = clock.now()
    for number in range(services.MAX_FAILURES_USERNAME):
        services.record_sign_in_failure(username="owner", address=f"10.1.0.{number}", now=now)
    assert _try("owner", PASSWORD) is None
    for number in range(services.MAX_FAILURES_ADDRESS):
        services.record_sign_in_failure(username=f"n{number}", address="10.9.9.9", now=now)
    with pytest.raises(TooMany):
        services.check_sign_in_rate(username="fresh", address="10.9.9.9", now=now)
    later = now + services.FAILURE_WINDOW
    services.check_sign_in_rate(username="owner", address="10.9.9.9", now=later)
    services.record_sign_in_failure(username="x", address="y", now=later)
    assert SignInFailure.objects.count() == 1  # the old ones are forgotten


def test_the_form_says_so(owner: User) -> None:
    request = RequestFactory().post("/", REMOTE_ADDR="10.0.0.1")
    data = {"username": "owner", "password": "wrong"}
    form = SignInForm(data, request=request)
    assert "capital letters" in form.errors["__all__"][0]
    for _ in range(5):
        SignInForm(data, request=request).is_valid()
    assert "Wait 15 minutes" in SignInForm(data, request=request).errors["__all__"][0]


def test_user_names_are_ids_of_the_wire(owner: User) -> None:
    for name in ("zoë", "a b", "a.b", "x" * 65, "a\n"):
        owner.username = name
        with pytest.raises(ValidationError):
            owner.full_clean()
