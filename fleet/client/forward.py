"""A local port whose every connection is a stream of the session.

Bytes go straight through: what the local program wrote is sealed and sent where it was read, what
came is written where it was opened. Nothing is unbounded: a local program is read only into what
the injector has credit for, and what it does not take itself is not credited.
"""

import asyncio
import contextlib
import signal
import socket
import struct
from collections.abc import Callable, Iterator
from typing import cast

from agent.wire import mux as wire
from agent.wire.mux import ResetCode
from fleet.client import words
from fleet.client.carrier import Carrier, End, StreamReset
from fleet.client.errors import ClientError
from fleet.client.i18n import _
from fleet.client.tunnel import Carrying

READ = 256 * 1024  # bytes of a local socket read at once
WRITE_AHEAD = 256 * 1024  # bytes a local socket may leave in our memory before credit stops
_EARLY = 1024  # bytes that a local program may say before it is heard
_GOODBYE_S = 2.0


class Pipe(End, asyncio.BufferedProtocol):
    """A local connection and its stream."""

    _transport: asyncio.Transport

    def __init__(self, carrier: Carrier, forward: "Forward") -> None:
        super().__init__(carrier)
        self._forward = forward
        self._buffer = forward.buffer
        self._reading = False
        self._room = 0  # bytes that were asked for
        self._early = b""  # read before the injector had accepted
        self._full = False  # the local socket takes no more for now
        self._uncredited = 0  # bytes written to it of which the injector does not know
        self._we_ended = False
        self._peer_ended = False

    # --- its life --------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's does not inherit
        self._transport.set_write_buffer_limits(high=WRITE_AHEAD)
        self._forward.begin(self)

    async def opened(self, service: str, bulk: bool) -> None:
        """Read no more until the injector has accepted. Raises StreamReset, ClientError."""
        self._transport.pause_reading()  # not sooner: the transport starts to read by itself
        await self._carrier.open(self, service, bulk=bulk)
        if self._we_ended:
            self.end()
        self._read_if_there_is_room()

    def connection_lost(self, error: Exception | None) -> None:
        if self._we_ended and self._peer_ended and not self._uncredited:
            self._carrier.release(self)
        else:  # the local program went away
            self.reset()
        self._forward.over(self)

    def abort(self) -> None:
        """Close with a TCP reset: the local program must not take what is cut off for the end."""
        self.reset()
        with contextlib.suppress(OSError):
            self._transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
        self._transport.abort()

    # --- from the local program ------------------------------------------------------------------

    def get_buffer(self, sizehint: int) -> memoryview:
        # Reading is paused while there is no credit, so there is some; but for once at the start.
        self._room = room = self._mux.writable(self.id) or _EARLY
        return self._buffer if room >= READ else self._buffer[:room]

    def buffer_updated(self, nbytes: int) -> None:
        if not self._accepted:
            self._early += bytes(self._buffer[:nbytes])
            self._transport.pause_reading()
            return
        self._mux.send(self.id, self._buffer[:nbytes])
        self._carrier.pump()
        if nbytes == self._room:
            self._read_if_there_is_room()

    def eof_received(self) -> bool:
        self._we_ended = True
        self.end()
        self._close_if_over()
        return True  # the other half may go on

    # --- from the injector -----------------------------------------------------------------------

    def heard(self, event: wire.Event) -> None:
        if isinstance(event, wire.Data):
            self._transport.write(event.data)
            self._credit(len(event.data))
        elif isinstance(event, wire.Credited):
            self._read_if_there_is_room()
        elif isinstance(event, wire.Ended):
            self._peer_ended = True
            self._transport.write_eof()
            self._close_if_over()
        elif isinstance(event, wire.Reset) and self._accepted:
            self._forward.cut(self, event.code)
        else:
            super().heard(event)

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self._credit(0)
        self._carrier.pump()

    # --- inside ----------------------------------------------------------------------------------

    def _credit(self, size: int) -> None:
        """So much more was written; the injector may send as much unless the socket is full."""
        self._uncredited += size
        if not self._full and self._uncredited:
            self._mux.consumed(self.id, self._uncredited)
            self._uncredited = 0

    def _read_if_there_is_room(self) -> None:
        room = self._mux.writable(self.id)
        if self._early and room > 0:
            piece, self._early = self._early[:room], self._early[room:]
            self._mux.send(self.id, piece)
            self._carrier.pump()
            room -= len(piece)
        wanted = not self._we_ended and room > 0
        if wanted is not self._reading:
            self._reading = wanted
            if wanted:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def _close_if_over(self) -> None:
        if self._we_ended and self._peer_ended:
            self._transport.close()  # after what is still to be written


class Forward:
    """One local port; each connection to it is a stream of the session."""

    def __init__(
        self, carrier: Carrier, service: str, *, bulk: bool, say: Callable[[str], None]
    ) -> None:
        self.buffer = memoryview(bytearray(READ))  # a pipe uses it between two calls, and no longer
        self._carrier = carrier
        self._service = service
        self._bulk = bulk
        self._say = say
        self._pipes: dict[Pipe, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup

    async def run(
        self,
        carrying: Carrying,
        port: int,
        listening: Callable[[int], None],
    ) -> None:
        """Serve until SIGINT or SIGTERM. Raises what `carrying` raises, and ClientError."""
        ready, stop = asyncio.Event(), asyncio.Event()
        with _signals(stop):
            async with asyncio.TaskGroup() as self._group:
                holder = self._group.create_task(carrying(ready.set))
                server = await _listen(lambda: Pipe(self._carrier, self), port)
                try:
                    await ready.wait()
                    await server.start_serving()
                    listening(server.sockets[0].getsockname()[1])
                    await stop.wait()
                finally:
                    server.close()
                    for pipe in self._pipes:
                        pipe.abort()
                await self._carrier.flush(_GOODBYE_S)  # the injector hears that they are gone
                holder.cancel()

    # --- its pipes tell --------------------------------------------------------------------------

    def begin(self, pipe: Pipe) -> None:
        self._pipes[pipe] = self._group.create_task(self._open(pipe))

    def cut(self, pipe: Pipe, code: ResetCode) -> None:
        self._say(f"{self._service}: {words.reset(code)}")
        pipe.abort()

    def over(self, pipe: Pipe) -> None:
        self._pipes.pop(pipe).cancel()

    async def _open(self, pipe: Pipe) -> None:
        """What goes wrong with one connection ends it, and nothing else."""
        try:
            await pipe.opened(self._service, self._bulk)
        except StreamReset as reset:
            self.cut(pipe, reset.code)
        except ClientError as error:
            self._say(f"{self._service}: {error.message}")
            pipe.abort()


async def _listen(make: Callable[[], Pipe], port: int) -> asyncio.Server:
    loop = asyncio.get_running_loop()
    try:
        return await loop.create_server(make, "127.0.0.1", port, start_serving=False)
    except OSError as error:
        raise ClientError(
            _(
                "Port {port} of this machine cannot be used: {error}. Choose another, or 0 for any."
            ).format(port=port, error=error.strerror)
        ) from error


@contextlib.contextmanager
def _signals(stop: asyncio.Event) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
