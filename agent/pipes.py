"""A session's streams and their sockets on loopback: the bytes, not where they lead.

Towards the service: what its socket does not take is not credited, so the peer stops at the window.
Towards the peer: a socket is read only into what the mux has credit for. Which port a stream leads
to is decided in agent.streams and nowhere else.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from agent.wire.catalogue import Level
from agent.wire.mux import Mux, Opened, ResetCode
from agent.wire.patience import Patience

READ = 128 * 1024  # bytes of a socket read at once
WRITE_AHEAD = 256 * 1024  # bytes a socket may leave in our memory before credit stops


class Pipe(asyncio.BufferedProtocol):
    """One stream of a session and its socket."""

    def __init__(self, channel: "Channel", stream: int) -> None:
        self._channel = channel
        self._mux = channel.mux
        self._stream = stream
        self._transport: asyncio.Transport | None = None
        self._buffer = memoryview(bytearray(READ))
        self._reading = True
        self._room = 0  # bytes that `get_buffer` offered
        self._full = False  # the socket takes no more for now
        self._waiting: deque[bytes] = deque()  # data that came before the socket, or in a pause
        self._uncredited = 0
        self._peer_ended = False
        self._we_ended = False
        self.dial: asyncio.Task[None] | None = None

    # --- the socket's side -----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=WRITE_AHEAD)
        self._mux.accept(self._stream)
        self.go_on()
        self._channel.ready()

    def get_buffer(self, sizehint: int) -> memoryview:
        # Reading is paused while there is no credit, so there is some.
        self._room = min(READ, max(1, self._mux.writable(self._stream)))
        return self._buffer[: self._room]

    def buffer_updated(self, nbytes: int) -> None:
        self._mux.send(self._stream, bytes(self._buffer[:nbytes]))
        self._channel.bytes_up += nbytes
        if nbytes >= self._room:
            self._read_if_there_is_room()
        self._channel.ready()

    def eof_received(self) -> bool:
        self._we_ended = True
        self._mux.end(self._stream)
        self._close_if_over()
        self._channel.ready()
        return True  # the other half may go on

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if not (self._we_ended and self._peer_ended):
            self._mux.reset(self._stream, ResetCode.CANCELLED)
        self._channel.pipes.pop(self._stream, None)
        self._channel.ready()

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self._credit(0)
        self._channel.ready()

    # --- the peer's side -------------------------------------------------------------------------

    def data(self, data: bytes) -> None:
        if self._transport is None or self._channel.paused:
            self._waiting.append(data)
            return
        self._channel.bytes_down += len(data)
        self._transport.write(data)
        self._credit(len(data))

    def ended(self) -> None:
        self._peer_ended = True
        self._end_if_flushed()

    def credited(self) -> None:
        self._read_if_there_is_room()

    def go_on(self) -> None:
        """The socket is there, or a pause is over."""
        while self._waiting and self._transport is not None and not self._channel.paused:
            self.data(self._waiting.popleft())
        self._end_if_flushed()
        self._read_if_there_is_room()

    def hold(self) -> None:
        self._read_if_there_is_room()

    def abort(self) -> None:
        """At once; what was not sent is lost."""
        self._peer_ended = self._we_ended = True  # nothing is to be told about the stream
        if self.dial is not None:
            self.dial.cancel()
        if self._transport is not None:
            self._transport.abort()
        self._channel.pipes.pop(self._stream, None)

    # --- inside ----------------------------------------------------------------------------------

    def _credit(self, size: int) -> None:
        """`size` more bytes were written; let the peer send as many unless the socket is full."""
        self._uncredited += size
        if not self._full and self._uncredited:
            self._mux.consumed(self._stream, self._uncredited)
            self._uncredited = 0

    def _read_if_there_is_room(self) -> None:
        if self._transport is None or self._we_ended:
            return
        wanted = not self._channel.paused and self._mux.writable(self._stream) > 0
        if wanted != self._reading:
            self._reading = wanted
            if wanted:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def _end_if_flushed(self) -> None:
        if self._peer_ended and not self._waiting and self._transport is not None:
            if not self._we_ended and self._transport.can_write_eof():
                self._transport.write_eof()
            self._close_if_over()

    def _close_if_over(self) -> None:
        over = self._peer_ended and self._we_ended and not self._waiting
        if over and self._transport is not None:
            self._transport.close()  # after what is still to be written


@dataclass(eq=False)
class Channel:
    """A session's mux, and what its streams may reach."""

    mux: Mux
    ready: Callable[[], None]
    services: frozenset[str]
    level: Level
    paused: bool = False
    pipes: dict[int, Pipe] = field(default_factory=dict)
    held: list[Opened] = field(default_factory=list)  # asked for in a pause; bounded by the mux
    bytes_up: int = 0  # to the peer
    bytes_down: int = 0
    faults: int = 0  # frames that were not taken

    def __post_init__(self) -> None:
        self.patience = Patience(self.mux)

    def cut(self, stream: int) -> None:
        self.mux.reset(stream, ResetCode.GAP)
        self.held = [opened for opened in self.held if opened.stream != stream]
        if (pipe := self.pipes.get(stream)) is not None:
            pipe.abort()
