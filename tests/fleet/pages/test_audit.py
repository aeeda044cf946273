"""The audit page: what it lists, for whom, and verification (R-ACC-10)."""

from collections.abc import Callable

from django.test import Client
from pytest_django import DjangoAssertNumQueries

from agent.wire.catalogue import SessionState
from fleet.access.models import Session
from fleet.accounts.models import User
from fleet.audit.models import Entry

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
