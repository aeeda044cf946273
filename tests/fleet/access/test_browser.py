"""Links to the browser client, the passes they become, and the calls these open (R-ACC-4, R-ACC-2).

The access origin is another origin on purpose: what it may call is exactly these, and what it holds
is good for one session.
"""

import base64
import json
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
from django.test import Client

from agent.wire.catalogue import SessionState
from agent.wire.messages import Proof
from fleet.access import passes
from fleet.access.models import BrowserPass, Session
from fleet.accounts.models import User
from fleet.accounts.selectors import token_digest
from fleet.accounts.services import issue_token
from fleet.audit.models import Entry
from fleet.core import clock
from fleet.core.errors import Conflict, NotAllowed
from tests.fleet.access.conftest import CLIENT_KEY
from tests.fleet.routes import ROUTES

S = SessionState
Reach = Callable[..., Session]
ORIGIN = "https://access.example"
API = "/api/v1/access/browser/"
CALLS = {"pass/": "POST", "session/": "GET", "session/answer/": "POST", "session/end/": "POST"}


@pytest.fixture(autouse=True)
def access_origin(settings: Any) -> None:
    settings.PATENCY_ACCESS_ORIGIN = ORIGIN


@pytest.fixture
def session(reach: Reach) -> Session:
    return reach(S.CHALLENGED, services=["console"])


def ticket_of(address: str) -> str:
    [ticket] = parse_qs(urlsplit(address).fragment)["ticket"]
    return ticket


def link(session: Session, now: datetime | None = None) -> str:
    return passes.link(actor=session.specialist, session=session, now=now or clock.now())


def token_for(session: Session) -> str:
    found = passes.redeem(ticket_of(link(session)), now=clock.now())
    assert found is not None
    assert found[0].pk == session.pk
    return found[1]


def call(path: str, token: str | None = None, body: Any = None, **headers: str) -> Any:
    """As a page of the access origin makes it."""
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    headers = {"Origin": ORIGIN, **headers}
    method = CALLS[path]
    data = "" if body is None else json.dumps(body)
    return Client().generic(
        method, API + path, data, content_type="application/json", headers=headers
    )


# --- links --------------------------------------------------------------------------------------


def test_a_link_leads_to_the_access_origin_and_says_nothing_to_its_server(session: Session) -> None:
    address = urlsplit(link(session))
    assert f"{address.scheme}://{address.netloc}{address.path}" == f"{ORIGIN}/"
    assert not address.query
    assert parse_qs(address.fragment)["session"] == [session.pk]
    row = BrowserPass.objects.get()
    assert row.ticket_digest == token_digest(ticket_of(address.geturl()))
    assert row.token_digest is None
    assert Entry.objects.filter(session=session.pk, action="session:link").count() == 1


def test_only_the_specialist_who_asked_gets_one(
    session: Session, member: User, stranger: User, reach: Reach
) -> None:
    for other in (member, stranger):
        assert not passes.offered(other, session)
        with pytest.raises(NotAllowed):
            passes.link(actor=other, session=session, now=clock.now())
    assert not BrowserPass.objects.exists()


@pytest.mark.parametrize("state", [S.ENDED, S.REFUSED, S.EXPIRED])
def test_a_session_that_is_over_gets_none(reach: Reach, state: S) -> None:
    with pytest.raises(Conflict):
        link(reach(state, services=["console"]))


def test_a_session_without_a_terminal_or_an_access_origin_gets_none(
    reach: Reach, settings: Any
) -> None:
    bare = reach(S.CHALLENGED, services=["ssh"])
    with pytest.raises(Conflict):
        link(bare)
    bare.services = ["ssh", "console"]
    assert link(bare)
    settings.PATENCY_ACCESS_ORIGIN = ""
    with pytest.raises(Conflict):
        link(bare)


def test_a_ticket_works_once_and_for_five_minutes(session: Session) -> None:
    now = clock.now()
    first = ticket_of(link(session, now))
    late = now + passes.TICKET_LIFE
    assert passes.redeem(first, now=late) is None
    assert passes.redeem(first, now=late - timedelta(seconds=1)) is not None
    assert passes.redeem(first, now=now) is None
    assert passes.redeem("another", now=now) is None
    outcomes = Entry.objects.filter(session=session.pk, action="session:browser").order_by("index")
    assert [row.entry["outcome"] for row in outcomes] == ["refused", "allowed", "refused"]


def test_the_newest_link_alone_works(session: Session) -> None:
    first, second = ticket_of(link(session)), ticket_of(link(session))
    assert passes.redeem(first, now=clock.now()) is None
    assert passes.redeem(second, now=clock.now()) is not None


def test_links_of_a_session_are_bounded(session: Session) -> None:
    for _ in range(50):
        token_for(session)
    with pytest.raises(Conflict):
        link(session)


# --- passes -------------------------------------------------------------------------------------


def test_a_pass_opens_its_own_session_and_nothing_else(session: Session, owner: User) -> None:
    token = token_for(session)
    shown = call("session/", token)
    assert shown.status_code == 200
    assert shown.json()["session"] == session.pk
    assert shown.json()["state"] == "challenged"
    headers = {"Authorization": f"Bearer {token}"}
    for path in ("/api/v1/me/", "/api/v1/access/sessions/", "/api/v1/devices/",
                 f"/api/v1/access/sessions/{session.pk}/"):  # fmt: skip
        assert Client().get(path, headers=headers).status_code == 401


def test_another_token_opens_none_of_the_calls(
    session: Session, owner: User, browser: Callable[[User], Client]
) -> None:
    tokens = [issue_token(owner, "t", timedelta(hours=1)), "", "x" * 300,
              ticket_of(link(session))]  # fmt: skip
    for path in list(CALLS)[1:]:
        for token in tokens:
            assert call(path, token, {}).status_code == 401
        assert call(path, None, {}).status_code == 401
    assert browser(owner).get(f"{API}session/").status_code == 401  # a cookie is no pass


def test_the_whole_way_by_calls(
    session: Session, sign: Callable[[Session], Proof], client: Client
) -> None:
    given = call("pass/", None, {"ticket": ticket_of(link(session))})
    assert given.status_code == 200
    assert given.json()["session"] == session.pk
    token = given.json()["token"]
    assert call("pass/", None, {"ticket": "nothing"}).status_code == 401
    assert call("pass/", None, {}).status_code == 400
    body = {
        "client_key": base64.b64encode(CLIENT_KEY).decode(),
        "proof": msgspec.to_builtins(sign(session)),
    }
    answered = call("session/answer/", token, body)
    assert answered.status_code == 200, answered.content
    session.refresh_from_db()
    assert session.answered_at is not None
    ended = call("session/end/", token)
    assert ended.json()["state"] == "ended"
    assert call("session/", token).json()["state_reason"] == "ended_by_specialist"


def test_a_pass_is_over_soon_after_its_session(session: Session) -> None:
    token = token_for(session)
    call("session/end/", token)
    session.refresh_from_db()
    assert session.ended_at is not None
    assert passes.bearer_of(token, now=session.ended_at + passes.LAST_LOOK) is not None
    after = session.ended_at + passes.LAST_LOOK + timedelta(seconds=1)
    assert passes.bearer_of(token, now=after) is None


def test_a_pass_is_over_with_its_person(session: Session, owner: User) -> None:
    token = token_for(session)
    User.objects.filter(pk=owner.pk).update(is_active=False)
    assert call("session/", token).status_code == 401


# --- other origins ------------------------------------------------------------------------------


@pytest.mark.parametrize("path", CALLS)
def test_pages_of_the_access_origin_may_call(session: Session, path: str) -> None:
    asked = Client().options(API + path, headers={"Origin": ORIGIN})
    assert asked.status_code == 204
    assert asked["Access-Control-Allow-Origin"] == ORIGIN
    assert asked["Access-Control-Allow-Methods"] == CALLS[path]
    assert "authorization" in asked["Access-Control-Allow-Headers"]
    answer = call(path, token_for(session), {})
    assert answer["Access-Control-Allow-Origin"] == ORIGIN  # a refusal can be read, too
    assert "Origin" in answer["Vary"]
    assert answer["Cache-Control"] == "no-store"
    assert "Access-Control-Allow-Credentials" not in answer


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "https://access.example.evil", "http://access.example", "null",
     "https://access.example:8443", ""],
)  # fmt: skip
@pytest.mark.parametrize("path", CALLS)
def test_pages_of_no_other_origin_may(session: Session, path: str, origin: str) -> None:
    asked = Client().options(API + path, headers={"Origin": origin})
    assert not any(name.startswith("Access-Control") for name in asked.headers)
    answer = call(path, token_for(session), {}, Origin=origin)
    assert not any(name.startswith("Access-Control") for name in answer.headers)


def test_no_other_call_is_open_to_the_access_origin(session: Session) -> None:
    others = [route for route in ROUTES if not route.startswith(API[1:])]
    assert len(others) > 50
    for route in others:
        path = re.sub(r"<str:\w+>", session.pk, re.sub(r"<int:\w+>", "1", route))
        answer = Client().options(f"/{path}", headers={"Origin": ORIGIN})
        assert not any(name.startswith("Access-Control") for name in answer.headers), route


# --- the page -----------------------------------------------------------------------------------


def test_the_button_is_the_specialists(
    session: Session, owner: User, member: User, browser: Callable[[User], Client]
) -> None:
    page = f"/access/{session.pk}/"
    assert b"Open in the browser" in browser(owner).get(page).content
    assert b"Open in the browser" not in browser(member).get(page).content
    answer = browser(owner).post(f"{page}browser/")
    assert answer.status_code == 302
    assert answer["Location"].startswith(f"{ORIGIN}/#session={session.pk}&ticket=")
    assert answer["Referrer-Policy"] == "no-referrer"
    refused = browser(member).post(f"{page}browser/")
    assert refused["Location"] == page
    assert browser(owner).get(f"{page}browser/").status_code == 405


def test_the_button_is_not_there_without_an_access_origin(
    session: Session, owner: User, browser: Callable[[User], Client], settings: Any
) -> None:
    settings.PATENCY_ACCESS_ORIGIN = ""
    assert b"Open in the browser" not in browser(owner).get(f"/access/{session.pk}/").content
