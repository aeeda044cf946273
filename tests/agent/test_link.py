"""paho on our loop, against the real gate and against servers that do not answer (R-CON-4, 6)."""

import asyncio
import os
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent import identity
from agent.identity import Server
from agent.link import Link, Token
from agent.network.findings import Observation
from agent.network.journey import Journey
from agent.network.route import Route
from agent.wire import topics
from agent.wire.messages import MAX_PAYLOAD
from agent.wire.pacer import Turn
from tests.agent.support import DEVICE, Portal, closed, enrolled, portal
from tests.tls import Authority

AUTHORITY = Authority()
STRANGER = Authority("stranger")


class Events:
    """Records what the link tells."""

    def __init__(self) -> None:
        self.log: list[Any] = []
        self.messages: list[tuple[str, bytes]] = []
        self.came: list[bytes] = []
        self.acknowledgements: list[Token] = []
        self.reasons: list[str] = []
        self.seen: list[Observation | None] = []
        self.pongs = 0
        self.bytes_came = 0

    def dialled(self) -> None:
        self.log.append("dialled")

    def accepted(self) -> None:
        self.log.append("accepted")

    def subscribed(self) -> None:
        self.log.append("subscribed")

    def lost(self, reason: str, seen: Observation | None = None) -> None:
        self.log.append("lost")
        self.seen.append(seen)
        self.reasons.append(reason)

    def heard(self) -> None:
        self.bytes_came += 1

    def pong(self) -> None:
        self.pongs += 1

    def acknowledged(self, token: Token) -> None:
        self.acknowledgements.append(token)

    def received(self, topic: str, payload: bytes) -> None:
        self.messages.append((topic, payload))

    def frame(self, frame: bytes) -> None:
        self.came.append(frame)

    async def until(self, what: Any, timeout_s: float = 10) -> None:
        async with asyncio.timeout(timeout_s):
            while not (what() if callable(what) else what in self.log):  # noqa: ASYNC110
                await asyncio.sleep(0.005)


class Bench:
    def __init__(self, folder: Path, port: int, **options: Any) -> None:
        enrolled(folder, options.pop("authority", AUTHORITY), port)
        known = identity.load(folder)
        assert known is not None
        self.context = known.tls_context()
        self.server = Server(host="localhost", port=port)
        self.events = Events()
        self.frames: list[bytes] = []
        self.pulled = 0
        self.link = Link(options.pop("device", DEVICE), self.events, self.next_frame)

    def next_frame(self, turn: Turn, most: int) -> bytes | None:
        if not self.frames or turn is not Turn.BULK:
            return None
        self.pulled += 1
        return self.frames.pop(0)

    def dial(self, timeout_s: float = 5) -> None:
        self.link.dial(Route(self.server), self.context, timeout_s)

    async def connect(self) -> None:
        self.dial()
        await self.events.until("accepted")
        self.link.subscribe(topics.down_filter(DEVICE))
        await self.events.until("subscribed")


@asynccontextmanager
async def connected(tmp_path: Path, **limits: Any) -> AsyncIterator[tuple[Bench, Portal]]:
    async with portal(tmp_path / "gate", AUTHORITY, **limits) as served:
        bench = Bench(tmp_path / "state", served.gate.port)
        await bench.connect()
        yield bench, served
        await bench.link.close()


async def test_connect_publish_receive_ping_and_leave(tmp_path: Path) -> None:
    async with connected(tmp_path) as (bench, served):
        assert bench.events.log == ["dialled", "accepted", "subscribed"]
        topic = topics.down(DEVICE, "rate", 1)
        assert served.gate.publish(topic, b"down")
        await bench.events.until(lambda: bench.events.messages)
        assert bench.events.messages == [(topic, b"down")]
        bench.link.ping()
        await bench.events.until(lambda: bench.events.pongs == 1)
        assert bench.events.bytes_came > 0
        await bench.link.close()
        await served.until(lambda: served.disconnects)
    assert bench.events.reasons == []  # leaving is no loss


async def test_the_socket_is_tuned_and_the_server_authenticated(tmp_path: Path) -> None:
    async with connected(tmp_path) as (bench, _served):
        client = bench.link._client
        assert client is not None
        sock = client.lane.socket
        assert isinstance(sock, ssl.SSLSocket)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
        assert sock.getsockopt(socket.IPPROTO_TCP, 25) == 32 * 1024  # TCP_NOTSENT_LOWAT
        assert sock.version() in ("TLSv1.2", "TLSv1.3")
        cipher = sock.cipher()
        assert cipher is not None and cipher[2] >= 128
        assert sock.selected_alpn_protocol() == "mqtt"


async def test_a_puback_names_its_message(tmp_path: Path) -> None:
    async with connected(tmp_path) as (bench, served):
        served.deciding = False
        up = topics.up(DEVICE, "event", 1)
        for token in (7, "hello", 9):
            bench.link.publish(up, b"{}", token)
        await served.until(lambda: len(served._held) == 3)
        assert not bench.events.acknowledgements
        held = served._held
        for delivery in (held[1], held[0]):
            delivery.ack()
        await bench.events.until(lambda: len(bench.events.acknowledgements) == 2)
        assert bench.events.acknowledgements == ["hello", 7]


async def test_large_messages_both_ways(tmp_path: Path) -> None:
    async with connected(tmp_path) as (bench, served):
        served.deciding = False
        payload = os.urandom(MAX_PAYLOAD)
        bench.link.publish(topics.up(DEVICE, "event", 1), payload, 1)
        await served.until(lambda: served._held)
        assert served._held[0].payload == payload
        assert served.gate.publish(topics.down(DEVICE, "rate", 1), payload)
        await bench.events.until(lambda: bench.events.messages)
        assert bench.events.messages[0][1] == payload


async def test_frames_are_pulled_one_at_a_time_and_messages_pass_them(tmp_path: Path) -> None:
    """DESIGN, fair: no stream frame is in paho's queue; what must not wait goes first."""
    async with connected(tmp_path) as (bench, served):
        bench.frames = [bytes([n % 256]) * 30_000 for n in range(400)]
        bench.link.frames_ready()
        assert bench.pulled == 0  # the portal does not know us yet
        bench.link.stream(True)
        assert bench.pulled <= 1  # more than is allowed before anything was measured
        await served.until(lambda: len(served.frames) > 20)
        client = bench.link._client
        assert client is not None
        served.deciding = False
        arrived = len(served.frames)
        assert not client._out_packet
        bench.link.publish(topics.up(DEVICE, "event", 1), b"{}", 1)
        await served.until(lambda: served._held)
        assert len(served.frames) < arrived + 250
        await served.until(lambda: len(served.frames) == 400)
        assert [frame[0] for frame in served.frames] == [n % 256 for n in range(400)]


async def test_a_frame_that_an_arrival_makes_ready_leaves_at_once(tmp_path: Path) -> None:
    """paho calls back while it reads, and must not write then; nothing else comes that would."""
    async with connected(tmp_path) as (bench, served):
        bench.link.stream(True)
        await asyncio.sleep(0.1)  # the mark is answered

        def came(frame: bytes) -> None:
            bench.frames.append(frame)
            bench.link.frames_ready()

        bench.events.frame = came  # type: ignore[method-assign]
        took = []
        for count in range(1, 6):
            began = time.monotonic()
            assert served.gate.publish(topics.down_stream(DEVICE), b"x" * 60)
            await served.until(lambda count=count: len(served.frames) == count)
            took.append(time.monotonic() - began)
        assert sorted(took)[2] < 0.5  # not with whatever comes next


@pytest.mark.parametrize("size", [100, 32_000])
async def test_a_long_stream_needs_no_other_event_to_go_on(tmp_path: Path, size: int) -> None:
    async with connected(tmp_path) as (bench, served):
        bench.frames = [bytes(size)] * 500
        bench.link.stream(True)
        await served.until(lambda: len(served.frames) == 500)
        bench.frames = [bytes(size)] * 50
        bench.link.frames_ready()
        await served.until(lambda: len(served.frames) == 550)


async def test_a_server_of_another_authority_hears_nothing(tmp_path: Path) -> None:
    async with portal(tmp_path / "gate", STRANGER) as served:
        bench = Bench(tmp_path / "state", served.gate.port)
        bench.dial()
        await bench.events.until("lost")
        assert "not trusted" in bench.events.reasons[0]
        assert served.connects == 0


async def test_a_certificate_the_gate_does_not_know_is_lost_with_a_reason(tmp_path: Path) -> None:
    async with portal(tmp_path / "gate", AUTHORITY) as served:
        bench = Bench(tmp_path / "state", served.gate.port, authority=STRANGER)
        (tmp_path / "other").mkdir()
        enrolled(tmp_path / "other", AUTHORITY, served.gate.port)
        known = identity.load(tmp_path / "other")
        assert known is not None
        context = identity.pinned_context(known.provision.anchors)
        context.set_alpn_protocols(["mqtt"])
        context.load_cert_chain(tmp_path / "state/device.pem", tmp_path / "state/device.key")
        bench.context = context
        bench.dial()
        await bench.events.until("lost")
        assert bench.events.reasons[0]
        assert served.connects == 0


async def test_a_client_id_that_is_not_the_certificates_is_refused(tmp_path: Path) -> None:
    async with portal(tmp_path / "gate", AUTHORITY) as served:
        bench = Bench(tmp_path / "state", served.gate.port, device="device-0002")
        bench.dial()
        await bench.events.until("lost")
        assert served.connects == 0


async def test_nobody_listens_or_the_name_is_unknown(tmp_path: Path, free_port: int) -> None:
    bench = Bench(tmp_path / "state", free_port)
    bench.dial()
    await bench.events.until("lost")
    assert str(free_port) in bench.events.reasons[0]
    bench.server = Server(host="no-such-host.invalid", port=free_port)
    bench.dial()
    await bench.events.until(lambda: len(bench.events.reasons) == 2)
    assert "no-such-host.invalid" in bench.events.reasons[1]


async def test_a_server_that_never_answers_does_not_block_the_loop(tmp_path: Path) -> None:
    """TCP stands, TLS says nothing: given up in time, and the loop went on meanwhile."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        bench = Bench(tmp_path / "state", silent.getsockname()[1])
        bench.dial(timeout_s=0.5)
        turns = 0
        began = time.monotonic()
        while not bench.events.reasons:
            await asyncio.sleep(0.01)
            turns += 1
            assert time.monotonic() - began < 5
        assert turns > 5


async def test_hanging_up_while_dialling_ends_the_thread(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        bench = Bench(tmp_path / "state", silent.getsockname()[1])
        bench.dial(timeout_s=60)
        await asyncio.sleep(0.1)
        bench.link.hang_up()
        await bench.events.until(
            lambda: not [t for t in threading.enumerate() if t.name.startswith("dial ")]
        )
        assert bench.events.log == []


async def test_a_name_server_that_never_answers_holds_one_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    asked = threading.Event()
    release = threading.Event()

    def stuck(self: Journey, addresses: object) -> socket.socket:
        asked.set()
        release.wait(10)
        raise OSError("late")

    monkeypatch.setattr(Journey, "_connect", stuck)
    bench = Bench(tmp_path / "state", free_port)
    for attempt in range(3):
        bench.dial(timeout_s=0.1)
        if attempt:
            await bench.events.until(lambda n=attempt: len(bench.events.reasons) == n)
    dialling = [t for t in threading.enumerate() if t.name.startswith("dial ")]
    assert len(dialling) == 1
    release.set()
    dialling[0].join(5)
    await asyncio.sleep(0.05)


async def test_the_gate_dies_and_the_link_says_so(tmp_path: Path) -> None:
    async with connected(tmp_path) as (bench, served):
        served.gate.kick(DEVICE)
        await bench.events.until("lost")
        assert bench.link._client is None
        bench.link.publish(topics.up(DEVICE, "event", 1), b"{}", 1)  # goes nowhere, harms nothing
        bench.link.ping()
        bench.link.frames_ready()
        bench.events.log.clear()
        await bench.connect()


async def test_a_packet_that_is_too_large_ends_the_link(tmp_path: Path) -> None:
    """A server cannot make the agent hold 256 MB."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.server.load(context)
    context.set_alpn_protocols(["mqtt"])

    async def hostile(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(b"\x20\x02\x00\x00")  # CONNACK
        writer.write(b"\x30\xff\xff\xff\x7f" + b"x" * 10_000)  # PUBLISH of 256 MB
        await writer.drain()
        await reader.read()
        await closed(writer)

    server = await asyncio.start_server(hostile, "127.0.0.1", 0, ssl=context)
    async with server:
        bench = Bench(tmp_path / "state", server.sockets[0].getsockname()[1])
        bench.dial()
        await bench.events.until("lost")
        assert "too large" in bench.events.reasons[0]
        await bench.link.close()
