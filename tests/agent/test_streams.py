"""Streams over real loopback sockets (R-ACC-5, R-ACC-8, R-CON-8).

`Session` is the specialist's end: a mux with the other half of the seal, joined to the agent's
Streams by a pipe that can be cut.
"""

import asyncio
import contextlib
import hashlib
import os
import socket
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.drivers import Service
from agent.pipes import WRITE_AHEAD
from agent.streams import MAX_FILES, Streams, TooManyFiles
from agent.wire.catalogue import ClinicalState, Level
from agent.wire.frames import FrameType, Header
from agent.wire.mux import Accepted, Data, Ended, Event, Mux, Reset, ResetCode
from agent.wire.patience import RESUME_S
from agent.wire.seal import Role, Seal
from tests.agent.wire.muxes import SESSION, seals

ID = SESSION.hex()
WINDOW = 1024 * 1024


class Session:
    """Streams of an agent, and the client of one active session."""

    def __init__(self, group: asyncio.TaskGroup, ports: dict[str, Service]) -> None:
        self.ports = ports
        self.kick = asyncio.Event()
        self.streams = Streams(
            ready=self.kick.set, services=lambda: self.ports, spawn=group.create_task
        )
        client, self.device_seal = seals()
        self.client = Mux(client)
        self.events: list[Event] = []
        self.data: dict[int, bytearray] = {}
        self.consuming = True
        self.cut = False
        self.sent: deque[bytes] = deque(maxlen=4)  # newest frames from the agent
        self._next = 0
        self._pump = group.create_task(self._pumping())

    async def _pumping(self) -> None:
        while True:
            self.turn()
            self.kick.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.01):  # wait_for may lose a cancellation in 3.11
                    await self.kick.wait()

    def turn(self) -> None:
        """Move frames until neither end has any."""
        moved = True
        while moved and not self.cut:
            moved = False
            while (frame := self.client.next_frame()) is not None:
                moved = True
                self.streams.receive(frame)
            while (frame := self.streams.next_frame()) is not None:
                moved = True
                self.sent.append(frame)
                for event in self.client.receive(frame):
                    self._event(event)

    def _event(self, event: Event) -> None:
        if isinstance(event, Data):
            self.data.setdefault(event.stream, bytearray()).extend(event.data)
            if self.consuming:
                self.client.consumed(event.stream, len(event.data))
        else:
            self.events.append(event)

    def close(self) -> None:
        self._pump.cancel()

    # --- what a specialist's program does --------------------------------------------------------

    def activate(self, *services: str, level: Level = Level.OS, paused: bool = False) -> None:
        self.streams.activate(ID, self.device_seal, services, level, paused=paused)

    def open(self, service: str, *, bulk: bool = False) -> int:
        self._next += 1
        self.client.open(self._next, service, bulk)
        self.kick.set()
        return self._next

    async def opened(self, service: str) -> int:
        stream = self.open(service)
        await until(lambda: self.accepted(stream))
        return stream

    def accepted(self, stream: int) -> bool:
        return Accepted(stream) in self.events

    async def send(self, stream: int, data: bytes) -> None:
        view = memoryview(data)
        async with asyncio.timeout(30):
            while view:
                room = min(self.client.writable(stream), len(view), 64 * 1024)
                if room:
                    self.client.send(stream, view[:room])
                    view = view[room:]
                self.kick.set()
                await asyncio.sleep(0)

    def end(self, stream: int) -> None:
        self.client.end(stream)
        self.kick.set()

    async def reset(self, stream: int) -> Reset:
        found: list[Event] = []

        def there() -> bool:
            found[:] = [e for e in self.events if isinstance(e, Reset) and e.stream == stream]
            return bool(found)

        await until(there)
        assert isinstance(found[0], Reset)
        return found[0]

    def received(self, stream: int) -> bytes:
        return bytes(self.data.get(stream, b""))


async def until(condition: Callable[[], Any], timeout_s: float = 20) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110  (sockets and muxes have no common event)
            await asyncio.sleep(0.002)


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(handler: Handler) -> AsyncIterator[int]:
    """A service on loopback; gives its port."""

    async def safely(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            await handler(reader, writer)
        writer.close()

    server = await asyncio.start_server(safely, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


@asynccontextmanager
async def session(**ports: Service) -> AsyncIterator[Session]:
    async with asyncio.TaskGroup() as group:
        made = Session(group, ports)
        try:
            yield made
        finally:
            await made.streams.close()
            made.close()


# --- what works ----------------------------------------------------------------------------------


async def test_bytes_go_both_ways_and_each_way_ends_by_itself() -> None:
    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        everything = await reader.read()  # until the client's end
        writer.write(everything.upper())
        writer.write_eof()

    async with listening(shout) as port, session(ssh=Service(Level.OS, port)) as s:
        s.activate("ssh")
        stream = await s.opened("ssh")
        await s.send(stream, b"quiet")
        s.end(stream)
        await until(lambda: Ended(stream) in s.events)
        assert s.received(stream) == b"QUIET"
        assert s.streams.moved(ID) == (5, 5)
        await until(lambda: s.client.streams == ())
        assert not s.streams._channels[SESSION].pipes


async def test_the_service_may_end_first() -> None:
    got = bytearray()

    async def hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        writer.write_eof()
        got.extend(await reader.read())

    async with listening(hello) as port, session(ssh=Service(Level.OS, port)) as s:
        s.activate("ssh")
        stream = await s.opened("ssh")
        await until(lambda: Ended(stream) in s.events)
        await s.send(stream, b"still here")
        s.end(stream)
        await until(lambda: bytes(got) == b"still here")
        await until(lambda: s.client.streams == ())


async def test_much_data_arrives_whole() -> None:
    blob = os.urandom(6 * WINDOW)
    async with listening(echo) as port, session(ssh=Service(Level.OS, port)) as s:
        s.activate("ssh")
        stream = await s.opened("ssh")
        await s.send(stream, blob)
        s.end(stream)
        await until(lambda: Ended(stream) in s.events, 30)
        assert hashlib.sha256(s.received(stream)).digest() == hashlib.sha256(blob).digest()


async def test_two_services_of_one_session() -> None:
    async def name(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"web")

    async with (
        listening(echo) as one,
        listening(name) as two,
        session(ssh=Service(Level.OS, one), web=Service(Level.SERVICE, two)) as s,
    ):
        s.activate("ssh", "web")
        ssh, web = await s.opened("ssh"), await s.opened("web")
        await s.send(ssh, b"ping")
        await until(lambda: s.received(ssh) == b"ping" and s.received(web) == b"web")


# --- where a stream may lead ---------------------------------------------------------------------


@pytest.fixture
def trap() -> Iterator[socket.socket]:
    """A listener that nobody may reach; on every address there is."""
    with socket.socket(socket.AF_INET6) as listener:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(("::", 0))
        listener.listen()
        listener.setblocking(False)
        yield listener


def untouched(listener: socket.socket) -> bool:
    try:
        listener.accept()[0].close()
    except BlockingIOError:
        return True
    return False


@pytest.mark.parametrize(
    "name",
    [
        "ssh:{port}",
        "127.0.0.1:{port}",
        "localhost:{port}",
        "[::1]:{port}",
        "0.0.0.0:{port}",
        "127.1:{port}",
        "2130706433:{port}",
        "192.168.1.10:{port}",
        "{port}",
        "ssh\x00@127.0.0.1:{port}",
        "tcp://127.0.0.1:{port}",
        "../ssh",
        "SSH",
        "",
    ],
)
async def test_no_address_from_the_peer_is_ever_dialled(trap: socket.socket, name: str) -> None:
    """R-ACC-8: the peer has the right key and asks for what no driver names."""
    port = trap.getsockname()[1]
    async with session(ssh=Service(Level.OS, 1)) as s:
        s.activate("ssh")
        payload = b"\x00" + (WINDOW).to_bytes(4, "big") + name.format(port=port).encode()
        header = Header(FrameType.OPEN, SESSION, 7, 0, 0)
        s.streams.receive(seals()[0].close(header, payload))
        await asyncio.sleep(0.03)
        assert untouched(trap)
        assert s.streams.moved(ID) == (0, 0)
        assert not s.streams._channels[SESSION].pipes


@pytest.mark.parametrize(
    ("granted", "level", "asked"),
    [
        (["web"], Level.SERVICE, "ssh"),  # named, not granted
        (["web"], Level.OS, "ssh"),
        (["ssh"], Level.SERVICE, "ssh"),  # granted, at a level that does not cover it
        (["ssh", "vnc"], Level.OS, "vnc"),  # granted, and no longer named
        (["localhost"], Level.OS, "localhost"),
    ],
)
async def test_a_service_must_be_granted_named_and_covered(
    trap: socket.socket, granted: list[str], level: Level, asked: str
) -> None:
    """R-ACC-6, R-ACC-8: 0 bytes pass."""
    port = trap.getsockname()[1]
    async with session(ssh=Service(Level.OS, port), web=Service(Level.SERVICE, 1)) as s:
        s.activate(*granted, level=level)
        stream = s.open(asked)
        assert (await s.reset(stream)).code is ResetCode.REFUSED
        assert untouched(trap)
        assert s.streams.moved(ID) == (0, 0)


async def test_the_port_is_the_drivers_of_this_moment() -> None:
    async with listening(echo) as port, session(ssh=Service(Level.OS, port)) as s:
        s.activate("ssh")
        await s.opened("ssh")
        s.ports = {}
        assert (await s.reset(s.open("ssh"))).code is ResetCode.REFUSED


async def test_it_dials_127_0_0_1_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    dialled: list[tuple[str, int]] = []
    loop = asyncio.get_running_loop()
    real = loop.create_connection

    async def watched(factory: Any, host: str, port: int, **rest: Any) -> Any:
        dialled.append((host, port))
        return await real(factory, host, port, **rest)

    monkeypatch.setattr(loop, "create_connection", watched)
    async with listening(echo) as port, session(ssh=Service(Level.OS, port)) as s:
        s.activate("ssh")
        await s.opened("ssh")
        assert dialled == [("127.0.0.1", port)]


async def test_nobody_listens_there() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        async with session(ssh=Service(Level.OS, port)) as s:
            s.activate("ssh")
            assert (await s.reset(s.open("ssh"))).code is ResetCode.UNREACHABLE
            assert not s.streams._channels[SESSION].pipes


async def test_frames_of_no_active_session_do_nothing(trap: socket.socket) -> None:
    async with session(ssh=Service(Level.OS, trap.getsockname()[1])) as s:
        s.open("ssh")
        await asyncio.sleep(0.03)
        s.streams.receive(b"")
        s.streams.receive(b"rubbish" * 10)
        assert untouched(trap)
        assert s.streams.next_frame() is None


async def test_frames_that_are_not_sealed_by_the_specialist_do_nothing(
    trap: socket.socket,
) -> None:
    """R-ACC-5: whoever carries the frames cannot make any."""
    async with session(ssh=Service(Level.OS, trap.getsockname()[1])) as s:
        s.activate("ssh")
        s.client.open(1, "ssh")
        frame = bytearray(s.client.next_frame() or b"")
        for at in (0, 1, 5, 21, 25, 39, 41, len(frame) - 1):
            altered = bytearray(frame)
            altered[at] ^= 1
            s.streams.receive(bytes(altered))
        await asyncio.sleep(0.03)
        assert untouched(trap)
        assert s.streams._channels[SESSION].faults > 0


# --- bounds --------------------------------------------------------------------------------------


async def test_a_service_that_does_not_read_stops_the_peer() -> None:
    stop = asyncio.Event()

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await stop.wait()
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        while await reader.read(65536):
            pass

    async with listening(deaf) as port, session(ssh=Service(Level.OS, port)) as s:
        s.activate("ssh")
        stream = await s.opened("ssh")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await s.send(stream, bytes(64 * WINDOW))
        sent = s.streams.moved(ID)[1]
        pipe = s.streams._channels[SESSION].pipes[stream]
        assert pipe._transport is not None
        held = pipe._transport.get_write_buffer_size()
        # What the kernel holds is the kernel's; of ours there is a window and a little.
        assert held <= WINDOW + WRITE_AHEAD
        assert s.client.writable(stream) == 0
        stop.set()
        await until(lambda: s.client.writable(stream) > 0)
        assert s.streams.moved(ID)[1] >= sent


async def test_a_client_that_does_not_read_stops_the_service() -> None:
    written = 0

    async def chatty(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        while True:
            writer.write(bytes(65536))
            await writer.drain()
            written += 65536

    async with listening(chatty) as port, session(ssh=Service(Level.OS, port)) as s:
        s.consuming = False
        s.activate("ssh")
        stream = await s.opened("ssh")
        await until(lambda: len(s.received(stream)) == WINDOW)
        before = -1
        async with asyncio.timeout(10):
            while written != before:  # until the sockets between are full too
                before = written
                await asyncio.sleep(0.05)
        assert s.streams.moved(ID)[0] == WINDOW
        s.client.consumed(stream, WINDOW)
        s.kick.set()
        await until(lambda: len(s.received(stream)) == 2 * WINDOW)


async def test_streams_of_a_session_are_counted() -> None:
    async with listening(echo) as port, session(ssh=Service(Level.OS, port)) as s:
        s.client = Mux(seals()[0], max_streams=64)
        s.activate("ssh")
        streams = [s.open("ssh") for _ in range(40)]
        await until(lambda: sum(map(s.accepted, streams)) == 32)
        assert (await s.reset(streams[-1])).code is ResetCode.BUSY
        assert len(s.streams._channels[SESSION].pipes) == 32


# --- the ends ------------------------------------------------------------------------------------


async def test_the_end_of_the_session_closes_its_sockets_at_once() -> None:
    closed = 0

    async def held(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        nonlocal closed
        try:
            await reader.read()
        finally:
            closed += 1

    async with listening(held) as port, session(ssh=Service(Level.OS, port)) as s:
        s.activate("ssh")
        for _ in range(5):
            await s.opened("ssh")
        started = time.monotonic()
        s.streams.deactivate(ID)
        await until(lambda: closed == 5, 2)
        assert time.monotonic() - started < 2
        s.open("ssh")  # and nobody takes its frames any more
        await asyncio.sleep(0.02)
        assert s.streams._channels == {}
        assert s.streams.next_frame() is None
        s.streams.deactivate(ID)


async def test_the_end_comes_while_a_socket_is_being_opened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    never = asyncio.Event()
    cancelled = False

    async def slow(*_args: Any, **_rest: Any) -> Any:
        nonlocal cancelled
        try:
            await never.wait()
        except asyncio.CancelledError:
            cancelled = True
            raise

    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", slow)
    async with session(ssh=Service(Level.OS, 1)) as s:
        s.activate("ssh")
        s.open("ssh")
        await until(lambda: bool(s.streams._channels[SESSION].pipes))
        await asyncio.sleep(0.02)
        s.streams.deactivate(ID)
        await until(lambda: cancelled)


async def test_a_service_that_hangs_up_resets_the_stream() -> None:
    async def rude(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.transport.abort()

    async with listening(rude) as port, session(ssh=Service(Level.OS, port)) as s:
        s.activate("ssh")
        stream = await s.opened("ssh")
        sock = next(iter(s.streams._channels[SESSION].pipes.values()))._transport
        assert sock is not None
        await s.send(stream, b"xy")
        await until(lambda: not s.streams._channels[SESSION].pipes or Ended(stream) in s.events)


async def test_a_client_that_resets_hangs_up_on_the_service() -> None:
    gone = asyncio.Event()

    async def held(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read()
        finally:
            gone.set()

    async with listening(held) as port, session(ssh=Service(Level.OS, port)) as s:
        s.activate("ssh")
        stream = await s.opened("ssh")
        s.client.reset(stream)
        s.kick.set()
        async with asyncio.timeout(2):
            await gone.wait()


async def test_a_lost_link_loses_nothing() -> None:
    """R-CON-5: the sockets stay open, and what was on the link goes again, both ways."""
    connections = 0

    async def counted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await echo(reader, writer)

    async with listening(counted) as port, session(ssh=Service(Level.OS, port)) as s:
        s.activate("ssh")
        stream = await s.opened("ssh")
        await s.send(stream, b"before ")
        await until(lambda: s.received(stream) == b"before ")
        s.cut = True
        s.client.send(stream, b"lost on the way ")
        assert s.client.next_frame() is not None
        s.streams.online(False)
        s.client.send(stream, b"written meanwhile")
        s.streams.online(True)  # only the device knows that anything broke
        s.cut = False
        await until(lambda: s.received(stream) == b"before lost on the way written meanwhile")
        assert connections == 1
        assert s.streams.moved(ID) == (40, 40)


@pytest.mark.parametrize("online", [True, False])
async def test_a_stream_is_given_up_when_nobody_answers(online: bool) -> None:
    closed = asyncio.Event()

    async def held(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read()
        finally:
            closed.set()

    async with listening(held) as port, session(ssh=Service(Level.OS, port)) as s:
        s.activate("ssh")
        await s.opened("ssh")
        s.cut = True
        s.streams.online(False)
        s.streams.tick(1000.0)
        if online:
            s.streams.online(True)
            asked = s.streams.next_frame()
            s.streams.tick(1004.0)
            assert s.streams.next_frame() is None
            s.streams.tick(1006.0)
            again = s.streams.next_frame()
            assert asked is not None
            assert again is not None
            assert FrameType(asked[1]) is FrameType(again[1]) is FrameType.RESUME
            assert asked != again
        s.streams.tick(1000.0 + RESUME_S - 1)
        assert s.streams._channels[SESSION].pipes
        s.streams.tick(1000.0 + RESUME_S + 5)
        assert not s.streams._channels[SESSION].pipes
        async with asyncio.timeout(2):
            await closed.wait()
        s.cut = False
        s.streams.online(True)
        s.client.resume()
        s.kick.set()
        await until(lambda: any(isinstance(e, Reset) for e in s.events))
        again_open = await s.opened("ssh")  # the session goes on
        assert again_open


async def test_an_answer_comes_even_in_a_pause() -> None:
    """R-ACC-7: no byte of a stream passes, but a client that connects again need not give up."""
    async with listening(echo) as port, session(ssh=Service(Level.OS, port)) as s:
        s.activate("ssh")
        stream = await s.opened("ssh")
        s.streams.pause(ID)
        s.cut = True
        s.client.send(stream, b"lost")
        assert s.client.next_frame() is not None
        s.client.resume()
        s.cut = False
        s.kick.set()
        await until(lambda: not s.client.unanswered)
        assert s.received(stream) == b""
        s.streams.resume(ID)
        await until(lambda: s.received(stream) == b"lost")


# --- in use --------------------------------------------------------------------------------------


async def test_a_pause_lets_no_byte_through_and_loses_none() -> None:
    """R-ACC-7"""
    got = bytearray()
    say = asyncio.Event()

    async def service(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def talk() -> None:
            await say.wait()
            writer.write(b"from the service")

        talking = asyncio.ensure_future(talk())
        while data := await reader.read(65536):
            got.extend(data)
        await talking

    async with listening(service) as port, session(ssh=Service(Level.OS, port)) as s:
        s.activate("ssh")
        stream = await s.opened("ssh")
        await s.send(stream, b"before ")
        await until(lambda: bytes(got) == b"before ")
        s.streams.pause(ID)
        say.set()
        await s.send(stream, b"after")
        s.end(stream)
        second = s.open("ssh")
        await asyncio.sleep(0.05)
        assert bytes(got) == b"before "
        assert s.received(stream) == b""
        assert not s.accepted(second)
        s.streams.resume(ID)
        await until(lambda: bytes(got).startswith(b"before after"))
        await until(lambda: s.received(stream) == b"from the service")
        await until(lambda: s.accepted(second))


async def test_a_stream_asked_for_and_given_up_in_a_pause() -> None:
    async with listening(echo) as port, session(ssh=Service(Level.OS, port)) as s:
        s.activate("ssh", paused=True)
        stream = s.open("ssh")
        await asyncio.sleep(0.02)
        s.client.reset(stream)
        s.kick.set()
        await asyncio.sleep(0.02)
        s.streams.resume(ID)
        await asyncio.sleep(0.02)
        assert not s.streams._channels[SESSION].pipes


async def test_control_and_interactive_streams_go_before_bulk(tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    path.write_bytes(bytes(WINDOW))
    async with listening(echo) as port, session(ssh=Service(Level.OS, port)) as s:
        other = bytes(reversed(SESSION))
        theirs = Seal(session=other, role=Role.CLIENT, send=b"1" * 32, receive=b"2" * 32)
        ours = Seal(session=other, role=Role.DEVICE, send=b"2" * 32, receive=b"1" * 32)
        s.activate("ssh")
        stream = await s.opened("ssh")
        s.cut = True  # now by hand
        s.streams.serve_file(other, ours, "bundle", path, lambda whole: None)
        peer = Mux(theirs)
        peer.open(1, "bundle", bulk=True)
        s.streams.receive(peer.next_frame() or b"")
        assert FrameType((s.streams.next_frame() or b"")[1]) is FrameType.ACCEPT
        assert (s.streams.next_frame() or b"")[4:20] == other
        s.client.send(stream, b"x")
        s.streams.receive(s.client.next_frame() or b"")
        await until(lambda: s.streams.moved(ID)[0] == 1)  # the echo is back
        assert (s.streams.next_frame() or b"")[4:20] == SESSION
        assert (s.streams.next_frame() or b"")[4:20] == other
        s.streams.clinical_state(ClinicalState.ARMED)
        assert s.streams.next_frame() is None
        s.streams.clinical_state(ClinicalState.COMPLETE)
        assert (s.streams.next_frame() or b"")[4:20] == other


# --- files ---------------------------------------------------------------------------------------


@asynccontextmanager
async def served(path: Path) -> AsyncIterator[tuple[Session, list[bool]]]:
    told: list[bool] = []
    async with session() as s:
        s.streams.serve_file(SESSION, s.device_seal, "bundle", path, told.append)
        yield s, told


async def test_a_file_is_sent_whole_and_said_to_be(tmp_path: Path) -> None:
    """R-MNT-3"""
    blob = os.urandom(3 * WINDOW + 17)
    path = tmp_path / "bundle"
    path.write_bytes(blob)
    async with served(path) as (s, told):
        stream = s.open("bundle", bulk=True)
        await until(lambda: Ended(stream) in s.events)
        assert s.received(stream) == blob
        await until(lambda: told == [True])
        s.end(stream)
        await until(lambda: s.client.streams == ())


async def test_a_file_goes_on_after_the_link_was_lost(tmp_path: Path) -> None:
    blob = os.urandom(2 * WINDOW)
    path = tmp_path / "bundle"
    path.write_bytes(blob)
    async with served(path) as (s, told):
        s.consuming = False
        stream = s.open("bundle", bulk=True)
        await until(lambda: len(s.received(stream)) == WINDOW)
        s.cut = True
        s.client.consumed(stream, WINDOW)
        assert s.client.next_frame() is not None  # a CREDIT that is lost
        s.streams.online(False)
        s.consuming = True
        s.streams.online(True)
        s.cut = False
        await until(lambda: Ended(stream) in s.events)
        assert s.received(stream) == blob
        await until(lambda: told == [True])


async def test_a_file_is_asked_for_again_by_a_portal_that_forgot(tmp_path: Path) -> None:
    """A portal that starts again opens another stream; the old one is let go."""
    blob = os.urandom(2 * WINDOW)
    path = tmp_path / "bundle"
    path.write_bytes(blob)
    async with served(path) as (s, told):
        s.consuming = False
        first = s.open("bundle")
        await until(lambda: len(s.received(first)) == WINDOW)
        s.client = Mux(seals()[0])
        s.consuming = True
        # The job says it again; the books of the seal stay.
        s.streams.serve_file(SESSION, s.device_seal, "bundle", path, told.append)
        second = s.open("bundle")
        await until(lambda: Ended(second) in s.events)
        assert s.received(second) == blob
        await until(lambda: told == [True])
        assert first not in s.streams._files[SESSION].mux.streams


async def test_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    path.touch()
    async with served(path) as (s, told):
        stream = s.open("bundle")
        await until(lambda: Ended(stream) in s.events and told == [True])
        assert s.received(stream) == b""


async def test_nothing_but_the_file_is_served(tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    path.write_bytes(b"x" * 10)
    async with served(path) as (s, told):
        assert (await s.reset(s.open("ssh"))).code is ResetCode.REFUSED
        stream = await s.opened("bundle")
        s.client.send(stream, b"what is this")
        s.kick.set()
        assert (await s.reset(stream)).code is ResetCode.PROTOCOL
        path.unlink()
        assert (await s.reset(s.open("bundle"))).code is ResetCode.INTERNAL
        assert told[-1] is False
        s.streams.withdraw(SESSION)
        s.open("bundle")
        await asyncio.sleep(0.02)
        assert s.streams.next_frame() is None
        s.streams.withdraw(SESSION)


async def test_files_are_counted(tmp_path: Path) -> None:
    async with session() as s:
        for n in range(MAX_FILES):
            s.streams.serve_file(bytes([n]) * 16, s.device_seal, "b", tmp_path, lambda whole: None)
        with pytest.raises(TooManyFiles):
            s.streams.serve_file(b"x" * 16, s.device_seal, "b", tmp_path, lambda whole: None)
