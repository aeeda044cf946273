"""A session's websocket over the sans-IO half of the websockets package (RFC 6455).

Theory of operation. Nearly everything that passes is one frame of a stream in one binary message.
Those are taken where they were read and written where they are made: no task wakes for them, no
queue holds them. Everything else is the package's to judge and to answer:

    socket ─▶ buffer ─┬─ a whole binary message ─▶ owner.receive(frame)
                      └─ anything else ─▶ ClientProtocol ─▶ what to write, what it meant
    owner.pump() ─▶ send(frame) ─▶ transport, while it is not `full`

So the bounds of frames are found here. Pings and Close are given to the package whole, and plain
messages go on. Of anything stranger (fragments, a length that no frame of ours has, what breaks the
rules) nothing is read here: from then on the package gets every byte of this connection.

A ping goes out PING_S after the last answer; one that is not answered within PONG_S ends the
connection, as does a goodbye without an answer after CLOSE_S.
"""

import asyncio
import logging
import secrets
import struct
from collections.abc import Callable, Mapping
from typing import Protocol, cast

from websockets.client import ClientProtocol
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import State
from websockets.uri import WebSocketURI

from agent.wire.frames import MAX_FRAME

try:
    from websockets.speedups import apply_mask
except ImportError:  # a platform without the compiled part
    from websockets.utils import apply_mask

PING_S = 10.0
PONG_S = 15.0
CLOSE_S = 3.0
_READ = 256 * 1024  # bytes of the socket read at once
_WRITE_AHEAD = 64 * 1024  # bytes in our memory that the socket has not taken: then it is full
_MAX_HEAD = 16 * 1024  # bytes of the answer to the upgrade that are looked through
_PLAIN = 0x80 | Opcode.BINARY  # first byte of a whole binary message
_CONTROL = frozenset(0x80 | kind for kind in (Opcode.PING, Opcode.PONG, Opcode.CLOSE))
_LENGTH_16 = 126  # second byte: the length follows in two bytes
_MASKED = 0x80  # in the second byte, with a key of four bytes behind the length
_SHORT = struct.Struct(">BB4s")
_LONG = struct.Struct(">BBH4s")

_quiet = logging.getLogger("patency.stream")
_quiet.setLevel(logging.WARNING)  # the package has a line for each frame


class Owner(Protocol):
    """Whose frames they are."""

    def receive(self, frame: memoryview) -> None:
        """A frame came. What it shows is overwritten after the call."""

    def pump(self) -> None:
        """Frames may be sent: some came, or there is room again."""


class Websocket(asyncio.BufferedProtocol):
    """One connection, from its upgrade to its end."""

    _transport: asyncio.Transport

    def __init__(self, uri: WebSocketURI, headers: Mapping[str, str], owner: Owner) -> None:
        self.full = False  # the socket takes no more for now
        self._owner = owner
        self._headers = headers
        self._frames = ClientProtocol(uri, max_size=MAX_FRAME, logger=_quiet)
        self._buffer = bytearray(_READ + MAX_FRAME)
        self._view = memoryview(self._buffer)
        self._end = 0  # bytes in the buffer
        self._plain = False  # frames are found here; false: by the package
        self._parts: list[bytes] = []  # of a message in fragments
        self._is_binary = False  # that message
        self._is_greeted = False  # the answer to the upgrade came, whatever it is
        self._is_leaving = False  # Close was said, here or there
        # To mask with, one a message, which nobody can foresee (RFC 6455 section 10.3). Made in
        # advance, as each making is a call into the kernel.
        self._keys: list[bytes] = []
        self._token = b""  # of the ping that waits for its answer
        self._timer: asyncio.TimerHandle | None = None
        self._answered = asyncio.Event()
        self._refusal: Exception | None = None  # instead of opening
        self._over = asyncio.Event()
        self._room = asyncio.Event()
        self._fault: Exception | None = None
        self._room.set()

    # --- what the owner may ask and do -----------------------------------------------------------

    @property
    def close_code(self) -> int | None:
        """What the portal said at the end, 1006 when it said nothing; None before."""
        return self._frames.close_code

    async def opened(self) -> None:
        """Wait for the answer to the upgrade. Raises InvalidHandshake, OSError."""
        await self._answered.wait()
        if self._refusal is not None:
            raise self._refusal

    async def ended(self) -> None:
        """Wait for the end. Raises what the owner raised when it was given a frame."""
        await self._over.wait()
        if self._fault is not None:
            raise self._fault

    async def drained(self) -> None:
        """Wait until the socket has taken all that the owner has for it, or it is over."""
        await self._room.wait()

    def send(self, message: bytes) -> None:
        """Write one binary message; not when it is full."""
        if not self._keys:
            self._make_keys()
        size, key = len(message), self._keys.pop()
        if size < _LENGTH_16:
            head = _SHORT.pack(_PLAIN, _MASKED | size, key)
        else:
            head = _LONG.pack(_PLAIN, _MASKED | _LENGTH_16, size, key)
        self._transport.write(head + apply_mask(message, key))

    async def close(self) -> None:
        """Say goodbye and wait for the other's, at most CLOSE_S. No effect once it is over."""
        if self._frames.state is State.OPEN:
            self._frames.send_close(CloseCode.NORMAL_CLOSURE)
            self._flush()
            self._leave()
        try:
            await self._over.wait()
        finally:
            self.abort()

    def abort(self) -> None:
        self._transport.abort()

    # --- the socket ------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's does not inherit
        self._transport.set_write_buffer_limits(high=_WRITE_AHEAD)
        request = self._frames.connect()
        request.headers.update(self._headers)
        self._frames.send_request(request)
        self._flush()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._view[self._end :] if self._end else self._view

    def buffer_updated(self, nbytes: int) -> None:
        self._end += nbytes
        try:
            if self._plain:
                self._take()
            elif self._is_greeted:
                self._hand_over(0)
            else:
                self._greet()
        except Exception as fault:  # the owner's: whoever waits for the end hears of it
            self._fault = fault
            self.abort()

    def eof_received(self) -> None:
        """Half-closed is closed."""
        self._frames.receive_eof()
        self._flush()

    def connection_lost(self, error: Exception | None) -> None:
        self._frames.receive_eof()
        self._stop_timer()
        if not self._answered.is_set():
            refused = self._frames.handshake_exc
            self._refusal = error or refused or ConnectionAbortedError()
            self._answered.set()
        self._plain, self._is_leaving, self.full = False, True, True
        self._room.set()
        self._over.set()

    def pause_writing(self) -> None:
        self.full = True
        self._room.clear()

    def resume_writing(self) -> None:
        if not self._is_leaving:
            self.full = False
            self._owner.pump()
        if not self.full:
            self._room.set()

    # --- frames in -------------------------------------------------------------------------------

    def _take(self) -> None:
        """The whole frames of the buffer. What is left goes to its front and waits for the rest."""
        buffer, view, at, end = self._buffer, self._view, 0, self._end
        receive = self._owner.receive
        while end - at >= 2:
            kind, size, start = buffer[at], buffer[at + 1], at + 2
            if size == _LENGTH_16 and kind == _PLAIN:
                if end - at < 4:
                    break
                size, start = buffer[at + 2] << 8 | buffer[at + 3], at + 4
            elif size >= _LENGTH_16:  # longer than any frame of ours, or masked
                kind = 0
            stop = start + size
            if kind == _PLAIN and size <= MAX_FRAME:
                if stop > end:
                    break
                receive(view[start:stop])
                at = stop
            elif kind in _CONTROL:
                if stop > end:
                    break
                self._judge(bytes(view[at:stop]))
                at = stop
            else:
                self._plain = False
            if not self._plain:
                self._hand_over(at)
                return
        rest = end - at
        if rest and at:
            view[:rest] = view[at:end]
        self._end = rest
        self._owner.pump()

    def _greet(self) -> None:
        """The answer to the upgrade; frames may stand right behind it."""
        size = self._buffer.find(b"\r\n\r\n", 0, self._end) + 4
        if size < 4 and self._end < _MAX_HEAD:
            return
        self._is_greeted = True
        if size < 4:  # endless, or no HTTP
            self._hand_over(0)
            return
        end = self._end
        self._judge(bytes(self._view[:size]))
        if self._frames.state is State.OPEN:
            self._plain = True
            self._view[: end - size] = self._view[size:end]
            self._end = end - size
            self._take()
        else:
            self._hand_over(size)

    def _hand_over(self, at: int) -> None:
        """The package reads on from here."""
        data = bytes(self._view[at : self._end])
        self._end = 0
        self._judge(data)
        self._owner.pump()

    def _judge(self, data: bytes) -> None:
        """What the package says to these bytes."""
        frames = self._frames
        frames.receive_data(data)
        events = frames.events_received()
        self._flush()
        for event in events:
            if isinstance(event, Frame):
                self._heard(event)
        if frames.handshake_exc is not None:
            self.abort()  # and the reason is told with the end
        elif frames.state is State.OPEN and not self._answered.is_set():
            self._answered.set()
            self._set_timer(PING_S, self._ping)
        elif frames.state is State.CLOSING:
            self._leave()

    def _heard(self, event: Frame) -> None:
        """One frame that the package read: a pong, or a piece of a message."""
        if event.opcode is Opcode.PONG and event.data == self._token:
            self._set_timer(PING_S, self._ping)
        if event.opcode in (Opcode.BINARY, Opcode.TEXT):
            self._is_binary = event.opcode is Opcode.BINARY
        elif event.opcode is not Opcode.CONT:
            return
        self._parts.append(bytes(event.data))
        if event.fin:
            message = b"".join(self._parts)
            self._parts.clear()
            if self._is_binary:
                self._owner.receive(memoryview(message))

    # --- what is said about the connection itself ------------------------------------------------

    def _flush(self) -> None:
        for data in self._frames.data_to_send():
            if self._transport.is_closing():
                return
            if data:
                self._transport.write(data)
            elif self._transport.can_write_eof():
                self._transport.write_eof()
            else:
                self._transport.close()

    def _ping(self) -> None:
        self._token = secrets.token_bytes(4)
        self._frames.send_ping(self._token)
        self._flush()
        self._set_timer(PONG_S, self._give_up)

    def _give_up(self) -> None:
        self._frames.fail(CloseCode.INTERNAL_ERROR, "keepalive ping timeout")
        self._flush()
        self._leave()

    def _make_keys(self) -> None:
        random = secrets.token_bytes(256)
        self._keys = [random[at : at + 4] for at in range(0, len(random), 4)]

    def _leave(self) -> None:
        """Close was said: nothing more is sent, and the end comes by itself or is made."""
        if not self._is_leaving:
            self._plain, self._is_leaving, self.full = False, True, True
            self._set_timer(CLOSE_S, self.abort)

    def _set_timer(self, delay_s: float, then: Callable[[], None]) -> None:
        self._stop_timer()
        self._timer = asyncio.get_running_loop().call_later(delay_s, then)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
