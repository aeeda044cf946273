"""MQTT's bytes in websocket messages, behind the face of a socket (R-CON-7)."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.exceptions import InvalidState
from websockets.frames import Frame, Opcode
from websockets.server import ServerProtocol

from agent.network import websocket
from agent.network.websocket import MAX_MESSAGE, UpgradeRefused, WebSocket


class Wire:
    """The TLS socket's face over a pair of buffers; takes at most `room` bytes a time."""

    def __init__(self) -> None:
        self.inbox = bytearray()
        self.sent = bytearray()
        self.room: int | None = None
        self.ended = False
        self.closed = False

    def recv(self, size: int) -> bytes:
        if not self.inbox:
            if self.ended:
                return b""
            raise ssl.SSLWantReadError
        chunk = bytes(self.inbox[:size])
        del self.inbox[:size]
        return chunk

    def send(self, data: bytes) -> int:
        if self.room == 0:
            raise ssl.SSLWantWriteError
        taken = len(data) if self.room is None else min(self.room, len(data))
        if self.room is not None:
            self.room -= taken
        self.sent += data[:taken]
        return taken

    def sendall(self, data: bytes) -> None:
        self.sent += data

    def pending(self) -> int:
        return len(self.inbox)

    def close(self) -> None:
        self.closed = True


class Ends:
    """An open websocket: our end, and the server's as the package does it."""

    def __init__(self) -> None:
        self.wire = Wire()
        self.frames = websocket.protocol("gate.example", 443)
        self.server = ServerProtocol(subprotocols=["mqtt"])  # type: ignore[list-item]
        self.frames.send_request(self.frames.connect())
        self.server.receive_data(b"".join(self.frames.data_to_send()))
        (request,) = self.server.events_received()
        self.request: Any = request
        self.server.send_response(self.server.accept(self.request))
        self.frames.receive_data(b"".join(self.server.data_to_send()))
        self.frames.events_received()
        self.ours = WebSocket(self.wire, self.frames)  # type: ignore[arg-type]

    def from_server(self, *frames: Frame) -> None:
        for frame in frames:
            self.wire.inbox += frame.serialize(mask=False, extensions=[])

    def at_server(self) -> list[Frame]:
        self.server.receive_data(bytes(self.wire.sent))
        self.wire.sent.clear()
        return [event for event in self.server.events_received() if isinstance(event, Frame)]

    def read_all(self, size: int = 65536) -> bytes:
        got = bytearray()
        while True:
            try:
                chunk = self.ours.recv(size)
            except ssl.SSLWantReadError:
                return bytes(got)
            if not chunk:
                return bytes(got)
            got += chunk


def test_the_upgrade_asks_for_mqtt_at_its_path() -> None:
    request = Ends().request
    assert request.path == "/mqtt"
    assert request.headers["Sec-WebSocket-Protocol"] == "mqtt"
    assert request.headers["Host"] == "gate.example"


@given(st.lists(st.binary(max_size=300), max_size=8), st.integers(1, 100))
@settings(max_examples=60, deadline=None)
def test_what_the_server_frames_is_read_as_one_stream(pieces: list[bytes], size: int) -> None:
    ends = Ends()
    ends.from_server(*(Frame(Opcode.BINARY, piece) for piece in pieces))
    assert ends.read_all(size) == b"".join(pieces)


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=6), st.integers(1, 50))
@settings(max_examples=60, deadline=None)
def test_a_socket_that_takes_little_loses_and_doubles_nothing(
    pieces: list[bytes], room: int
) -> None:
    ends = Ends()
    for piece in pieces:
        while True:
            ends.wire.room = room
            try:
                taken = ends.ours.send(piece)
            except BlockingIOError:
                continue
            assert taken == len(piece)
            break
    frames = ends.at_server()
    assert [frame.opcode for frame in frames] == [Opcode.BINARY] * len(pieces)
    assert [bytes(frame.data) for frame in frames] == pieces


def test_a_fragment_is_read_before_the_message_is_whole() -> None:
    ends = Ends()
    ends.from_server(Frame(Opcode.BINARY, b"one", fin=False))
    assert ends.read_all() == b"one"
    ends.from_server(Frame(Opcode.PING, b""), Frame(Opcode.CONT, b"two"))
    assert ends.read_all() == b"two"


def test_a_ping_is_answered_between_two_pieces() -> None:
    ends = Ends()
    ends.wire.room = 3
    with pytest.raises(BlockingIOError):
        ends.ours.send(b"a piece")
    ends.from_server(Frame(Opcode.PING, b"there?"))
    ends.wire.room = None
    ends.read_all()
    assert ends.ours.send(b"a piece") == 7
    assert [(f.opcode, bytes(f.data)) for f in ends.at_server()] == [
        (Opcode.BINARY, b"a piece"),
        (Opcode.PONG, b"there?"),
    ]


def test_pings_that_are_never_read_end_it() -> None:
    ends = Ends()
    ends.wire.room = 0
    with pytest.raises(BlockingIOError):
        ends.ours.send(bytes(MAX_MESSAGE))
    with pytest.raises(ConnectionResetError):
        for _each in range(20_000):
            ends.from_server(Frame(Opcode.PING, bytes(125)))
            ends.read_all()


@pytest.mark.parametrize(
    "frame",
    [
        Frame(Opcode.TEXT, b"hello"),
        Frame(Opcode.CLOSE, b"\x03\xe8"),
        Frame(Opcode.BINARY, bytes(MAX_MESSAGE + 1)),
    ],
    ids=["text", "close", "too-large"],
)
def test_what_ends_the_websocket_reads_as_the_end(frame: Frame) -> None:
    ends = Ends()
    ends.from_server(Frame(Opcode.BINARY, b"before"), frame)
    assert ends.read_all() == b"before"
    assert ends.ours.pending()  # so that it is looked at without waiting for the kernel
    assert ends.ours.recv(1) == b""
    with pytest.raises(OSError, match="closed"):
        ends.ours.send(b"after")


def test_the_end_of_tls_is_the_end() -> None:
    ends = Ends()
    ends.wire.ended = True
    assert ends.ours.recv(1) == b""


def test_closing_says_so() -> None:
    ends = Ends()
    ends.ours.close()
    assert ends.wire.closed
    assert [frame.opcode for frame in ends.at_server()] == [Opcode.CLOSE]
    with pytest.raises(InvalidState):
        ends.server.send_binary(b"x")


@contextmanager
def answered(data: bytes) -> Iterator[Any]:
    """A blocking socket whose peer says `data` to whatever comes, and closes."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(2)
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        yield ours


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", 403),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200),
        (b"", 0),
        (b"\x16\x03\x03", 0),
        (b"HTTP/1.1 101 Switching Protocols\r\nX: " + bytes(20_000), 0),
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 9999999\r\n\r\n" + b"x" * 20_000, 0),
    ],
    ids=["403", "200", "closed", "no-http", "endless-head", "endless-body"],
)
def test_a_server_that_does_not_upgrade(answer: bytes, status: int) -> None:
    with answered(answer) as sock, pytest.raises(UpgradeRefused) as caught:
        websocket.opening(sock, "gate.example", 443)
    assert caught.value.status == status
