"""MQTT in a websocket: the upgrade, the frames, and who is let as far as either (ADR 0009).

The attacks of THREATS run over this carrier too (test_attacks_*.py); here is what only it has.
Requirements: R-CON-3, R-CON-6, R-CON-7.
"""

import asyncio
import ssl
import struct
import time
from typing import Any

import pytest

from agent.wire import carrier
from agent.wire.messages import MAX_PAYLOAD
from broker.errors import Reason
from tests.broker import raw
from tests.broker.conftest import A, B, Running, Start
from tests.broker.raw import Raw
from tests.broker.raw_websocket import (
    BINARY,
    CLOSE,
    CONT,
    PING,
    PONG,
    TEXT,
    RawWebSocket,
    frame,
    upgrade,
)
from tests.broker.test_arrivals import Hello
from tests.tls import Authority

EVENT = f"pat/1/{A}/up/event/1"
STREAM = f"pat/1/{A}/up/s"


@pytest.fixture
def door() -> type[Raw]:
    return RawWebSocket


async def bare(running: Running) -> Raw:
    """TLS as a device on a websocket has it, before any HTTP."""
    return await Raw.open(
        running.gate.port, running.authority, running.identities[A], alpn=carrier.WEBSOCKET
    )


async def websocket(running: Running) -> RawWebSocket:
    """A live device on a websocket."""
    device = await running.live(A)
    assert isinstance(device, RawWebSocket)
    return device


async def test_a_session_up_and_down(running: Running) -> None:
    async with await running.live(A) as device:
        device.send(raw.publish(EVENT, b'{"seq":1}', first=0x32, id=7))
        assert await device.packet() == (0x40, b"\0\x07")
        assert running.gate.publish(f"pat/1/{A}/dn/end/1", b"stop")
        assert await device.message() == (f"pat/1/{A}/dn/end/1", b"stop")
        assert running.gate.publish(f"pat/1/{A}/dn/s", b"x" * 70_000)
        assert await device.message() == (f"pat/1/{A}/dn/s", b"x" * 70_000)
        await device.ping()
        device.send(raw.DISCONNECT)
        assert await device.ended() == b""
        assert device.closed == struct.pack(">H", 1000)
    await running.handler.told("disconnected", A, Reason.DISCONNECTED)
    await running.emptied()


async def test_the_other_carrier_takes_over(running: Running) -> None:
    """A device that falls back closes what it had, and one that returns to plain MQTT too."""
    async with await running.live(A) as first:
        plain = await Raw.open(running.gate.port, running.authority, running.identities[A])
        async with await plain.live(A):
            await first.ended()
            async with await running.live(A) as third:
                await plain.ended()
                await third.ping()
    await running.emptied()


# --- who gets as far as HTTP --------------------------------------------------------------------


async def test_without_a_certificate_nothing_of_http_is_read(start: Start) -> None:
    """R-CON-6: mutual authentication is kept, whatever web server stands beside."""
    running: Running = await start(web_factory=Hello)
    stranger = Raw.open(running.gate.port, running.authority, None, alpn=carrier.WEBSOCKET)
    await Raw.unheard(stranger, upgrade())
    await running.handler.told("refused", None, Reason.HANDSHAKE)
    await running.emptied()


async def test_the_device_id_alone_is_not_enough(running: Running) -> None:
    """Without http/1.1 beside it the gate could not answer what it speaks."""
    async with await Raw.open(
        running.gate.port, running.authority, running.identities[A], alpn=(carrier.ALPN_DEVICE,)
    ) as attacker:
        attacker.send(upgrade())
        assert await attacker.ended() == b""
    await running.handler.told("refused", None, Reason.HANDSHAKE)


def noting(context: ssl.SSLContext) -> set[str]:
    """The names of the handshake messages that the server sends."""
    seen: set[str] = set()

    def note(_c: Any, direction: str, _v: Any, _t: Any, kind: Any, _d: bytes) -> None:
        if direction == "read":
            seen.add(getattr(kind, "name", str(kind)))

    context._msg_callback = note  # type: ignore[attr-defined]
    return seen


async def test_a_browser_is_not_even_asked_for_a_certificate(start: Start) -> None:
    """It would show its user a list to choose from; and `/mqtt` means nothing to the web server."""
    running: Running = await start(web_factory=Hello)
    context = running.authority.client_context(running.identities[A], alpn=("h2", "http/1.1"))
    asked = noting(context)
    async with await Raw.open(
        running.gate.port, running.authority, None, context=context
    ) as browser:
        browser.send(upgrade())
        assert (await browser.ended()).startswith(b"HTTP/1.1 200")
    assert "CERTIFICATE" in asked
    assert "CERTIFICATE_REQUEST" not in asked
    assert not running.gate.stats().counters["handshakes"]


async def test_a_device_is_asked_for_its_certificate(running: Running) -> None:
    context = running.authority.client_context(running.identities[A], alpn=carrier.WEBSOCKET)
    asked = noting(context)
    async with await Raw.open(running.gate.port, running.authority, None, context=context) as bare:
        assert bare.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
    assert "CERTIFICATE_REQUEST" in asked


async def test_tls_1_2_over_a_websocket(running: Running, authority: Authority) -> None:
    context = authority.client_context(running.identities[A], alpn=carrier.WEBSOCKET)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with await running.open(None, context=context) as device:
        await device.live(A)
        await device.ping()


# --- the upgrade --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "status", "words"),
    [
        (upgrade("/"), 404, b"/mqtt"),
        (upgrade("/mqtt/../ws/stream"), 404, b"/mqtt"),
        (upgrade(Sec_WebSocket_Protocol=None), 400, b"subprotocol"),
        (upgrade(Sec_WebSocket_Protocol="mqttv3.1"), 400, b"subprotocol"),
        (upgrade(Upgrade=None, Connection=None), 426, b"Upgrade"),
        (upgrade(Sec_WebSocket_Version="8"), 400, b"Version"),
        (upgrade(Sec_WebSocket_Key="short"), 400, b"Key"),
        (upgrade() + frame(raw.connect(A)), 400, b"before the answer"),
        (upgrade() + frame(raw.connect(A))[:9], 400, b"before the answer"),
    ],
)
async def test_a_bad_upgrade_is_refused_in_words(
    running: Running, request_: bytes, status: int, words: bytes
) -> None:
    async with await bare(running) as device:
        device.send(request_)
        said = await device.ended()
        assert said.startswith(b"HTTP/1.1 %d " % status), said
        assert words in said
    await running.handler.told("refused", A, Reason.WEBSOCKET)
    assert not running.handler.has("connected")
    await running.emptied()


@pytest.mark.parametrize(
    "sent",
    [
        raw.connect(A) + b"\r\n",
        b"POST /mqtt HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /mqtt HTTP/1.0\r\n\r\n",
        b"GET /" + b"x" * 20_000,
        b"GET /mqtt HTTP/1.1\r\n" + b"A: b\r\n" * 1000 + b"\r\n",
        b"GET /mqtt HTTP/1.1\r\nA: " + b"b" * 20_000,
        b"GET /mqtt HTTP/1.1\r\nBad Header\r\n\r\n",
        b"\r\n\r\n",
    ],
)
async def test_no_upgrade_at_all(running: Running, sent: bytes) -> None:
    async with await bare(running) as attacker:
        attacker.send(sent)
        assert await attacker.ended() == b""
    await running.handler.told("refused", A, Reason.WEBSOCKET)
    await running.emptied()


@pytest.mark.parametrize("request_", [b"", b"GET /mqtt HTTP/1.1\r\nHost: ", upgrade()])
async def test_the_time_for_connect_includes_the_upgrade(start: Start, request_: bytes) -> None:
    running: Running = await start(limits={"connect_s": 0.4})
    async with await bare(running) as attacker:
        attacker.send(request_)
        await attacker.ended()
    await running.handler.told("refused", A, Reason.CONNECT_LATE)
    await running.emptied()


async def test_no_extension_is_agreed_on(running: Running) -> None:
    """Sealed frames do not shrink, and what inflates is a bomb."""
    async with await bare(running) as device:
        device.send(upgrade(Sec_WebSocket_Extensions="permessage-deflate"))
        answer = await device.reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 101 ")
        assert b"extensions" not in answer.lower()
        assert b"sec-websocket-protocol: mqtt" in answer.lower()
        device.send(bytes([0xC2]) + frame(raw.connect(A))[1:])  # RSV1: compressed
        await device.ended()
    await running.handler.told("refused", A, Reason.WEBSOCKET)


# --- frames -------------------------------------------------------------------------------------


async def test_the_stream_in_pieces_of_every_size(running: Running) -> None:
    """Several packets in a message, a packet in many, fragments, pings between them."""
    payloads = [bytes([n]) * (n * 37) for n in range(60)]
    stream = b"".join(raw.publish(STREAM, payload) for payload in payloads)
    async with await websocket(running) as device:
        at = turn = 0
        while at < len(stream):
            size = (1, 2, 700, 3, 9000)[turn % 5]
            piece = stream[at : at + size]
            half = len(piece) // 2
            device.bare.send(frame(piece[:half], fin=False) + frame(b"", PING))
            device.bare.send(frame(b"", CONT, fin=False) + frame(piece[half:], CONT))
            at, turn = at + size, turn + 1
        await running.handler.until(lambda: len(running.handler.frames) == len(payloads))
    assert [got for _, got in running.handler.frames] == payloads


async def test_tcp_may_cut_frames_anywhere(running: Running) -> None:
    async with await websocket(running) as device:
        data = frame(raw.publish(EVENT, b"x" * 300, first=0x32, id=3)) + frame(raw.PINGREQ)
        for at in range(0, len(data), 2):
            device.bare.send(data[at : at + 2])
            await asyncio.sleep(0)
        answers = [await device.packet(), await device.packet()]
        assert sorted(answers) == [(0x40, b"\0\x03"), raw.PINGRESP]


async def test_the_largest_packet_passes_and_a_longer_message_does_not(running: Running) -> None:
    async with await websocket(running) as device:
        device.send(raw.publish(EVENT, b"x" * MAX_PAYLOAD, first=0x32, id=1))
        assert await device.packet() == (0x40, b"\0\x01")
        device.bare.send(frame(b"x" * (MAX_PAYLOAD + 1024))[:14])  # its header is enough
        assert await device.ended() == b""
    await running.handler.told("refused", A, Reason.TOO_LARGE)


async def test_an_endless_fragmented_message(running: Running) -> None:
    async with await websocket(running) as device:
        piece = raw.publish(STREAM, b"x" * 60_000)
        device.bare.send(frame(piece, fin=False))
        for _ in range(12):
            device.bare.send(frame(piece, CONT, fin=False))
        assert await device.ended() == b""
    await running.handler.told("refused", A, Reason.TOO_LARGE)


async def test_before_connect_a_message_is_small(running: Running) -> None:
    async with await running.raw(A) as attacker:
        assert isinstance(attacker, RawWebSocket)
        attacker.bare.send(frame(b"x" * 10_000)[:8])
        assert await attacker.ended() == b""
    await running.handler.told("refused", A, Reason.TOO_LARGE)


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (frame(raw.PINGREQ, TEXT), 1003),
        (frame(raw.PINGREQ, mask=False), 1002),
        (frame(b"", CONT), 1002),
        (frame(b"", 0x3), 1002),
        (frame(b"x" * 126, PING), 1002),
        (frame(b"x", PING, fin=False), 1002),
        (frame(b"x", fin=False) + frame(b"y"), 1002),
        (frame(b"\x03", CLOSE), 1002),
    ],
)
async def test_what_breaks_the_rules_of_frames(running: Running, sent: bytes, code: int) -> None:
    async with await websocket(running) as device:
        device.bare.send(sent)
        await device.ended()
        assert device.closed is not None
        assert struct.unpack(">H", device.closed[:2])[0] == code
    await running.handler.told("refused", A, Reason.WEBSOCKET)
    await running.emptied()


async def test_close_is_a_goodbye(running: Running) -> None:
    async with await websocket(running) as device:
        device.bare.send(frame(struct.pack(">H", 1001), CLOSE))
        assert await device.ended() == b""
        assert device.closed == struct.pack(">H", 1001)
    await running.handler.told("disconnected", A, Reason.DISCONNECTED)
    await running.emptied()


async def test_packets_before_a_close_still_count(running: Running) -> None:
    async with await websocket(running) as device:
        device.bare.send(frame(raw.publish(EVENT, b"last")) + frame(b"", CLOSE))
        await device.ended()
    await running.handler.told("disconnected", A)
    assert [delivery.payload for delivery in running.handler.deliveries] == [b"last"]


async def test_a_ping_is_answered_and_does_not_keep_a_dead_session(running: Running) -> None:
    """Bytes are bytes: whoever sends is not silent. But a pong that nobody asked for is nothing."""
    async with await websocket(running) as device:
        device.bare.send(frame(b"are you there", PING) + frame(b"", PONG))
        await device.ping()
        assert device.pongs == [b"are you there"]


async def test_a_flood_of_frames_that_carry_nothing_is_slowed(start: Start) -> None:
    running: Running = await start(limits={"messages_per_s": 200.0, "messages_burst": 50})
    async with await websocket(running) as device, await running.live(B) as other:
        began = time.monotonic()
        device.bare.send(frame(b"", PING) * 150 + frame(b"") * 150)
        await asyncio.sleep(0.1)
        device.send(raw.PINGREQ)
        await other.ping()
        assert await device.packet() == raw.PINGRESP
        assert time.monotonic() - began > 1  # 300 frames, 50 at once, then 200 a second


async def test_a_frame_that_takes_long_is_neither_silent_nor_endless(start: Start) -> None:
    """A large packet on a slow link may take longer than the keepalive, and not for ever."""
    running: Running = await start(limits={"packet_s": 2.5})
    async with await running.live(A, keepalive=1) as device:
        assert isinstance(device, RawWebSocket)
        data = frame(raw.publish(EVENT, b"x" * 2000))
        began = time.monotonic()
        with pytest.raises((OSError, TimeoutError)):
            async with asyncio.timeout(20):
                for at in range(len(data)):
                    device.bare.send(data[at : at + 1])
                    await device.bare.writer.drain()
                    await asyncio.sleep(0.1)
        assert time.monotonic() - began > 2.3
    await running.handler.told("disconnected", A, Reason.STUCK)


def test_the_sign_holds_nothing_that_a_firewall_looks_for() -> None:
    """ADR 0009: a firewall that refuses MQTT reads the ALPN list; BINARY is all that is sent."""
    assert not any("mqtt" in name for name in carrier.WEBSOCKET)
    assert frame(b"")[0] == 0x80 | BINARY
