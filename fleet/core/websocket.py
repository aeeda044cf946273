"""uvicorn's websocket, with a way past ASGI for a connection that an application has let in.

Theory of operation. Through ASGI every message costs a dictionary, a queue, a task that must wake
up, and a parser made of generators; a person who types waits for that twice a keystroke. The
handshake, and with it the whole door, stays ASGI's. Then the application may `take` the connection:

    uvicorn's ──websocket.accept, take──▶ taken ──give_back, or the end──▶ uvicorn's

Bytes are cut into frames by their lengths. While it is taken, a whole unfragmented binary message
goes to the receiver in the call in which its last byte arrived, and `write` puts one into the
transport at once. Every other frame (a fragment, a ping, a close, a text, whatever breaks the
standard) goes to websockets' own protocol and uvicorn's handlers, which judge it as they do for
everybody. They are given whole frames, so that either side can take the next one.

An application finds the connection in its scope: see `direct`.
"""

import struct
from collections.abc import Mapping
from typing import Any, Protocol

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets import frames
from websockets.protocol import State

_EXTENSION = "patency.direct"
_BINARY = 0x82  # final, and no continuation
_MASKED, _LENGTH = 0x80, 0x7F  # in the second byte
_16_BITS = 126  # in place of a length: it follows in so many bits; or, one more, in 64
_HEADER = struct.Struct(">BBH")
# In C where websockets has it so; it stands in no list of names.
_unmask = vars(frames)["apply_mask"]


class Receiver(Protocol):
    """Who takes the messages of a connection. Called on the loop; must not block."""

    def message(self, data: bytes) -> None:
        """A whole binary message."""

    def text(self) -> None:
        """A text message came; what it says is not looked at."""

    def resume_writing(self) -> None:
        """There is room in the transport. Before the first such call there is none."""

    def pause_writing(self) -> None:
        """The transport is full."""


class WebSocket(WebSocketsSansIOProtocol):
    """See the module's theory of operation. Calls belong on the event loop."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._receiver: Receiver | None = None
        self._early = False  # the client has spoken before it was answered
        self._held = bytearray()  # the beginning of a frame, or what waits while it is paused
        self._due = 0  # so much of it is worth another look
        self._paused = False

    # --- for the application -------------------------------------------------------------------

    def take(self, receiver: Receiver) -> bool:
        """Hand messages to the receiver from now on. Call it right after `websocket.accept`.

        False when the client has spoken before it was answered, against the standard (RFC 6455
        section 4.1): some of that is with uvicorn already.
        """
        if self._early or self.disconnected:
            return False
        self._receiver = receiver
        if self.writable.is_set():
            receiver.resume_writing()
        return True

    def write(self, message: bytes) -> None:
        """Send a binary message now; it is dropped when the connection is closing."""
        if self._receiver is None or self.conn.state is not State.OPEN:
            return
        size = len(message)
        if size < _16_BITS:
            self.transport.write(bytes((_BINARY, size)) + message)
        elif size < 1 << 16:
            self.transport.write(_HEADER.pack(_BINARY, _16_BITS, size) + message)
        else:
            self.conn.send_binary(message)
            self.transport.write(b"".join(self.conn.data_to_send()))

    def pause(self) -> None:
        """Read no more, and hand on no message until `go_on`."""
        if not self._paused:
            self._paused = True
            self.transport.pause_reading()

    def go_on(self) -> None:
        if not self._paused:
            return
        self._paused = False
        self._cut(self._take_held())
        if not self._paused and not self.transport.is_closing():
            self.transport.resume_reading()

    def give_back(self) -> None:
        """Let uvicorn handle what comes from now on."""
        self._receiver = None
        held = self._take_held()
        if self.disconnected:
            return
        if self._paused and not self.transport.is_closing():
            self.transport.resume_reading()
        self._paused = False
        if held:
            super().data_received(held)

    def abort(self) -> None:
        """Drop the connection; what has not been sent is lost."""
        self.transport.abort()

    # --- uvicorn's protocol --------------------------------------------------------------------

    async def run_asgi(self) -> None:
        extensions: Any = self.scope["extensions"]
        extensions[_EXTENSION] = self
        await super().run_asgi()

    def data_received(self, data: bytes) -> None:
        if self._receiver is None or self.close_sent:
            self._early = self.handshake_initiated
            super().data_received(data)
        elif not self._held and not self._paused:
            self._cut(data)
        else:
            self._held += data
            if len(self._held) >= self._due and not self._paused:
                self._cut(self._take_held())

    def connection_lost(self, exc: Exception | None) -> None:
        self._receiver = None
        self._held.clear()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._receiver is not None:
            self._receiver.pause_writing()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._receiver is not None:
            self._receiver.resume_writing()

    def send_receive_event_to_app(self) -> None:
        """A message that websockets has put together."""
        receiver = self._receiver
        if receiver is None:
            super().send_receive_event_to_app()
            return
        pieces, self.frames = self.frames, []
        if self.curr_msg_data_type == "text":
            receiver.text()
        else:
            receiver.message(b"".join(pieces))

    # --- frames --------------------------------------------------------------------------------

    def _take_held(self) -> bytes:
        held = bytes(self._held)
        self._held.clear()
        return held

    def _cut(self, data: bytes) -> None:
        """Hand on every whole frame, and hold the rest."""
        at, end, most = 0, len(data), self.config.ws_max_size
        while at < end and not self._paused:
            if self.conn.state is not State.OPEN:
                return  # what follows a close is nobody's (RFC 6455 section 5.5.1)
            size = frame_size(data, at, most)
            if end - at < size:
                self._due = size
                break
            self._frame(data, at, size)
            at += size
        if at < end:
            self._held += data[at:]

    def _frame(self, data: bytes, at: int, size: int) -> None:
        """Hand on one frame: to the receiver, or to websockets."""
        length, end = data[at + 1] & _LENGTH, at + size
        body = at + (6 if length < _16_BITS else 8 if length == _16_BITS else 14)
        if data[at] == _BINARY and body <= end and self.conn.cur_size is None:
            assert self._receiver is not None  # noqa: S101  (nothing is cut otherwise)
            self._receiver.message(_unmask(data[body:end], data[body - 4 : body]))
        else:
            super().data_received(data[at:end])


def frame_size(data: bytes, at: int, most: int) -> int:
    """How many bytes the frame has that begins at `at`, as far as those that are there tell: more
    than there are when it is not whole.

    A frame that can only be refused (its payload is not masked, or longer than `most`) ends where
    that shows: with the length.
    """
    have = len(data) - at
    if have < 2:
        return 2
    second, header = data[at + 1], 2
    if second < _MASKED:
        return header
    length = second & _LENGTH
    if length >= _16_BITS:
        header = 4 if length == _16_BITS else 10
        if have < header:
            return header
        length = int.from_bytes(data[at + 2 : at + header])
    return header + 4 + length if length <= most else header


def direct(scope: Mapping[str, Any]) -> WebSocket:
    """The connection of a websocket's scope. Raises RuntimeError when the server was not set up
    with `ws=WebSocket`."""
    found: WebSocket | None = scope["extensions"].get(_EXTENSION)
    if found is None:
        raise RuntimeError("uvicorn must be given ws=fleet.core.websocket.WebSocket")
    return found
