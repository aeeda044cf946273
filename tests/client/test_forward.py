"""A local connection and its stream, whatever the local program does and however little the
injector lets through (R-ACC-5). The websocket and the sockets are real; the injector is a mux."""

import asyncio
import contextlib
import os
import signal
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.uri import parse_uri

from agent.wire.mux import Acknowledged, Data, Ended, Event, Mux, Opened, Reset, ResetCode
from fleet.client.carrier import Carrier
from fleet.client.forward import WRITE_AHEAD, Forward
from fleet.client.websocket import Websocket
from tests.agent.wire.muxes import seals

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Injector:
    """Accepts and uses what came when the test says so."""

    def __init__(self, window: int) -> None:
        self.mux = Mux(seals()[1], window=window)
        self.events: list[Event] = []
        self.uses = True
        self._peer: ServerConnection | None = None

    async def serve(self, peer: ServerConnection) -> None:
        self._peer = peer
        with contextlib.suppress(ConnectionClosed):
            async for frame in peer:
                assert isinstance(frame, bytes)
                for event in self.mux.receive(frame):
                    self.events.append(event)
                    if self.uses and isinstance(event, Data):
                        self.mux.consumed(event.stream, len(event.data))
                await self.pump()

    async def pump(self) -> None:
        assert self._peer is not None
        while (frame := self.mux.next_frame()) is not None:
            await self._peer.send(frame)

    async def heard(self, kind: type[Event]) -> Event:
        """The first event of this kind."""
        async with asyncio.timeout(10):
            while True:
                for event in self.events:
                    if isinstance(event, kind):
                        return event
                await asyncio.sleep(0.005)

    async def accept(self) -> int:
        stream = (await self.heard(Opened)).stream
        self.mux.accept(stream)
        await self.pump()
        return stream

    async def fill(self, stream: int) -> int:
        """Send until nothing more is let through for a while. Returns how much went."""
        total, quiet = 0, 0
        while quiet < 20 and total < 64 * 1024 * 1024:
            room = self.mux.writable(stream)
            if room:
                self.mux.send(stream, bytes(room))
                total += room
                await self.pump()
            quiet = 0 if room else quiet + 1
            await asyncio.sleep(0.01)
        return total

    @property
    def data(self) -> bytes:
        return b"".join(event.data for event in self.events if isinstance(event, Data))


@asynccontextmanager
async def forwarding(window: int = 65536) -> AsyncIterator[tuple[Injector, int, list[str]]]:
    """An injector, the local port, and what the person was told."""
    injector, said = Injector(window), list[str]()
    numbers = iter(range(1, 100))
    carrier = Carrier(seals()[0], lambda: next(numbers))
    async with serve(injector.serve, "127.0.0.1", 0, compression=None) as server:
        there = server.sockets[0].getsockname()[1]
        uri = parse_uri(f"ws://127.0.0.1:{there}/")

        async def carry(ready: object) -> None:
            websocket = Websocket(uri, {}, carrier)
            await asyncio.get_running_loop().create_connection(
                lambda: websocket, "127.0.0.1", there
            )
            await websocket.opened()
            ready()  # type: ignore[operator]
            await carrier.attach(websocket)

        listening: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        forward = Forward(carrier, "ssh", bulk=False, say=said.append)
        running = asyncio.create_task(forward.run(carry, 0, listening.set_result))
        try:
            async with asyncio.timeout(20):
                yield injector, await listening, said
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def until(true: object) -> None:
    async with asyncio.timeout(10):
        while not true():  # type: ignore[operator]  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def closed(program: Streams) -> None:
    program[1].close()
    with contextlib.suppress(OSError):
        await program[1].wait_closed()


async def test_what_is_said_before_the_injector_accepts_arrives_whole() -> None:
    """However little it then lets through at a time."""
    data = bytes(range(256)) * 40
    async with forwarding(window=7) as (injector, port, _said):
        program = await asyncio.open_connection("127.0.0.1", port)
        program[1].write(data)
        program[1].write_eof()
        await injector.heard(Opened)
        await asyncio.sleep(0.05)
        assert injector.data == b""
        await injector.accept()
        await injector.heard(Ended)
        assert injector.data == data
        await closed(program)


async def test_an_end_before_the_injector_accepts_is_told() -> None:
    async with forwarding() as (injector, port, _said):
        program = await asyncio.open_connection("127.0.0.1", port)
        program[1].write_eof()
        await injector.heard(Opened)
        await asyncio.sleep(0.05)
        stream = await injector.accept()
        await injector.heard(Ended)
        injector.mux.send(stream, b"goodbye")
        injector.mux.end(stream)
        await injector.pump()
        assert await program[0].read() == b"goodbye"
        await injector.heard(Acknowledged)
        assert injector.mux.streams == ()
        await closed(program)


async def test_a_program_that_does_not_read_is_not_credited() -> None:
    """What it leaves lies in socket buffers, one bound of memory here and one window."""
    window = 65536
    async with forwarding(window) as (injector, port, _said):
        with socket.socket() as program:
            program.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
            program.setblocking(False)
            await asyncio.get_running_loop().sock_connect(program, ("127.0.0.1", port))
            stream = await injector.accept()
            total = await injector.fill(stream)
            assert total < 32 * 1024 * 1024
            injector.mux.end(stream)
            await injector.pump()
            got = 0
            while data := await asyncio.get_running_loop().sock_recv(program, 65536):
                got += len(data)
                await injector.pump()
            assert got == total
            assert total > WRITE_AHEAD


async def test_a_program_that_goes_away_is_told_and_one_that_is_cut_knows() -> None:
    async with forwarding() as (injector, port, said):
        program = await asyncio.open_connection("127.0.0.1", port)
        await injector.accept()
        linger = struct.pack("ii", 1, 0)
        program[1].get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        program[1].transport.abort()
        assert await injector.heard(Reset) == Reset(65537, ResetCode.CANCELLED, by_peer=True)
        injector.events.clear()
        other = await asyncio.open_connection("127.0.0.1", port)
        stream = await injector.accept()
        injector.mux.reset(stream, ResetCode.SESSION_OVER)
        await injector.pump()
        with pytest.raises(ConnectionResetError):  # an end would look like all of it
            await other[0].read()
        await until(lambda: said)
        assert said[0].startswith("ssh: ")
        await closed(other)


async def test_one_that_dies_with_unread_bytes_frees_its_stream() -> None:
    """Both ends have ended, but what came last was never taken: the injector must not wait."""
    async with forwarding() as (injector, port, _said):
        with socket.socket() as program:
            program.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            program.setblocking(False)
            await asyncio.get_running_loop().sock_connect(program, ("127.0.0.1", port))
            stream = await injector.accept()
            program.shutdown(socket.SHUT_WR)
            await injector.heard(Ended)
            await injector.fill(stream)
            injector.mux.end(stream)
            await injector.pump()
            await asyncio.sleep(0.1)
            assert injector.mux.streams == (stream,)
        await until(lambda: injector.mux.streams == ())


async def test_ctrl_c_tells_the_injector_and_the_local_program() -> None:
    async with forwarding() as (injector, port, _said):
        program = await asyncio.open_connection("127.0.0.1", port)
        await injector.accept()
        os.kill(os.getpid(), signal.SIGINT)
        assert await injector.heard(Reset) == Reset(65537, ResetCode.CANCELLED, by_peer=True)
        with pytest.raises(ConnectionResetError):
            await program[0].read()
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", port)
        await closed(program)
