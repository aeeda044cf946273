"""The audit page: what it lists, for whom, and verification (R-ACC-10)."""

from collections.abc import Callable

from django.test import Client
from pytest_django import DjangoAssertNumQueries
from rest_framework.test import APIClient

from agent.wire.catalogue import SessionState
from fleet.access.models import Session
from fleet.accounts.models import User
from fleet.audit.models import Entry
from fleet.inventory.models import Device

S = SessionState


def test_the_list_names_what_was_done(
    reach: Callable[..., Session],
    administrator: User,
    browser: Callable[[User], Client],
    django_assert_max_num_queries: DjangoAssertNumQueries,
) -> None:
    session = reach(S.ENDED)
    client = browser(administrator)
    with django_assert_max_num_queries(8):
        text = client.get("/audit/").content.decode()
    assert "Access asked for" in text
    assert f"/access/{session.pk}/" in text
    assert text.count("<tr>") == 1 + Entry.objects.count()
    only = client.get("/audit/?action=session:request").content.decode()
    assert only.count("<tr>") == 2
    assert client.get("/audit/?side=device&action=nonsense&page=x").status_code == 200


def test_verifying_names_the_first_bad_entry(
    reach: Callable[..., Session],
    administrator: User,
    owner: User,
    browser: Callable[[User], Client],
) -> None:
    reach(S.CHALLENGED)
    client = browser(administrator)
    assert "verifies" in client.post("/audit/verify/").content.decode()
    row = Entry.objects.order_by("index")[1]
    Entry.objects.filter(pk=row.pk).update(entry={**row.entry, "actor": "somebody"})
    assert "first bad entry: 1" in client.post("/audit/verify/").content.decode()
    assert browser(owner).post("/audit/verify/").status_code == 403
    assert client.get("/audit/verify/").status_code == 405


def test_refusals_of_the_portal_stand_there_in_words(
    device: Device, owner: User, member: User, api: Callable[[User], APIClient],
    browser: Callable[[User], Client],
) -> None:  # fmt: skip
    """R-ACC-10, R-ASR-4."""
    asked = {"device": device.pk, "level": "service", "services": ["ssh"], "reason": "repair"}
    api(owner).post("/api/v1/access/sessions/", asked, format="json")
    Client().post("/sign-in/", {"username": "member", "password": "wrong"})
    text = browser(member).get("/audit/").content.decode()
    for words in ("A service needs a higher level", "Sign-in", "Wrong password", "Refused"):
        assert words in text
    User.objects.update(language="fr-ca")
    text = browser(User.objects.get(pk=member.pk)).get("/audit/").content.decode()
    assert "Mot de passe erroné" in text
    assert "wrong_password" not in text
