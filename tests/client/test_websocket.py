"""The client's websocket against another implementation's server: frames whole, in pieces, out of
the rules; what is full, what is silent, how it ends (R-ACC-5, R-CON-7)."""

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus
from websockets.http11 import Request, Response
from websockets.uri import parse_uri

from agent.wire.frames import MAX_FRAME
from fleet.client import websocket as module
from fleet.client.websocket import Websocket
from tests.agent.network.relays import answers, serving

HEADERS = {"Authorization": "Bearer pat_test", "User-Agent": "patency/1"}
Handler = Callable[[ServerConnection], Awaitable[None]]


class Owner:
    """Keeps what comes; sends what it is given while the websocket takes it."""

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.to_send: list[bytes] = []
        self.websocket: Websocket | None = None
        self.fault: Exception | None = None

    def receive(self, frame: memoryview) -> None:
        if self.fault is not None:
            raise self.fault
        self.got.append(bytes(frame))

    def pump(self) -> None:
        while self.websocket is not None and self.to_send and not self.websocket.full:
            self.websocket.send(self.to_send.pop(0))

    async def has(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.got) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.005)


async def connected(port: int, owner: Owner) -> Websocket:
    loop = asyncio.get_running_loop()
    made = Websocket(parse_uri(f"ws://127.0.0.1:{port}/ws/stream/x"), HEADERS, owner)
    await loop.create_connection(lambda: made, "127.0.0.1", port)
    await made.opened()
    owner.websocket = made
    return made


@asynccontextmanager
async def talking(handler: Handler, **options: object) -> AsyncIterator[tuple[Websocket, Owner]]:
    """A websocket to a server that runs the handler, closed at the end."""
    owner = Owner()
    async with serve(handler, "127.0.0.1", 0, compression=None, **options) as server:  # type: ignore[arg-type]
        websocket = await connected(server.sockets[0].getsockname()[1], owner)
        try:
            yield websocket, owner
        finally:
            async with asyncio.timeout(10):
                await websocket.close()


@asynccontextmanager
async def raw(*pieces: bytes) -> AsyncIterator[tuple[Websocket, Owner, list[bytes]]]:
    """A server that upgrades and then says these bytes, piece by piece, whatever they are.

    What it is told goes to the list.
    """
    told: list[bytes] = []
    owner = Owner()

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(accepted(head) + pieces[0])
        for piece in pieces[1:]:
            await writer.drain()
            await asyncio.sleep(0.001)
            writer.write(piece)
        while data := await reader.read(65536):
            told.append(data)

    async with serving(speak) as port:
        websocket = await connected(port, owner)
        try:
            yield websocket, owner, told
        finally:
            websocket.abort()
            await websocket.close()


def accepted(head: bytes) -> bytes:
    from websockets.utils import accept_key

    key = next(
        line.split(b": ")[1]
        for line in head.split(b"\r\n")
        if line.lower().startswith(b"sec-websocket-key")
    )
    return (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept_key(key.decode())}\r\n\r\n"
    ).encode()


def message(data: bytes, *, first: int = 0x82) -> bytes:
    """A server's frame."""
    if len(data) < 126:
        return bytes([first, len(data)]) + data
    return struct.pack(">BBH", first, 126, len(data)) + data


# --- messages -------------------------------------------------------------------------------------


async def test_messages_of_every_size_go_both_ways_whole() -> None:
    sizes = [0, 1, 125, 126, 127, 65, 32 * 1024, MAX_FRAME, 3]

    async def echo(peer: ServerConnection) -> None:
        async for data in peer:
            await peer.send(data)

    async with talking(echo) as (websocket, owner):
        owner.to_send = [bytes([size % 251]) * size for size in sizes]
        want = list(owner.to_send)
        owner.pump()
        await owner.has(len(want))
        assert owner.got == want
        await websocket.close()
        assert websocket.close_code == 1000


@pytest.mark.parametrize("step", [1, 2, 3, 7, 130, 10_000])
async def test_a_frame_is_found_however_it_is_cut(step: int) -> None:
    """Pieces of any size, the first of them right behind the answer to the upgrade."""
    sent = [b"a", b"", b"b" * 125, b"c" * 126, b"d"]
    stream = b"".join(message(data) for data in sent)
    pieces = [stream[at : at + step] for at in range(0, len(stream), step)]
    async with raw(*pieces) as (_websocket, owner, _told):
        await owner.has(len(sent))
        assert owner.got == sent


async def test_more_than_the_buffer_holds() -> None:
    sent = [bytes([n]) * MAX_FRAME for n in range(40)]

    async def pour(peer: ServerConnection) -> None:
        for data in sent:
            await peer.send(data)
        await peer.wait_closed()

    async with talking(pour) as (_websocket, owner):
        await owner.has(len(sent))
        assert owner.got == sent


async def test_a_ping_is_answered_and_its_neighbours_pass() -> None:
    pieces = message(b"one") + message(b"hello", first=0x89) + message(b"two")
    async with raw(pieces) as (_websocket, owner, told):
        await owner.has(2)
        assert owner.got == [b"one", b"two"]
        while not told:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        assert told[0][:2] == bytes([0x8A, 0x80 | 5])  # a pong, masked


async def test_fragments_are_put_together_and_what_follows_passes() -> None:
    """No portal of ours sends them, but something on the way may make them."""
    pieces = [
        message(b"before") + message(b"in ", first=0x02),
        message(b"p", first=0x89) + message(b"pie", first=0x00),
        message(b"ces", first=0x80) + message(b"after"),
        message(b"and after"),
    ]
    async with raw(*pieces) as (_websocket, owner, _told):
        await owner.has(4)
        assert owner.got == [b"before", b"in pieces", b"after", b"and after"]


async def test_text_is_not_ours() -> None:
    async with raw(message(b"text", first=0x81) + message(b"ours")) as (_websocket, owner, _told):
        await owner.has(1)
        assert owner.got == [b"ours"]


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (message(bytes(MAX_FRAME + 1)), 1009),
        (struct.pack(">BBQ", 0x82, 127, 2**40), 1009),
        (bytes([0x82, 0x80 | 1, 1, 2, 3, 4, 5]), 1002),  # masked by a server
        (message(b"x", first=0xC2), 1002),  # a bit that nobody agreed on
        (message(b"x", first=0x83), 1002),  # no such kind
        (message(b"x", first=0x80), 1002),  # goes on with nothing
        (message(bytes(126), first=0x89), 1002),  # a ping too long
    ],
)
async def test_what_breaks_the_rules_ends_the_connection(bad: bytes, code: int) -> None:
    async with raw(message(b"fine") + bad + message(b"not read")) as (websocket, owner, told):
        while not told:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        head, size, key = told[0][0], told[0][1] & 0x7F, told[0][2:6]
        said = bytes(byte ^ key[at % 4] for at, byte in enumerate(told[0][6 : 6 + size]))
        assert (head, int.from_bytes(said[:2])) == (0x88, code)
        assert owner.got == [b"fine"]
        assert websocket.full  # nothing is sent after Close


# --- room -----------------------------------------------------------------------------------------


async def test_a_server_that_does_not_read_stops_the_owner() -> None:
    go_on = asyncio.Event()
    taken = 0

    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal taken
        writer.write(accepted(await reader.readuntil(b"\r\n\r\n")))
        await go_on.wait()
        while data := await reader.read(65536):
            taken += len(data)

    owner = Owner()
    async with serving(late) as port:
        websocket = await connected(port, owner)
        owner.to_send = [bytes(MAX_FRAME)] * 2000  # 64 MB
        owner.pump()
        assert websocket.full
        left = len(owner.to_send)
        assert left > 1000
        await asyncio.sleep(0.1)
        assert len(owner.to_send) == left
        go_on.set()
        async with asyncio.timeout(20):
            await websocket.drained()
            assert owner.to_send == []
            while taken < 2000 * MAX_FRAME:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        websocket.abort()
        await websocket.close()


# --- ends -----------------------------------------------------------------------------------------


async def test_the_portals_close_code_is_told() -> None:
    async def refuse(peer: ServerConnection) -> None:
        await peer.close(4403)

    async with talking(refuse) as (websocket, _owner):
        async with asyncio.timeout(5):
            await websocket.ended()
        assert websocket.close_code == 4403


async def test_a_cut_is_an_end_without_a_code() -> None:
    async def cut(peer: ServerConnection) -> None:
        peer.transport.abort()

    async with talking(cut) as (websocket, _owner):
        async with asyncio.timeout(5):
            await websocket.ended()
            await websocket.drained()
        assert websocket.close_code == 1006
        assert websocket.full


async def test_a_server_that_does_not_answer_pings_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PING_S", 0.05)
    monkeypatch.setattr(module, "PONG_S", 0.1)
    monkeypatch.setattr(module, "CLOSE_S", 0.1)
    async with raw(b"") as (websocket, _owner, told):
        async with asyncio.timeout(5):
            await websocket.ended()
        assert websocket.close_code == 1006
        assert b"".join(told)[0] == 0x89


async def test_one_that_answers_pings_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PING_S", 0.02)
    monkeypatch.setattr(module, "PONG_S", 0.2)
    pings = 0

    async def wait(peer: ServerConnection) -> None:
        nonlocal pings
        original = peer.protocol.recv_frame

        def count(frame: object) -> None:
            nonlocal pings
            pings += getattr(frame, "opcode", None) == 9
            original(frame)  # type: ignore[arg-type]

        peer.protocol.recv_frame = count  # type: ignore[method-assign,assignment]
        with contextlib.suppress(ConnectionClosed):
            await peer.recv()

    async with talking(wait) as (websocket, owner):
        async with asyncio.timeout(5):
            while pings < 5:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert not websocket.full
        owner.to_send = [b"still here"]
        owner.pump()


async def test_a_goodbye_without_an_answer_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLOSE_S", 0.1)
    async with raw(b"") as (websocket, _owner, _told):
        async with asyncio.timeout(2):
            await websocket.close()


async def test_a_fault_of_the_owner_is_told_to_who_waits() -> None:
    async with raw(b"", message(b"x")) as (websocket, owner, _told):
        owner.fault = ZeroDivisionError("a mistake of ours")
        async with asyncio.timeout(5):
            with pytest.raises(ZeroDivisionError):
                await websocket.ended()


# --- the upgrade ----------------------------------------------------------------------------------


async def test_the_upgrade_says_who_we_are() -> None:
    asked: list[Request] = []

    def note(_peer: ServerConnection, request: Request) -> None:
        asked.append(request)

    async def wait(peer: ServerConnection) -> None:
        await peer.wait_closed()

    async with talking(wait, process_request=note):
        pass
    headers = asked[0].headers
    assert asked[0].path == "/ws/stream/x"
    assert {name: headers.get_all(name) for name in HEADERS} == {
        name: [value] for name, value in HEADERS.items()
    }
    assert "Sec-WebSocket-Extensions" not in headers  # sealed bytes do not compress


async def test_a_refusal_is_told_with_its_status() -> None:
    def refuse(peer: ServerConnection, _request: Request) -> Response:
        return peer.respond(503, "not now\n" * 100)

    async with serve(Handler, "127.0.0.1", 0, process_request=refuse) as server:  # type: ignore[arg-type]
        with pytest.raises(InvalidStatus, match="503"):
            await connected(server.sockets[0].getsockname()[1], Owner())


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-OpenSSH\r\n", b"x" * 40_000, b"\r\n\r\n"])
async def test_what_is_no_answer_is_refused(answer: bytes) -> None:
    async with serving(answers(answer)) as port:
        with pytest.raises((InvalidMessage, OSError)):
            async with asyncio.timeout(5):
                await connected(port, Owner())
