"""The stranger gets nothing: every route of the URL table and every websocket (issue "done when" 7;
R-ACC-2, R-CON-9; "a stranger on every page, API route, websocket and stream" of the threats).

The world holds a device of one hospital with everything that can be hung on a device. The stranger
is IT of another hospital, with a device of its own, so that lists are not empty for nothing. For an
object, what the stranger gets must be what a wrong id gets, to the byte: status codes tell nothing.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from allauth.usersessions.models import UserSession
from asgiref.sync import sync_to_async
from asgiref.testing import ApplicationCommunicator
from django.conf import settings
from django.test import Client

from agent.wire.catalogue import Outcome
from fleet.access import services as access
from fleet.access.models import Session
from fleet.accounts.models import ApiToken, IdentityProvider, User
from fleet.audit import services as audit
from fleet.core import clock
from fleet.inventory.models import Device
from fleet.jobs import services as jobs
from fleet.jobs.models import Execution
from fleet.servers.models import AccessServer
from fleet.telemetry.models import Condition, Event, Sample
from tests.fleet.routes import ROUTES, Kind, fill, walk
from tests.mfa import open_session

METHODS = ("get", "post", "put", "patch", "delete")


@dataclass(frozen=True)
class World:
    """Ids of what belongs to the hospital, and of nothing at all."""

    ids: dict[str, str]
    none: dict[str, str]
    marks: tuple[str, ...]  # text that only somebody of the hospital, or of the vendor, may read


@pytest.fixture
def world(device: Device, other_device: Device, owner: User) -> World:
    now = clock.now()
    common = {"device": device, "organisation": device.organisation}
    Event.objects.create(
        **common, code=103, priority="M", phase="raised", at=now, received_at=now,
        outbox="a" * 32, seq=1,
    )  # fmt: skip
    Condition.objects.create(**common, code=103, priority="M", raised_at=now)
    Sample.objects.create(**common, at=now, received_at=now, state="idle", values={"fan_rpm": 1.0})
    session = access.request(
        actor=owner, device=device, level="os", services=["ssh"], reason="repair",
        ticket="TICKET-77", note="secret note", life=timedelta(minutes=30), now=now,
    )  # fmt: skip
    job = jobs.create(actor=owner, kind="collect-diagnostics", hours=24, devices=[device], now=now)
    execution = Execution.objects.get(job=job)
    audit.record(
        organisation=device.organisation, actor="portal", action="access:view",
        outcome=Outcome.ALLOWED, device=device, session=session.pk, now=now,
    )  # fmt: skip
    token = ApiToken.objects.create(
        pk=987_654_321, user=owner, digest="d" * 64, name="laptop of the owner", created_at=now,
        expires_at=now + timedelta(days=1),
    )  # fmt: skip
    server = AccessServer.objects.create(
        name="east", host="east.example.org", address="192.0.2.7", place="Halifax", region="ca",
        link="10.77.0.1:8883", listed_on=now.date(), created_at=now,
    )  # fmt: skip
    passkey = Authenticator.objects.create(
        pk=987_654_322, user=owner, type="webauthn", data={"name": "key of the owner"}
    )
    signed_in = UserSession.objects.create(
        pk=987_654_323, user=owner, ip="192.0.2.99", session_key="k" * 32, user_agent="Firefox"
    )
    provider = IdentityProvider.objects.create(
        id="provider-0001", organisation=device.organisation, name="Their sign-in", secret="x",
        issuer="https://login.north.example", client_id="c", domains="north.example",
        created_at=now,
    )  # fmt: skip
    ids = {
        "provider": provider.pk,
        "passkey": str(passkey.pk),
        "sign_in": str(signed_in.pk),
        "token": str(token.pk),
        "device": device.pk,
        "session": session.pk,
        "job": job.pk,
        "execution": execution.pk,
        "site": device.site_id,
        "organisation": device.organisation_id,
        "server": server.name,
    }
    none = {
        name: "0" * len(value) if name != "device" else "device-none" for name, value in ids.items()
    }
    marks = (
        device.pk, device.serial, "A-1", "CT 2", "Main", "North Hospital", session.pk, job.pk,
        execution.pk, "TICKET-77", "secret note", server.link,
        signed_in.ip, "key of the owner", provider.issuer,
    )  # fmt: skip
    return World(ids, none, marks)


def test_every_route_is_classified() -> None:
    """Add a new route to tests/fleet/routes.py, as what it is, and this test does the rest."""
    assert set(walk()) == set(ROUTES)


def _routes(*kinds: Kind) -> list[str]:
    return [route for route, (kind, _ids) in ROUTES.items() if kind in kinds]


def _path(route: str, ids: dict[str, str]) -> str:
    return fill(route, {name: ids[kind] for name, kind in ROUTES[route][1].items()})


def _ask(client: Any, method: str, path: str) -> Any:
    body: dict[str, Any] = {"content_type": "application/json", "data": "{}"}
    return getattr(client, method)(path, **({} if method == "get" else body))


def _text(answer: Any) -> str:
    content = b"".join(answer.streaming_content) if answer.streaming else answer.content
    return str(content.decode()) + str(dict(answer.headers))


def _plain(text: str, ids: dict[str, str]) -> str:
    """Without what differs for innocent reasons: the id that was asked for, and tokens."""
    for value in sorted(ids.values(), key=len, reverse=True):
        text = text.replace(value, "ID")
    text = re.sub(r'name="csrfmiddlewaretoken" value="[^"]+"', "", text)
    return re.sub(r'hx-headers=\'[^\']*\'|"X-CSRFToken": ?"[^"]+"', "", text)


@pytest.fixture
def clients(
    stranger: User, api: Callable[[User], Any], browser: Callable[[User], Client]
) -> dict[str, Any]:
    """The stranger with a token and with a browser."""
    return {"token": api(stranger), "browser": browser(stranger)}


@pytest.mark.parametrize("route", _routes(Kind.OBJECT))
def test_an_object_of_others_is_like_none_at_all(
    route: str, world: World, clients: dict[str, Any]
) -> None:
    for client in clients.values():
        if "api/" not in route and client is clients["token"]:
            continue
        for method in METHODS:
            there = _ask(client, method, _path(route, world.ids))
            nowhere = _ask(client, method, _path(route, world.none))
            assert there.status_code in (403, 404, 405), (method, there.status_code)
            assert there.status_code == nowhere.status_code, method
            assert _plain(_text(there), world.ids) == _plain(_text(nowhere), world.none)
            if method == "get" and there.status_code != 405:
                assert there.status_code == 404 or "api/" in route


@pytest.mark.parametrize("route", _routes(Kind.LIST, Kind.PERSONAL, Kind.PUBLIC, Kind.ROLE))
def test_lists_and_pages_hold_nothing_of_others(
    route: str, world: World, clients: dict[str, Any]
) -> None:
    for client in clients.values():
        answer = client.get(_path(route, world.ids))
        if ROUTES[route][0] is Kind.ROLE:
            assert answer.status_code in (302, 403, 404, 405)
        assert answer.status_code < 500
        text = _text(answer)
        for mark in world.marks:
            assert mark not in text, f"{route} shows {mark!r} to the stranger"


@pytest.mark.parametrize("route", _routes(Kind.LIST))
def test_the_same_lists_are_not_empty_for_those_who_may_read_them(
    route: str, world: World, owner: User, browser: Callable[[User], Client]
) -> None:
    """Otherwise the test before proves nothing."""
    text = _text(browser(owner).get(_path(route, world.ids)))
    assert any(mark in text for mark in world.marks), route


@pytest.mark.parametrize("route", _routes(Kind.OBJECT, Kind.LIST, Kind.PERSONAL, Kind.ROLE))
def test_nobody_at_all_gets_nothing(route: str, world: World) -> None:
    for method in METHODS:
        answer = _ask(Client(), method, _path(route, world.ids))
        assert answer.status_code in (302, 401, 403, 405), (method, answer.status_code)
        text = _text(answer)
        path = _path(route, world.ids)
        for mark in world.marks:
            assert mark not in text.replace(path, ""), f"{method} {route} shows {mark!r}"
        if answer.status_code == 302:
            assert answer["Location"].startswith(settings.LOGIN_URL)


@pytest.mark.parametrize(
    "query", ["", "?page_size=1000", "?q=SN", "?site={site}", "?organisation={organisation}"]
)
def test_no_filter_widens_a_list(query: str, world: World, clients: dict[str, Any]) -> None:
    for route in _routes(Kind.LIST):
        text = _text(clients["browser"].get(_path(route, {}) + query.format(**world.ids)))
        asked = {world.ids["site"], world.ids["organisation"]}
        for mark in set(world.marks) - asked:
            assert mark not in text


@pytest.mark.parametrize("whose", ["there", "nowhere"])
def test_writing_to_lists_with_ids_of_others(
    world: World, api: Callable[[User], Any], stranger: User, whose: str
) -> None:
    ids = world.ids if whose == "there" else world.none
    bodies = {
        "/api/v1/access/sessions/": {
            "device": ids["device"], "level": "os", "services": ["ssh"], "reason": "repair",
            "ticket": None, "note": "", "life_s": 600,
        },
        "/api/v1/jobs/": {"kind": "collect-diagnostics", "hours": 1, "devices": [ids["device"]]},
    }  # fmt: skip
    for path, body in bodies.items():
        answer = api(stranger).post(path, body, format="json")
        assert (answer.status_code, answer.json()["error"]) == (403, "not_allowed"), path
    assert Session.objects.count() == 1
    assert Execution.objects.count() == 1


def test_a_job_for_two_hospitals_shows_each_its_own(
    world: World, owner: User, other_device: Device, device: Device, api: Callable[[User], Any],
    stranger: User,
) -> None:  # fmt: skip
    both = jobs.create(
        actor=owner, kind="collect-diagnostics", hours=2, devices=[device, other_device],
        now=clock.now(),
    )  # fmt: skip
    foreign = Execution.objects.get(job=both, device=device)
    for path in (f"/api/v1/jobs/{both.pk}/", "/api/v1/jobs/"):
        text = _text(api(stranger).get(path))
        assert other_device.pk in text
        for mark in (*world.marks, foreign.pk):
            assert mark not in text


# --- websockets -----------------------------------------------------------------------------------

ORIGIN = "http://localhost:8000"


def _cookie(user: User | None) -> list[tuple[bytes, bytes]]:
    headers = [(b"origin", ORIGIN.encode()), (b"host", b"localhost:8000")]
    if user is not None:
        client = Client()
        open_session(client, user)
        value = client.cookies[settings.SESSION_COOKIE_NAME].value
        headers.append((b"cookie", f"{settings.SESSION_COOKIE_NAME}={value}".encode()))
    return headers


def _open(path: str, headers: list[tuple[bytes, bytes]]) -> ApplicationCommunicator:
    from fleet.asgi import application

    scope = {
        "type": "websocket", "path": path, "raw_path": path.encode(), "query_string": b"",
        "headers": headers, "scheme": "ws", "client": ("127.0.0.1", 5), "subprotocols": [],
        "asgi": {"version": "3.0"},
    }  # fmt: skip
    return ApplicationCommunicator(application, scope)


async def _close_code(path: str, headers: list[tuple[bytes, bytes]]) -> int:
    socket = _open(path, headers)
    await socket.send_input({"type": "websocket.connect"})
    said = await socket.receive_output(timeout=5)
    if said["type"] == "websocket.accept":
        said = await socket.receive_output(timeout=5)
    assert said["type"] == "websocket.close"
    await socket.send_input({"type": "websocket.disconnect", "code": 1000})
    await socket.wait(timeout=5)
    return int(said.get("code", 1000))


@pytest.mark.django_db(transaction=True)
async def test_the_stream_of_another(world: World, stranger: User) -> None:
    headers = await sync_to_async(_cookie)(stranger)
    there = await _close_code(f"/ws/stream/{world.ids['session']}", headers)
    nowhere = await _close_code(f"/ws/stream/{world.none['session']}", headers)
    assert there == nowhere == 4404
    assert await _close_code(f"/ws/stream/{world.ids['session']}", _cookie(None)) == 4401


@pytest.mark.django_db(transaction=True)
async def test_live_pages_of_another(world: World, stranger: User) -> None:
    socket = _open("/ws/live/", await sync_to_async(_cookie)(stranger))
    await socket.send_input({"type": "websocket.connect"})
    assert (await socket.receive_output(timeout=5))["type"] == "websocket.accept"
    for ids in (world.ids, world.none):
        names = ("device", "session", "execution", "organisation")
        groups = ["fleet", *(f"{name}.{ids[name]}" for name in names)]
        await socket.send_input(
            {"type": "websocket.receive", "text": json.dumps({"watch": groups})}
        )
        said = await socket.receive_output(timeout=5)
        assert json.loads(said["text"]) == {"watching": [], "refused": groups}
    await socket.send_input({"type": "websocket.disconnect", "code": 1000})
    await socket.wait(timeout=5)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("path", ["/ws/live/", "/ws/stream/{session}"])
async def test_websockets_of_another_origin(world: World, owner: User, path: str) -> None:
    headers = await sync_to_async(_cookie)(owner)
    headers[0] = (b"origin", b"https://evil.example")
    assert await _close_code(path.format(**world.ids), headers) in (4403, 403, 1000)


@pytest.mark.django_db(transaction=True)
async def test_no_other_websocket_is_served(db: None) -> None:
    assert await _close_code("/ws/other/", _cookie(None)) == 4404


def test_every_websocket_is_known() -> None:
    from fleet.live.routing import websocket_urlpatterns

    assert [str(route.pattern) for route in websocket_urlpatterns] == ["ws/live/"]
