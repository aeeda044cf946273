"""The stream endpoint over a real server and real websockets (R-ACC-2, R-ACC-5)."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest
import uvicorn
from django.conf import settings
from django.db import OperationalError
from django.test import Client as Browser
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Origin, Subprotocol

from agent.wire.catalogue import SessionReason, SessionState
from agent.wire.frames import FrameType, Header
from fleet.access import hub as hubs
from fleet.access import passes, services, stream
from fleet.access.hub import Channel, hub
from fleet.access.models import Session
from fleet.accounts.models import ApiToken, User
from fleet.accounts.services import issue_token
from fleet.core import clock, ports
from fleet.core.threads import in_thread
from fleet.core.websocket import WebSocket
from tests.fleet.access.ends import ClientEnd, EchoDevice, seals
from tests.fleet.access.injector import Injector

S = SessionState
Reach = Callable[..., Session]


@dataclass
class Active:
    """An active session of the owner, the device's end of it, and the owner's token."""

    session: Session
    token: str
    device: EchoDevice
    client_seal: Any


@pytest.fixture
def active(transactional_db: None, reach: Reach, owner: User) -> Any:
    session = reach(S.ACTIVE)
    client, device = seals(session.pk)
    echo = EchoDevice(session.device_id, device, hub)
    ports.set_frame_sender(echo.frame)
    yield Active(session, issue_token(owner, "t", timedelta(hours=1)), echo, client)
    ports.set_frame_sender(None)


@asynccontextmanager
async def server() -> AsyncIterator[str]:
    """The endpoint on a free port; its origin."""
    config = uvicorn.Config(
        stream.application, host="127.0.0.1", port=0, ws=WebSocket,
        ws_per_message_deflate=False, lifespan="off", log_config=None, access_log=False,
    )  # fmt: skip
    running = uvicorn.Server(config)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(running.serve())
        async with asyncio.timeout(5):
            while not running.started:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        port = running.servers[0].sockets[0].getsockname()[1]
        try:
            yield f"ws://127.0.0.1:{port}"
        finally:
            running.should_exit = True
            async with asyncio.timeout(5):
                await task


@asynccontextmanager
async def opened(
    base: str, session: str, *, token: str | None = None, **headers: str
) -> AsyncIterator[ClientConnection]:
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    async with connect(
        f"{base}/ws/stream/{session}", additional_headers=headers, compression=None, proxy=None
    ) as websocket:
        yield websocket


async def code_of(base: str, session: str, **credentials: Any) -> int:
    """What the server closes the websocket with."""
    async with asyncio.timeout(5), opened(base, session, **credentials) as websocket:
        with pytest.raises(ConnectionClosed) as caught:
            await websocket.recv()
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code


async def exchange(websocket: ClientConnection, end: ClientEnd, size: int, number: int) -> bytes:
    """Open a stream, send so many bytes, and return what the device echoes."""
    outgoing: asyncio.Queue[bytes] = asyncio.Queue()
    end._send = outgoing.put_nowait
    end.mux.open(number, "ssh")
    end.pump()
    data, sent = os.urandom(size), 0
    async with asyncio.timeout(20):
        while len(end.received.get(number, b"")) < size:
            room = min(end.mux.writable(number), size - sent)
            if room:
                end.mux.send(number, data[sent : sent + room])
                sent += room
                end.pump()
            while not outgoing.empty():
                await websocket.send(outgoing.get_nowait())
            end.frame(await websocket.recv())  # type: ignore[arg-type]
        while not outgoing.empty():
            await websocket.send(outgoing.get_nowait())
    assert bytes(end.received[number]) == data
    return data


async def test_bytes_arrive_whole_and_the_portal_sees_none_of_them(active: Active) -> None:
    """3 MiB there and back: through credit, back-pressure and many frames."""
    end = ClientEnd(active.client_seal, lambda frame: None)
    async with server() as base, opened(base, active.session.pk, token=active.token) as websocket:
        data = await exchange(websocket, end, 3 * 1024 * 1024, 1 << 16 | 1)
        assert active.device.services == ["ssh"]
        assert not any(data[:64] in frame for frame in active.device.got)
    row = await in_thread(Session.objects.get, pk=active.session.pk)
    assert row.bytes_down > len(data)
    assert row.bytes_up > len(data)


async def test_two_clients_of_one_session(active: Active) -> None:
    first, second = (ClientEnd(active.client_seal, lambda frame: None) for _ in range(2))
    async with (
        server() as base,
        opened(base, active.session.pk, token=active.token) as one,
        opened(base, active.session.pk, token=active.token) as two,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(exchange(one, first, 300_000, 1 << 16 | 1))
        group.create_task(exchange(two, second, 300_000, 2 << 16 | 1))


async def test_a_full_device_holds_the_client_back(
    active: Active, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = ClientEnd(active.client_seal, lambda frame: None)
    active.device.full = True

    async def relieve() -> None:
        await asyncio.sleep(0.3)
        active.device.full = False

    async with (
        server() as base,
        asyncio.TaskGroup() as group,
        opened(base, active.session.pk, token=active.token) as websocket,
    ):
        group.create_task(relieve())
        await exchange(websocket, end, 200_000, 1 << 16 | 1)
    monkeypatch.setattr(stream, "FULL_S", 0.05)
    active.device.full = True
    async with server() as base, opened(base, active.session.pk, token=active.token) as websocket:
        await websocket.send(active.device.got[0])
        with pytest.raises(ConnectionClosed) as caught:
            await asyncio.wait_for(websocket.recv(), 5)
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 4408


async def test_fragments_and_pings_are_understood(active: Active) -> None:
    """What does not take the short way: websockets puts it together."""
    end = ClientEnd(active.client_seal, lambda frame: None)
    end.mux.open(1 << 16 | 1, "ssh")
    frame = end.mux.next_frame()
    assert frame is not None
    async with server() as base, opened(base, active.session.pk, token=active.token) as websocket:
        await websocket.send([frame[:10], frame[10:20], frame[20:]])
        async with asyncio.timeout(5):
            await (await websocket.ping())
            end.frame(await websocket.recv())  # type: ignore[arg-type]
    assert active.device.got == [frame]
    assert end.accepted == {1 << 16 | 1}


async def test_a_client_that_reads_nothing_is_cut_and_forgotten(
    active: Active, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hubs, "MAX_QUEUED", 100_000)
    monkeypatch.setattr(stream, "CLOSE_S", 0.1)
    frame = Header(FrameType.DATA, bytes.fromhex(active.session.pk), 1 << 16 | 1, 0, 0).pack()
    async with (
        server() as base,
        opened(base, active.session.pk, token=active.token) as websocket,
        asyncio.timeout(20),
    ):
        websocket.transport.pause_reading()
        [channel] = hub._sinks.values()
        assert isinstance(channel, Channel)
        [client] = channel.clients
        while client.close_code is None:
            hub.from_device(active.session.device_id, frame + bytes(30_000))
            await asyncio.sleep(0)
        assert client.close_code == 4408
        while hub._sinks:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        websocket.transport.abort()


async def test_poison(active: Active) -> None:
    """What is no frame of this session closes the websocket and reaches nobody."""
    async with server() as base:
        for data, code in (
            (b"", 4400),
            (bytes(55), 4400),
            (bytes(100), 4400),
            (b"\x01" + bytes(100), 4403),
            (b"\x01" * 40_000, 4400),
            ("text", 4400),
        ):
            async with opened(base, active.session.pk, token=active.token) as websocket:
                await websocket.send(data)
                with pytest.raises(ConnectionClosed) as caught:
                    await asyncio.wait_for(websocket.recv(), 5)
                assert caught.value.rcvd is not None
                assert caught.value.rcvd.code == code
    assert active.device.got == []
    assert hub._sinks == {}


# --- the door -----------------------------------------------------------------------------------


async def test_the_door(
    active: Active,
    stranger: User,
    member: User,
    colleague: User,
    administrator: User,
) -> None:
    """Only the specialist who asked; the stranger does not learn that there is a session."""
    token = {
        user.username: await in_thread(issue_token, user, "t", timedelta(hours=1))
        for user in (stranger, member, colleague, administrator)
    }
    session = active.session.pk
    async with server() as base:
        assert await code_of(base, session) == 4401
        assert await code_of(base, session, token="pat_wrong") == 4401
        assert await code_of(base, session, token="x" * 5000) == 4401
        assert await code_of(base, session, token=token["stranger"]) == 4404
        assert await code_of(base, "f" * 32, token=token["stranger"]) == 4404
        assert await code_of(base, "f" * 32, token=active.token) == 4404
        assert await code_of(base, "F" * 32, token=active.token) == 4404
        assert await code_of(base, f"{session}/more", token=active.token) == 4404
        for other in ("member", "colleague", "admin"):
            assert await code_of(base, session, token=token[other]) == 4403


@pytest.mark.parametrize("state", [s for s in S if s is not S.ACTIVE])
def test_only_an_active_session_carries(
    transactional_db: None, reach: Reach, owner: User, state: SessionState
) -> None:
    session = reach(state)
    shown = stream.Pass(issue_token(owner, "t", timedelta(hours=1)), None, None)
    with pytest.raises(stream.DoorClosedError) as caught:
        stream.admit(shown, session.pk)
    assert caught.value.code == 4409


async def test_a_browsers_cookie_opens_from_our_own_pages_only(
    active: Active, owner: User, browser: Callable[[User], Browser]
) -> None:
    signed_in = await in_thread(browser, owner)
    name = settings.SESSION_COOKIE_NAME
    cookie = f"{name}={signed_in.cookies[name].value}"
    ours = settings.PATENCY_ORIGINS[0]
    session = active.session.pk
    end = ClientEnd(active.client_seal, lambda frame: None)
    async with server() as base:
        async with opened(base, session, Cookie=cookie, Origin=ours) as websocket:
            await exchange(websocket, end, 1000, 1 << 16 | 1)
        assert await code_of(base, session, Cookie=cookie) == 4403
        assert await code_of(base, session, Cookie=cookie, Origin="https://evil.example") == 4403
        assert await code_of(base, session, Cookie=f"{name}=made-up", Origin=ours) == 4401
        assert await code_of(base, session, Cookie="\u00e9;=;", Origin=ours) == 4401
        await in_thread(signed_in.logout)
        assert await code_of(base, session, Cookie=cookie, Origin=ours) == 4401


async def closed_with(websocket: ClientConnection) -> int:
    with pytest.raises(ConnectionClosed) as caught:
        await asyncio.wait_for(websocket.recv(), 5)
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code


async def test_the_end_of_the_session_closes_it_at_once(
    active: Active,
    member: User,
    injector: Injector,
    now: datetime,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ended by the hospital, or by the device: p99 ≤ 2 s, here at once: told, not found out."""
    monkeypatch.setattr(stream, "RECHECK_S", 3600.0)
    async with server() as base, opened(base, active.session.pk, token=active.token) as websocket:
        await in_thread(services.end, actor=member, session=active.session, now=now)
        assert await closed_with(websocket) == 4409


async def test_the_devices_own_end_closes_it_too(active: Active, injector: Injector) -> None:
    async with server() as base, opened(base, active.session.pk, token=active.token) as websocket:
        await in_thread(injector.says, active.session, S.ENDED, SessionReason.STOPPED_AT_PANEL)
        assert await closed_with(websocket) == 4409


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda: ApiToken.objects.all().delete(), 4401),
        (lambda: User.objects.filter(username="owner").update(is_active=False), 4401),
        (lambda: User.objects.filter(username="owner").update(role="administrator"), 4403),
        (lambda: Session.objects.update(state="ended"), 4409),  # by another process
    ],
)
async def test_a_right_that_is_taken_away_closes_it(
    active: Active, monkeypatch: pytest.MonkeyPatch, change: Callable[[], Any], code: int
) -> None:
    monkeypatch.setattr(stream, "RECHECK_S", 0.05)
    async with server() as base, opened(base, active.session.pk, token=active.token) as websocket:
        await in_thread(change)
        assert await closed_with(websocket) == code


async def test_a_database_that_is_away_does_not_cut_the_stream(
    active: Active, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R-CON-8: the right was there a second ago; it is asked for again until there is an answer."""
    monkeypatch.setattr(stream, "RECHECK_S", 0.02)
    end = ClientEnd(active.client_seal, lambda frame: None)
    async with server() as base, opened(base, active.session.pk, token=active.token) as websocket:

        def locked(*args: object) -> str:
            raise OperationalError("database is locked")

        admit = stream.admit
        monkeypatch.setattr(stream, "admit", locked)
        await asyncio.sleep(0.1)
        await exchange(websocket, end, 1000, 1 << 16 | 1)
        monkeypatch.setattr(stream, "admit", admit)
        await in_thread(lambda: ApiToken.objects.all().delete())
        assert await closed_with(websocket) == 4401
        monkeypatch.setattr(stream, "admit", locked)
        assert await code_of(base, active.session.pk, token=active.token) == 1013


async def test_but_not_for_ever(active: Active, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "RECHECK_S", 0.02)
    monkeypatch.setattr(stream, "BELIEVED_S", 0.1)

    def locked(*args: object) -> str:
        raise OperationalError("database is locked")

    async with server() as base, opened(base, active.session.pk, token=active.token) as websocket:
        monkeypatch.setattr(stream, "admit", locked)
        assert await closed_with(websocket) == 1013


async def test_a_client_that_leaves_is_forgotten(active: Active) -> None:
    async with server() as base:
        async with opened(base, active.session.pk, token=active.token):
            assert len(hub._sinks) == 1
        async with asyncio.timeout(5):
            while hub._sinks:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


# --- the browser client -------------------------------------------------------------------------


@asynccontextmanager
async def from_page(
    base: str, session: str, token: str, origin: str = "https://access.example", **headers: str
) -> AsyncIterator[ClientConnection]:
    """As a page of the access origin opens it: no header of its own but the subprotocols."""
    async with connect(
        f"{base}/ws/stream/{session}", origin=Origin(origin), additional_headers=headers,
        subprotocols=[Subprotocol("patency.stream.1"), Subprotocol(f"bearer.{token}")],
        compression=None, proxy=None,
    ) as websocket:  # fmt: skip
        yield websocket


def browser_pass(session: Session) -> str:
    Session.objects.filter(pk=session.pk).update(services=["console"])
    session.refresh_from_db()
    address = passes.link(actor=session.specialist, session=session, now=clock.now())
    found = passes.redeem(address.rsplit("=", 1)[1], now=clock.now())
    assert found is not None
    return found[1]


async def test_a_browsers_pass_opens_its_own_stream(active: Active, settings: Any) -> None:
    """From a page of the access origin, with the pass in no address (R-ACC-4)."""
    settings.PATENCY_ACCESS_ORIGIN = "https://access.example"
    token = await in_thread(browser_pass, active.session)
    end = ClientEnd(active.client_seal, lambda frame: None)
    async with server() as base, from_page(base, active.session.pk, token) as websocket:
        assert websocket.subprotocol == "patency.stream.1"
        await exchange(websocket, end, 100_000, 1 << 16 | 1)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"origin": "https://evil.example"}, 4403),
        ({"origin": "null"}, 4403),
        ({"token": "guessed"}, 4401),
        ({"token": ""}, 4401),
        ({"session": "00" * 16}, 4401),
    ],
)
async def test_a_browsers_pass_is_good_from_one_origin_and_for_one_session(
    active: Active, settings: Any, changes: dict[str, str], code: int
) -> None:
    settings.PATENCY_ACCESS_ORIGIN = "https://access.example"
    token = await in_thread(browser_pass, active.session)
    given = {"session": active.session.pk, "token": token, **changes}
    async with server() as base, asyncio.timeout(5), from_page(base, **given) as websocket:
        with pytest.raises(ConnectionClosed) as caught:
            await websocket.recv()
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == code


async def test_an_api_token_is_no_pass(active: Active, settings: Any) -> None:
    settings.PATENCY_ACCESS_ORIGIN = "https://access.example"
    async with server() as base, from_page(base, active.session.pk, active.token) as websocket:
        with pytest.raises(ConnectionClosed):
            await websocket.recv()
        assert websocket.close_code == 4401
