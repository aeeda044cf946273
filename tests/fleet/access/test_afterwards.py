"""The ticket that was to follow, the handover note, the same again (R-ACC-3, R-ACC-10)."""

import hashlib
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.test import Client

from agent.wire import messages as m
from agent.wire.catalogue import SessionState
from fleet.access import afterwards, selectors
from fleet.access.models import Session
from fleet.accounts.models import User
from fleet.audit.models import Entry
from fleet.core import clock
from fleet.core.errors import Conflict, Invalid, NotAllowed
from fleet.inventory.models import Device
from tests.conftest import Ports

S = SessionState
Api = Callable[[User], Any]
Browser = Callable[[User], Client]
Reach = Callable[..., Session]
SESSIONS = "/api/v1/access/sessions/"


def audited(session: Session, action: str) -> list[tuple[str, str | None]]:
    rows = Entry.objects.filter(session=session.pk, action=action).order_by("index")
    return [(row.entry["actor"], row.entry["digest"]) for row in rows]


# --- the ticket -----------------------------------------------------------------------------------


def test_a_session_without_its_ticket_is_flagged_until_it_is_given(
    reach: Reach, owner: User, colleague: User, administrator: User, member: User,
    browser: Browser, api: Api,
) -> None:  # fmt: skip
    session = reach(S.ENDED, ticket="")
    path = f"/access/{session.pk}/"
    for user, listed in ((owner, True), (administrator, True), (colleague, False), (member, False)):
        assert (session in selectors.tickets_owed(user)) is listed
        page = browser(user).get("/access/").content.decode()
        assert ("Ticket to follow (1)" in page) is listed
        assert "ticket to follow" in page  # in the table, for everybody who may see the session
        assert ("Give the ticket" in browser(user).get(path).content.decode()) is listed
        assert "The ticket is to follow." in browser(user).get(path).content.decode()
        assert "ticket to follow" in browser(user).get(f"{path}report/").content.decode()
        rows = api(user).get(SESSIONS, {"ticket": "to_follow"}).json()["results"]
        assert [row["ticket_owed"] for row in rows] == ([True] if listed else [])

    assert browser(owner).post(f"{path}ticket/", {"ticket": "T-9"}).headers["Location"] == path
    session.refresh_from_db()
    assert (session.ticket, session.ticket_owed) == ("T-9", False)
    assert "Ticket to follow" not in browser(owner).get("/access/").content.decode()
    assert "T-9" in browser(member).get(f"{path}report/").content.decode()
    assert audited(session, "session:ticket") == [("owner", session.request_digest)]


@pytest.mark.parametrize(("state", "owed"), [(S.REQUESTED, True), (S.REFUSED, False)])
def test_what_never_began_owes_no_ticket(
    reach: Reach, owner: User, state: SessionState, owed: bool
) -> None:
    session = reach(state, ticket="")
    session.refresh_from_db()
    assert session.ticket_owed is owed
    assert selectors.tickets_owed(owner).exists() is owed


def test_a_ticket_is_given_once(
    reach: Reach, api: Api, owner: User, colleague: User, administrator: User, member: User,
    stranger: User,
) -> None:  # fmt: skip
    session = reach(S.ACTIVE, ticket="")
    url = f"{SESSIONS}{session.pk}/ticket/"
    assert api(stranger).post(url, {"ticket": "T-9"}, format="json").status_code == 404
    for user in (colleague, member):
        assert api(user).post(url, {"ticket": "T-9"}, format="json").status_code == 403
    for wrong in ("", "T 9", "é", "T" * 33):
        assert api(owner).post(url, {"ticket": wrong}, format="json").status_code == 400
    assert api(administrator).post(url, {"ticket": "T-9"}, format="json").json()["ticket"] == "T-9"
    assert api(owner).post(url, {"ticket": "T-9"}, format="json").status_code == 200
    assert api(owner).post(url, {"ticket": "T-8"}, format="json").status_code == 409
    assert [actor for actor, _digest in audited(session, "session:ticket")] == ["admin"]


def test_a_wrong_ticket_is_said_beside_what_was_typed(
    reach: Reach, owner: User, browser: Browser
) -> None:
    session = reach(S.ACTIVE, ticket="")
    answer = browser(owner).post(f"/access/{session.pk}/ticket/", {"ticket": "T 9"})
    assert answer.status_code == 400
    assert 'value="T 9"' in answer.content.decode()


# --- the handover note ----------------------------------------------------------------------------


def test_a_handover_note_stays_here_and_the_hospital_reads_it(
    reach: Reach, owner: User, member: User, browser: Browser, ports: Ports
) -> None:
    """R-PRV-1: nothing of it goes to the injector, or into the audit but its digest."""
    session = reach(S.ACTIVE)
    sent = len(ports.sent)
    path = f"/access/{session.pk}/"
    form = browser(owner).get(f"{path}handover/").content.decode()
    assert "No patient" in form
    text = "Sensor B replaced.\r\nPressure drift <remains> to be seen."
    assert browser(owner).post(f"{path}handover/", {"text": text}).headers["Location"] == path
    session.refresh_from_db()
    assert session.handover == "Sensor B replaced.\nPressure drift <remains> to be seen."
    for where in (path, f"{path}report/"):
        page = browser(member).get(where).content.decode()
        assert "Pressure drift &lt;remains&gt; to be seen." in page
    assert len(ports.sent) == sent
    digest = hashlib.sha256(session.handover.encode()).hexdigest()
    assert audited(session, "session:handover") == [("owner", digest)]


def test_who_writes_it_and_until_when(
    reach: Reach, owner: User, colleague: User, administrator: User, member: User, api: Api,
    now: datetime,
) -> None:  # fmt: skip
    session = reach(S.ENDED)
    url = f"{SESSIONS}{session.pk}/handover/"
    for user in (colleague, administrator, member):
        assert api(user).post(url, {"text": "Mine"}, format="json").status_code == 403
    ended = now - timedelta(hours=23)
    Session.objects.update(ended_at=ended)
    assert api(owner).post(url, {"text": "One"}, format="json").json()["handover"] == "One"
    assert api(owner).post(url, {"text": "Two"}, format="json").json()["handover"] == "Two"
    Session.objects.update(ended_at=now - timedelta(hours=25))
    answer = api(owner).post(url, {"text": "Three"}, format="json")
    assert (answer.status_code, "within a day" in answer.json()["detail"]) == (409, True)
    assert len(audited(session, "session:handover")) == 2


@pytest.mark.parametrize("state", [S.REQUESTED, S.PRESENCE, S.REFUSED])
def test_before_it_was_active_there_is_nothing_to_hand_over(
    reach: Reach, owner: User, state: SessionState
) -> None:
    session = reach(state)
    session.refresh_from_db()
    assert not afterwards.may_write_handover(owner, session, clock.now())
    with pytest.raises(Conflict, match="is or was active"):
        afterwards.write_handover(actor=owner, session=session, text="x", now=clock.now())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("  \n", "Write"),
        ("x" * 2001, "2000"),
        ("a\x1b[31m", "printable"),
        ("a\u202eb", "printable"),
    ],
)
def test_a_note_that_cannot_be_kept(reach: Reach, owner: User, text: str, says: str) -> None:
    session = reach(S.ACTIVE)
    with pytest.raises(Invalid, match=says):
        afterwards.write_handover(actor=owner, session=session, text=text, now=clock.now())
    session.refresh_from_db()
    assert session.handover == ""


# --- the same again -------------------------------------------------------------------------------


def test_the_same_again_is_a_new_request(
    reach: Reach, owner: User, browser: Browser, ports: Ports,
    django_capture_on_commit_callbacks: Any,
) -> None:  # fmt: skip
    first = reach(S.ENDED)
    path = f"/access/{first.pk}/"
    client = browser(owner)
    assert f"{path}again/" in client.get(path).content.decode()
    with django_capture_on_commit_callbacks(execute=True):
        where = client.post(f"{path}again/").headers["Location"]
    second = Session.objects.exclude(pk=first.pk).get()
    assert where == f"/access/{second.pk}/"
    terms = ("device_id", "level", "services", "reason", "ticket", "note", "life_s")
    assert [getattr(first, n) for n in terms] == [getattr(second, n) for n in terms]
    assert second.state == S.REQUESTED
    _device, message = ports.sent[-1]
    assert isinstance(message, m.AccessRequest)
    assert message.session == second.pk
    # One session at a time: the second press says so, where the first is over.
    said = client.post(f"{path}again/", follow=True).content.decode()
    assert second.pk in said
    assert Session.objects.count() == 2


def test_nobody_else_asks_again_nor_while_it_is_open(
    reach: Reach, api: Api, owner: User, colleague: User, member: User, device: Device
) -> None:
    session = reach(S.ACTIVE)
    url = f"{SESSIONS}{session.pk}/again/"
    assert api(owner).post(url).status_code == 409
    Session.objects.update(state=S.ENDED)
    for user in (colleague, member):
        assert api(user).post(url).status_code == 403
    Device.objects.update(remote_enabled=False)
    assert api(owner).post(url).json()["reason"] == "remote_off"
    with pytest.raises(NotAllowed):
        afterwards.again(actor=colleague, session=session, now=clock.now())
