"""Asking for access, following a session, the service report (R-ACC-3, R-ACC-6, R-ACC-10)."""

from collections.abc import Callable

import pytest
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from agent.wire import challenge
from agent.wire.catalogue import SessionState
from fleet.access.models import Session
from fleet.accounts.models import User
from fleet.audit.models import Entry
from fleet.inventory.models import Device

S = SessionState
ANSWERS = {
    "level": "os", "services": ["ssh"], "reason": "repair", "ticket": "T-1",
    "note": "Drifts", "minutes": "30",
}  # fmt: skip


def test_asking_makes_a_session_and_sends_it(
    device: Device,
    owner: User,
    browser: Callable[[User], Client],
    ports: object,
    django_capture_on_commit_callbacks: Callable[..., object],
) -> None:
    with django_capture_on_commit_callbacks(execute=True):  # type: ignore[attr-defined]
        response = browser(owner).post(f"/devices/{device.pk}/request/", ANSWERS)
    session = Session.objects.get()
    assert response.headers["Location"] == f"/access/{session.pk}/"
    assert (session.level, session.services, session.life_s) == ("os", ["ssh"], 1800)
    assert [device_id for device_id, _message in ports.sent] == [device.pk]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"level": "service"}, "needs the level"),
        ({"level": ""}, "field is required"),
        ({"services": []}, "field is required"),
        ({"services": ["nothing"]}, "Select a valid choice"),
        ({"reason": "curiosity"}, "Select a valid choice"),
        ({"ticket": "with space"}, "letters, digits"),
        ({"note": "one\x07bell"}, "printable"),
        ({"note": "x" * 201}, "at most 200 characters"),
        ({"minutes": "9999"}, "Select a valid choice"),
    ],
)
def test_a_wrong_answer_is_said_beside_what_was_typed(
    change: dict[str, object],
    said: str,
    device: Device,
    owner: User,
    browser: Callable[[User], Client],
) -> None:
    response = browser(owner).post(f"/devices/{device.pk}/request/", {**ANSWERS, **change})
    assert response.status_code == 400
    text = response.content.decode()
    assert said in text
    assert not Session.objects.exists()
    if "ticket" not in change:
        assert 'value="T-1"' in text  # nothing that was typed is lost


def test_a_second_request_names_the_first(
    device: Device, owner: User, browser: Callable[[User], Client], reach: Callable[..., Session]
) -> None:
    first = reach(S.CHALLENGED)
    response = browser(owner).post(f"/devices/{device.pk}/request/", ANSWERS)
    assert response.status_code == 400
    assert first.pk in response.content.decode()


@pytest.mark.parametrize("state", list(S))
def test_every_state_is_shown_as_a_step(
    state: SessionState,
    owner: User,
    browser: Callable[[User], Client],
    reach: Callable[..., Session],
) -> None:
    session = reach(state)
    text = browser(owner).get(f"/access/{session.pk}/").content.decode()
    assert str(session.state_label) in text
    over = state.over
    assert ('aria-current="step"' in text) is not over
    assert (f"/access/{session.pk}/end/" in text) is not over
    shows_code = state in (S.CHALLENGED, S.PRESENCE, S.ACTIVE)
    if shows_code:
        assert challenge.code(bytes(session.challenge or b"")) in text
    assert ("Code to compare" in text) is shows_code
    assert (f"patency answer {session.pk}" in text) is (state is S.CHALLENGED)
    assert (f"patency forward {session.device.serial} ssh 2222" in text) is (state is S.ACTIVE)


def test_the_page_says_whether_the_two_records_agree(
    owner: User, browser: Callable[[User], Client], reach: Callable[..., Session]
) -> None:
    """R-ACC-10"""
    session = reach(S.ACTIVE)
    text = browser(owner).get(f"/access/{session.pk}/").content.decode()
    assert "own record has not arrived yet" in text
    row = Entry.objects.filter(session=session.pk).order_by("index")[1]
    Entry.objects.filter(pk=row.pk).update(entry={**row.entry, "actor": "nobody"})
    text = browser(owner).get(f"/access/{session.pk}/").content.decode()
    assert f"entry {row.index} is the first bad one" in text


def test_only_the_specialist_is_told_what_to_type(
    colleague: User,
    member: User,
    browser: Callable[[User], Client],
    reach: Callable[..., Session],
) -> None:
    session = reach(S.CHALLENGED)
    for reader in (colleague, member):
        assert (
            "patency answer" not in browser(reader).get(f"/access/{session.pk}/").content.decode()
        )


def test_who_may_end_is_offered_it_and_can(
    owner: User,
    member: User,
    colleague: User,
    administrator: User,
    browser: Callable[[User], Client],
    reach: Callable[..., Session],
) -> None:
    session = reach(S.ACTIVE)
    path = f"/access/{session.pk}/"
    offered = {
        user.username: f"{path}end/" in browser(user).get(path).content.decode()
        for user in (owner, member, administrator, colleague)
    }
    assert offered == {"owner": True, "member": True, "admin": True, "colleague": False}
    assert browser(colleague).post(path + "end/").status_code == 403
    assert browser(member).post(path + "end/").headers["Location"] == path
    session.refresh_from_db()
    assert (session.state, session.state_reason) == ("ended", "ended_by_hospital")
    again = browser(owner).post(path + "end/", follow=True)
    assert "over already" in again.content.decode()


def test_the_body_comes_alone_for_htmx(
    owner: User, browser: Callable[[User], Client], reach: Callable[..., Session]
) -> None:
    session = reach(S.PRESENCE)
    headers = {"HX-Request": "true", "HX-Target": "session"}
    text = browser(owner).get(f"/access/{session.pk}/", headers=headers).content.decode()
    assert "<html" not in text
    assert "Waiting for approval" in text


def test_the_list_does_not_ask_more_for_more(
    owner: User,
    browser: Callable[[User], Client],
    reach: Callable[..., Session],
    django_assert_max_num_queries: DjangoAssertNumQueries,
) -> None:
    reach(S.ENDED)
    reach(S.ENDED)
    open_one = reach(S.ACTIVE)
    client = browser(owner)
    with django_assert_max_num_queries(6):
        everything = client.get("/access/").content.decode()
    assert everything.count('<tr id="row-') == 3
    assert client.get("/access/?state=open").content.decode().count('<tr id="row-') == 1
    assert f"row-{open_one.pk}" in everything


def test_the_report_reads_and_verifies(
    owner: User, member: User, browser: Callable[[User], Client], reach: Callable[..., Session]
) -> None:
    session = reach(S.ENDED)
    for reader in (owner, member):
        text = browser(reader).get(f"/access/{session.pk}/report/").content.decode()
        assert "The portal’s chain verifies." in text
        assert "approver 1 at the injector" in text
        assert "Stopped at the injector’s panel" in text
        assert "has not arrived yet" in text  # no audit of the device in this test
