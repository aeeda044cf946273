"""The way past ASGI: what it hands on, and that websockets judges all the rest (R-ACC-5).

The same bytes go to uvicorn's own protocol, frame by frame, and to ours, cut anywhere; both must
find the same messages in them and give the same answers.
"""

import asyncio
import random
import struct
from typing import Any

import pytest
import uvicorn
from hypothesis import example, given, settings
from hypothesis import strategies as st
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.frames import Frame, Opcode

from fleet.core.websocket import WebSocket, direct, frame_size

MOST = 70_000
UPGRADE = (
    b"GET /x HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def frame(
    opcode: int = BINARY,
    data: bytes = b"",
    *,
    final: bool = True,
    masked: bool = True,
    reserved: int = 0,
    bits: int = 0,
) -> bytes:
    """A client's frame, right or wrong. `bits` of its length, 0 for as few as it takes."""
    size = len(data)
    bits = max(bits, 7 if size < 126 else 16 if size < 65536 else 64)
    first, flag = final << 7 | reserved << 4 | opcode, masked << 7
    if bits == 7:
        header = struct.pack(">BB", first, flag | size)
    elif bits == 16:
        header = struct.pack(">BBH", first, flag | 126, size)
    else:
        header = struct.pack(">BBQ", first, flag | 127, size)
    if not masked:
        return header + data
    mask = b"\x01\xfe\x80\x33"
    pad = (mask * (size // 4 + 1))[:size]
    return header + mask + (int.from_bytes(data) ^ int.from_bytes(pad)).to_bytes(size)


class Wire(asyncio.Transport):
    """A transport that remembers what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False
        self.reading = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closed
        self.written += bytes(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class Asker:
    """An application that asks for each message."""

    def __init__(self) -> None:
        self.messages: list[bytes | None] = []  # None for a text
        self.left: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            self.messages.append(message.get("bytes"))
        self.left = message


class Taker(Asker):
    """One that takes the connection. A Receiver."""

    websocket: WebSocket
    pause_at = 0  # at this message
    writable = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        self.websocket = direct(scope)
        assert self.websocket.take(self)
        self.left = await receive()

    def message(self, data: bytes) -> None:
        assert type(data) is bytes
        self.messages.append(data)
        if len(self.messages) == self.pause_at:
            self.websocket.pause()

    def text(self) -> None:
        self.messages.append(None)

    def resume_writing(self) -> None:
        self.writable = True

    def pause_writing(self) -> None:
        self.writable = False


async def settled() -> None:
    for _ in range(8):
        await asyncio.sleep(0)


async def opened(kind: type[WebSocketsSansIOProtocol], application: Any) -> tuple[Any, Wire]:
    """A protocol that has answered the upgrade."""
    config = uvicorn.Config(
        application, ws=kind, lifespan="off", log_config=None, ws_max_size=MOST,
        ws_per_message_deflate=False, ws_ping_interval=None, interface="asgi3",
        proxy_headers=False,
    )  # fmt: skip
    config.load()
    protocol: Any = kind(config=config, server_state=ServerState(), app_state={})
    wire = Wire()
    protocol.connection_made(wire)
    protocol.data_received(UPGRADE)
    await settled()
    assert wire.written.startswith(b"HTTP/1.1 101 ")
    wire.written = b""
    return protocol, wire


async def taken() -> tuple[Taker, Wire]:
    taker = Taker()
    _protocol, wire = await opened(WebSocket, taker)
    return taker, wire


async def fed(application: Asker, kind: type[WebSocketsSansIOProtocol], cuts: list[bytes]) -> Wire:
    """What the transport was told, when all of it has come and the client has left."""
    protocol, wire = await opened(kind, application)
    for cut in cuts:
        if not wire.closed:
            protocol.data_received(cut)
            await settled()
    protocol.connection_lost(None)
    await settled()
    return wire


async def _same(frames: list[bytes], places: list[int]) -> None:
    asker, taker = Asker(), Taker()
    asked = await fed(asker, WebSocketsSansIOProtocol, frames)
    took = await fed(taker, WebSocket, cut(b"".join(frames), places))
    assert taker.messages == asker.messages
    assert taker.left == asker.left
    assert (took.written, took.closed) == (asked.written, asked.closed)


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    """As the network delivers it: in pieces that end anywhere."""
    ends = [*sorted(places), len(stream)]
    return [stream[a:b] for a, b in zip([0, *ends], ends, strict=False) if a < b]


def data(most: int) -> st.SearchStrategy[bytes]:
    """Readable, as uvicorn has an answer of its own to a text that is not."""
    return st.text(st.characters(codec="ascii"), max_size=most).map(str.encode)


right = st.builds(frame, data=st.binary(max_size=200), bits=st.sampled_from([0, 0, 16, 64]))
long = st.builds(
    lambda size: frame(data=random.Random(size).randbytes(size)),
    st.sampled_from([125, 126, 127, 300, 65535, 65536, MOST, MOST + 1]),
)
whatever = st.builds(
    frame,
    st.sampled_from([CONT, TEXT, BINARY, PING, PONG, CLOSE, 3, 11]),
    st.one_of(data(8), data(200), st.just(b"\x0fA")),
    final=st.sampled_from([True, True, False]),
    masked=st.sampled_from([True, True, True, False]),
    reserved=st.sampled_from([0, 0, 0, 4]),
)
fragments = st.builds(
    lambda first, more, last: [
        frame(BINARY, first, final=False),
        *more,
        frame(CONT, last),
    ],
    data(20),
    st.lists(
        st.one_of(
            st.builds(frame, st.just(PING), data(20)), st.just(frame(CONT, b"-", final=False))
        ),
        max_size=3,
    ),
    data(20),
)
alone = st.one_of(right, right, long, whatever).map(lambda one: [one])
conversation = st.lists(st.one_of(alone, alone, fragments), max_size=6).map(
    lambda parts: [one for part in parts for one in part]
)


@given(conversation, st.lists(st.integers(0, 2000), max_size=6))
@example([frame(data=b"by the byte"), frame(CLOSE, b"\x03\xe8")], list(range(30)))
@example([frame(BINARY, b"a", final=False), frame(BINARY, b"in between")], [])
@example([frame(CLOSE, b"\x03\xe8"), frame(data=b"after the goodbye")], [])
@example([frame(data=b"before"), frame(data=bytes(MOST + 1)), frame(data=b"after")], [20])
@example([frame(data=b"before"), frame(data=b"hidden from nobody", masked=False)], [])
@settings(max_examples=200, deadline=None)
def test_the_same_messages_and_the_same_answers(frames: list[bytes], places: list[int]) -> None:
    asyncio.run(_same(frames, places))


async def test_whole_messages_come_in_the_call_that_brings_their_last_byte() -> None:
    taker, _wire = await taken()
    one, two = frame(data=b"one"), frame(data=b"two" * 100)
    taker.websocket.data_received(one + two[:50])
    assert taker.messages == [b"one"]
    taker.websocket.data_received(two[50:] + one)
    assert taker.messages == [b"one", b"two" * 100, b"one"]


async def test_what_is_written_is_what_websockets_would_write() -> None:
    taker, wire = await taken()
    for size in (0, 1, 125, 126, 65535, 65536):
        wire.written = b""
        message = bytes(size)
        taker.websocket.write(message)
        assert wire.written == Frame(Opcode.BINARY, message).serialize(mask=False)
    taker.websocket.data_received(frame(CLOSE, b"\x03\xe8"))
    said = wire.written
    taker.websocket.write(b"too late")
    assert wire.written == said


async def test_a_pause_holds_whole_messages_and_the_end_of_one_back() -> None:
    taker, wire = await taken()
    taker.pause_at = 2
    messages = [b"%d" % n for n in range(6)]
    stream = b"".join(frame(data=message) for message in messages)
    taker.websocket.data_received(stream[:-1])
    assert taker.messages == messages[:2]
    assert not wire.reading
    taker.websocket.data_received(stream[-1:])  # had been read already
    assert taker.messages == messages[:2]
    taker.pause_at = 4
    taker.websocket.go_on()
    assert taker.messages == messages[:4]
    assert not wire.reading
    taker.websocket.go_on()
    assert taker.messages == messages
    assert wire.reading


async def test_a_full_transport_is_told_and_so_is_one_that_has_room() -> None:
    taker, _wire = await taken()
    assert taker.writable
    taker.websocket.pause_writing()
    assert not taker.writable
    taker.websocket.resume_writing()
    assert taker.writable


async def test_given_back_it_is_uvicorns() -> None:
    taker, wire = await taken()
    taker.pause_at = 1
    taker.websocket.data_received(frame(data=b"mine") + frame(CLOSE, b"\x0f\xa0")[:3])
    taker.websocket.give_back()
    assert wire.reading
    taker.websocket.data_received(frame(CLOSE, b"\x0f\xa0")[3:])
    await settled()
    assert taker.messages == [b"mine"]
    assert taker.left == {"type": "websocket.disconnect", "code": 4000, "reason": ""}
    assert wire.closed


async def test_one_that_speaks_before_the_answer_is_not_taken() -> None:
    """RFC 6455 section 4.1: what it said is with uvicorn already, perhaps half a frame."""

    class Slow(Taker):
        was_taken: bool | None = None

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await ready.wait()
            await send({"type": "websocket.accept"})
            self.was_taken = direct(scope).take(self)

    for early in (b"", frame(data=b"early"), frame(data=b"half")[:2]):
        ready, slow = asyncio.Event(), Slow()
        config = uvicorn.Config(slow, ws=WebSocket, lifespan="off", log_config=None)
        config.load()
        protocol: Any = WebSocket(config=config, server_state=ServerState(), app_state={})
        protocol.connection_made(Wire())
        protocol.data_received(UPGRADE)
        if early:
            protocol.data_received(early)
        ready.set()
        await settled()
        assert slow.was_taken is (not early)
        assert slow.messages == []
        protocol.connection_lost(None)


async def test_another_protocol_is_no_way_in() -> None:
    with pytest.raises(RuntimeError, match="ws="):
        direct({"extensions": {"websocket.http.response": {}}})


def test_a_frame_is_as_long_as_its_bytes_tell() -> None:
    whole = frame(data=bytes(300))
    assert [frame_size(whole[:have], 0, 1000) for have in (1, 2, 3, 4, 50, 308)] == [
        2, 4, 4, 308, 308, 308,
    ]  # fmt: skip
    assert frame_size(b"before" + whole, 6, 1000) == 308
    assert frame_size(whole, 0, 299) == 4  # too long: the header is enough to refuse it
    assert frame_size(frame(data=bytes(300), masked=False), 0, 1000) == 2
    assert frame_size(frame(data=bytes(300), bits=64)[:9], 0, 1000) == 10


def test_what_is_replaced_of_uvicorn_is_there() -> None:
    """The pin has moved otherwise."""
    for name in (
        "run_asgi",
        "data_received",
        "connection_lost",
        "pause_writing",
        "resume_writing",
        "send_receive_event_to_app",
    ):
        assert name in vars(WebSocketsSansIOProtocol), name
        assert name in vars(WebSocket), name
