"""The live websocket: who may watch what, for how long, and how much (R-ACC-2, R-MNT-5)."""

import json
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY

from agent.wire.messages import Rate
from fleet.accounts.models import Organisation, User
from fleet.asgi import application
from fleet.core import ports as core_ports
from fleet.inventory.models import Device
from fleet.live import consumers
from fleet.live.hinter import hinter
from fleet.live.leases import leases
from tests.conftest import Ports
from tests.fleet.live.page import Page

pytestmark = pytest.mark.django_db(transaction=True)

ORIGIN = settings.PATENCY_ORIGINS[0]
Connect = Callable[..., Any]


@pytest.fixture
def live(ports: Ports) -> Ports:
    """Sent messages recorded; hints go the real way; no lease of another test stands."""
    core_ports.set_hinter(hinter)
    leases._asked.clear()
    return ports


def _cookie(user: User) -> str:
    session = import_module(settings.SESSION_ENGINE).SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = settings.AUTHENTICATION_BACKENDS[0]
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session["account_authentication_methods"] = [{"method": "mfa", "type": "totp", "at": 0}]
    session["account_authentication_methods_user"] = str(user.pk)
    session.save()
    return f"{settings.SESSION_COOKIE_NAME}={session.session_key}"


@pytest.fixture
def connect(live: Ports) -> Connect:
    """await connect(user, origin=…): a websocket to /ws/live/, whose handshake is through."""

    async def make(user: User | None, origin: str = ORIGIN) -> Page:
        headers = [(b"origin", origin.encode())]
        if user is not None:
            headers.append((b"cookie", (await sync_to_async(_cookie)(user)).encode()))
        made = Page(application, headers)
        await made.connect()
        return made

    return make


async def _closed(socket: Page) -> int:
    message = await socket.receive_output(5)
    assert message["type"] == "websocket.close"
    await socket.disconnect()  # as the server says after a close
    return int(message["code"])


async def _ask(socket: Page, **message: Any) -> Any:
    await socket.send_json_to(message)
    return await socket.receive_json_from(5)


async def test_nobody_is_told_to_sign_in(connect: Connect) -> None:
    assert await _closed(await connect(None)) == consumers.SIGNED_OUT


async def test_a_page_of_another_origin_is_refused(connect: Connect, owner: User) -> None:
    socket = await connect(owner, origin="https://elsewhere.example")
    assert not socket.accepted


async def test_a_hint_reaches_who_watches(connect: Connect, owner: User, device: Device) -> None:
    socket = await connect(owner)
    group = f"device.{device.pk}"
    assert await _ask(socket, watch=[group, "fleet"]) == {
        "watching": [group, "fleet"],
        "refused": [],
    }
    core_ports.hint_now(group, {"kind": "state", "state": "armed"})
    assert await socket.receive_json_from(5) == {"group": group, "kind": "state", "state": "armed"}
    core_ports.hint_now("organisation.north", {"kind": "state"})
    assert await socket.receive_nothing(0.1)
    await socket.send_json_to({"unwatch": [group]})
    assert await socket.receive_nothing(0.05)
    core_ports.hint_now(group, {"kind": "state"})
    assert await socket.receive_nothing(0.1)
    await socket.disconnect()


async def test_watching_a_device_asks_for_its_fast_rate(
    connect: Connect, owner: User, device: Device, live: Ports
) -> None:
    socket = await connect(owner)
    group = f"device.{device.pk}"
    await _ask(socket, watch=[group], live=False)
    assert live.sent == []
    core_ports.hint_now(group, {"kind": "live", "at": 1, "values": {}})
    assert await socket.receive_nothing(0.1)

    await _ask(socket, watch=[group])
    assert live.sent == [(device.pk, Rate(hz=5, for_s=30))]
    core_ports.hint_now(group, {"kind": "live", "at": 2, "values": {"fan_rpm": 1.0}})
    sample = await socket.receive_json_from(5)
    assert (sample["kind"], sample["values"]) == ("live", {"fan_rpm": 1.0})

    # The device reconnects, and knows of no lease.
    core_ports.hint_now(group, {"kind": "presence", "online": True})
    await socket.receive_json_from(5)
    assert await socket.receive_nothing(0.1)
    assert len(live.sent) == 2
    await socket.disconnect()


@pytest.mark.parametrize("who", ["member", "stranger"])
async def test_a_hospital_watches_its_own_alone(
    who: str, connect: Connect, member: User, stranger: User, device: Device, live: Ports
) -> None:
    """The stranger cannot tell another's device from one that is not there (R-ACC-2)."""
    socket = await connect({"member": member, "stranger": stranger}[who])
    names = [f"device.{device.pk}", "organisation.north", "fleet", "device.none-such", "nonsense"]
    answer = await _ask(socket, watch=names)
    mine = names[:2] if who == "member" else []
    assert answer == {"watching": mine, "refused": [n for n in names if n not in mine]}
    if who == "stranger":
        assert live.sent == []
    for name in names[:3]:
        core_ports.hint_now(name, {"kind": "event"})
    for name in mine:
        assert (await socket.receive_json_from(5))["group"] == name
    assert await socket.receive_nothing(0.1)
    await socket.disconnect()


@pytest.mark.parametrize(
    "text",
    ["", "nonsense", "[]", "7", "null", '{"watch": "fleet"}', '{"other": 1}',
     '{"watch": [], "live": 3}', "[" * 5000, "x" * 9000],
)  # fmt: skip
async def test_what_is_no_message_ends_the_connection(
    text: str, connect: Connect, owner: User
) -> None:
    socket = await connect(owner)
    await socket.send_to(text_data=text)
    assert await _closed(socket) == consumers.MALFORMED


async def test_bytes_are_no_message(connect: Connect, owner: User) -> None:
    socket = await connect(owner)
    await socket.send_to(bytes_data=b"{}")
    assert await _closed(socket) == consumers.MALFORMED


async def test_names_that_are_no_text_are_refused(connect: Connect, owner: User) -> None:
    socket = await connect(owner)
    assert (await _ask(socket, watch=[None, 7, {"a": 1}]))["refused"] == [None, None, None]
    await socket.disconnect()


async def test_a_page_watches_so_many_and_no_more(connect: Connect, administrator: User) -> None:
    socket = await connect(administrator)
    names = [f"organisation.o{number}" for number in range(consumers.MAX_GROUPS + 1)]
    answer = await _ask(socket, watch=names)
    assert len(answer["watching"]) == consumers.MAX_GROUPS
    assert answer["refused"] == [names[-1]]
    await socket.disconnect()


async def test_a_page_that_never_stops_talking_is_cut(connect: Connect, owner: User) -> None:
    socket = await connect(owner)
    for _each in range(consumers.MAX_MESSAGES + 1):
        await socket.send_to(text_data=json.dumps({"unwatch": []}))
    assert await _closed(socket) == consumers.TOO_MANY


async def test_one_person_has_so_many_pages(
    connect: Connect, owner: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumers, "MAX_SOCKETS", 1)
    first = await connect(owner)
    await _ask(first, watch=[])
    assert await _closed(await connect(owner)) == consumers.TOO_MANY
    await first.disconnect()
    again = await connect(owner)
    assert await _ask(again, watch=[]) == {"watching": [], "refused": []}
    await again.disconnect()
    assert not consumers._sockets


async def test_rights_that_end_end_on_open_pages(
    connect: Connect,
    member: User,
    device: Device,
    other_hospital: Organisation,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An injector that is sold, a person who is locked out: the page hears no more."""
    monkeypatch.setattr(consumers, "TICK_S", 0.02)
    monkeypatch.setattr(consumers, "RECHECK_S", 0.0)
    socket = await connect(member)
    group = f"device.{device.pk}"
    await _ask(socket, watch=[group])
    await Device.objects.filter(pk=device.pk).aupdate(organisation=other_hospital)
    assert await socket.receive_json_from(5) == {"refused": [group]}
    await User.objects.filter(pk=member.pk).aupdate(is_active=False)
    assert await _closed(socket) == consumers.SIGNED_OUT


async def test_signing_out_ends_open_pages(
    connect: Connect, owner: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumers, "TICK_S", 0.02)
    monkeypatch.setattr(consumers, "RECHECK_S", 0.0)
    socket = await connect(owner)
    await _ask(socket, watch=["fleet"])
    await (
        import_module(settings.SESSION_ENGINE)
        .SessionStore.get_model_class()
        .objects.all()
        .adelete()
    )
    assert await _closed(socket) == consumers.SIGNED_OUT


async def test_a_lease_is_renewed_while_the_page_is_open(
    connect: Connect, owner: User, device: Device, live: Ports, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumers, "TICK_S", 0.02)
    monkeypatch.setattr("fleet.live.leases.RENEW_S", 0.05)
    socket = await connect(owner)
    await _ask(socket, watch=[f"device.{device.pk}"])
    assert await socket.receive_nothing(0.3)
    assert len(live.sent) >= 3
    await socket.disconnect()
    sent = len(live.sent)
    assert await socket.receive_nothing(0.15)
    assert len(live.sent) == sent


async def test_a_page_that_left_during_the_handshake_is_no_fault(owner: User, live: Ports) -> None:
    """A server says so by an OSError from send; its disconnect follows."""
    cookie = await sync_to_async(_cookie)(owner)
    messages = [{"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1001}]

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop(0)
        raise AssertionError("asked again after the disconnect")

    async def send(message: Any) -> None:
        raise ConnectionResetError("gone")

    headers = [(b"origin", ORIGIN.encode()), (b"cookie", cookie.encode())]
    scope = {"type": "websocket", "path": "/ws/live/", "query_string": b"", "headers": headers}
    await application({**scope, "subprotocols": []}, receive, send)
    assert not consumers._sockets
