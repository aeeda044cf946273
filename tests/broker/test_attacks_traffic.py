"""THREATS, "The gate and the broker": topics, sizes, times and rates of a connected device.

One attack, one test, against a running gate over real TLS, and again in a websocket.
Comments name the amqtt 0.12.1 function whose defect is closed by the gate standing before it.
Requirements: R-CON-3, R-CON-4, R-CON-6.
"""

import asyncio
import contextlib
import time

import pytest

from broker.errors import Reason
from tests.broker import raw
from tests.broker.conftest import BOTH_CARRIERS, A, B, Running, Start

pytestmark = BOTH_CARRIERS


@pytest.mark.parametrize(
    "wanted",
    [
        "#",
        "+/x",
        "pat/#",
        "pat/1/#",
        "pat/1/+/dn/#",
        f"pat/1/{A}/#",
        f"pat/1/{A}/up/#",
        f"pat/1/{A}/dn/+",
        f"pat/1/{A}/dn/#/x",
        f"pat/1/{A}/dn/job/#",
        f"pat/1/{A}/dn#",
        f"pat/1/{A[:-1]}#",
        f"pat/1/{A}/dn/job/1 ",
        f"pat/1/{A}/dn/" + "x" * 3000,
        f"pat/1/{B}/dn/#",
        f"$share/g/pat/1/{A}/dn/#",
        "$SYS/#",
        "/",
    ],
)
async def test_a_subscription_outside_the_grant(running: Running, wanted: str) -> None:
    # Broker._topic_filtering allows everything when no topic plugin is loaded.
    async with await running.live(A, subscribed=False) as attacker:
        attacker.send(raw.subscribe(wanted, id=7))
        assert await attacker.packet() == (0x90, b"\0\x07\x80")
        await running.handler.told("refused", A, Reason.FILTER)
        assert not running.gate.publish(f"pat/1/{B}/dn/refused/1", b"")
        await attacker.ping()


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        (f"pat/1/{A}/dn/job/1\0", Reason.MALFORMED),
        (b"pat/1/\xff\xff", Reason.MALFORMED),
        (b"\xed\xa0\x80", Reason.MALFORMED),  # a surrogate
        ("", Reason.MALFORMED),
        ("x" * 5000, Reason.TOO_LARGE),
    ],
)
async def test_a_filter_that_is_no_text(
    running: Running, wanted: str | bytes, reason: Reason
) -> None:
    # codecs_amqtt.decode_string turns invalid UTF-8 into its Python repr and carries on.
    async with await running.live(A, subscribed=False) as attacker:
        attacker.send(raw.subscribe(wanted))
        assert await attacker.ended() == b""
    await running.handler.told("refused", A, reason)


async def test_a_refused_filter_beside_a_good_one(running: Running) -> None:
    async with await running.live(A, subscribed=False) as device:
        device.send(raw.subscribe("#", f"pat/1/{A}/dn/#", "$SYS/#", id=9, qos=1))
        assert await device.packet() == (0x90, b"\0\x09\x80\0\x80")
        assert running.gate.publish(f"pat/1/{A}/dn/end/1", b"x")


async def test_a_packet_full_of_bad_filters_is_told_once(start: Start) -> None:
    """A thousand lines in the audit for one packet would be an attack of its own."""
    running = await start(limits={"messages_per_s": 100.0, "messages_burst": 200})
    async with await running.live(A, subscribed=False) as attacker:
        began = time.monotonic()
        attacker.send(raw.subscribe(*["#"] * 300) + raw.PINGREQ)
        assert await attacker.packet() == (0x90, b"\0\x01" + b"\x80" * 300)
        assert await attacker.packet() == raw.PINGRESP
        assert time.monotonic() - began > 0.9  # and each filter counts against the rate
    told = [entry for entry in running.handler.log if entry[0] == "refused"]
    assert told == [("refused", A, Reason.FILTER)]


async def test_more_filters_than_one_device_needs(start: Start) -> None:
    running = await start(limits={"filters": 3})
    async with await running.live(A) as attacker:
        many = [f"pat/1/{A}/dn/job/{version}" for version in range(1, 6)]
        attacker.send(raw.subscribe(*many))
        assert await attacker.packet() == (0x90, b"\0\x01" + b"\x80" * 5)


@pytest.mark.parametrize(
    "topic",
    [
        f"pat/1/{B}/up/event/1",
        f"pat/1/{A}/dn/job/1",
        f"pat/1/{A}/up/event/1/more",
        f"pat/1/{A}/up/event/0",
        f"pat/1/{A}/up/EVENT/1",
        f"pat/1/{A}/up/#",
        "$SYS/broker",
        f"pat/1/{A}/up/event/1\0",
        f"pat/1/{A}/up/" + "x" * 60_000,
        "x" * 300,
        "pat/1/+/up/event/1",
        b"pat/1/\xff\xff",
        "",
    ],
)
async def test_a_publish_outside_ones_own_up(running: Running, topic: str | bytes) -> None:
    # Broker._handle_message_delivery drops what its plugin refuses and keeps the connection.
    async with await running.live(A) as attacker:
        attacker.send(raw.publish(topic))
        assert await attacker.ended() == b""
    await running.handler.told("refused", A, Reason.TOPIC)
    assert not running.handler.deliveries


@pytest.mark.parametrize("first", [0x31, 0x33])
async def test_a_retained_message(running: Running, first: int) -> None:
    # Broker.retain_message keeps it for ever and sends it to whoever subscribes later.
    async with await running.live(A) as attacker:
        attacker.send(raw.publish(f"pat/1/{A}/up/event/1", first=first))
        assert await attacker.ended() == b""
    await running.handler.told("refused", A, Reason.RETAINED)


async def test_a_publish_of_256_megabytes(running: Running) -> None:
    # MQTTFixedHeader.from_stream believes the length and PublishPacket reads it into memory.
    async with await running.live(A) as attacker:
        attacker.send(b"\x30\xff\xff\xff\x7f" + b"x" * 1000)
        assert await attacker.ended() == b""
    await running.handler.told("refused", A, Reason.TOO_LARGE)
    await running.emptied()


@pytest.mark.parametrize("length", [b"\xff\xff\xff\xff", b"\x80\x80\x80\x80\x01", b"\x80\x00"])
async def test_a_bad_remaining_length(running: Running, length: bytes) -> None:
    # MQTTFixedHeader.from_stream raises out of the reader task, which leaves a session behind.
    async with await running.live(A) as attacker:
        attacker.send(b"\x30" + length)
        assert await attacker.ended() == b""
    await running.handler.told("refused", A, Reason.MALFORMED)
    await running.emptied()


async def test_a_flood_at_qos_2(running: Running) -> None:
    # ProtocolHandler._handle_qos2_message_flow keeps each message until a PUBREL that never comes.
    async with await running.live(A) as attacker:
        for number in range(1, 100):
            attacker.send(raw.publish(f"pat/1/{A}/up/event/1", first=0x34, id=number))
        assert await attacker.ended() == b""
    await running.handler.told("refused", A, Reason.QOS)
    assert not running.handler.deliveries


@pytest.mark.parametrize(
    "sent",
    [
        b"\x40\x02\0\x01",  # PUBACK of nothing
        b"\x50\x02\0\x01",
        b"\x62\x02\0\x01",
        b"\x20\x02\0\0",
        b"\xd0\x00",
        b"\x00\x00",
        b"\xf0\x00",
    ],
)
async def test_a_packet_that_nobody_asked_for(running: Running, sent: bytes) -> None:
    async with await running.live(A) as attacker:
        attacker.send(sent)
        assert await attacker.ended() == b""
    await running.handler.told("refused", A, Reason.UNEXPECTED)


async def test_silence_beyond_the_keepalive(running: Running) -> None:
    # ProtocolHandler.handle_read_timeout is empty: amqtt never enforces keepalive.
    async with await running.live(A, keepalive=1) as device:
        for _ in range(6):  # alive for longer than the limit
            await asyncio.sleep(0.3)
            await device.ping()
        before = time.monotonic()
        assert await device.ended() == b""
        assert time.monotonic() - before > 1.2  # test_deadlines.py knows how late it may be
    await running.handler.told("disconnected", A, Reason.SILENT)


async def test_a_packet_that_never_ends(start: Start) -> None:
    """Bytes trickle, so it is not silent; the packet has its own limit."""
    running = await start(limits={"packet_s": 1.0})
    async with await running.live(A, keepalive=1) as attacker:
        attacker.send(b"\x30\xff\x01")
        with pytest.raises((OSError, TimeoutError)):
            async with asyncio.timeout(5):
                while True:
                    attacker.send(b"x")
                    await attacker.writer.drain()
                    await asyncio.sleep(0.1)
    await running.handler.told("disconnected", A, Reason.STUCK)


async def test_a_reader_that_stops_reading(start: Start) -> None:
    # StreamWriterAdapter.write has no bound, and Broker._run_broadcast a task for each message.
    running = await start(limits={"outgoing_bytes": 1024 * 1024})
    async with await running.live(A) as stopped, await running.live(B) as other:
        stopped.writer.transport.pause_reading()  # type: ignore[attr-defined]
        topic, frame = f"pat/1/{A}/dn/s", b"x" * 32768
        most = sent = 0
        while running.gate.publish(topic, frame):
            sent += len(frame)
            most = max(most, running.gate.stats().buffered_bytes)
            assert sent < 64 * 1024 * 1024
            if not sent % (1024 * 1024):
                await other.ping()  # test_neighbours.py measures it
            await asyncio.sleep(0)
        assert most <= 1024 * 1024 + 2 * len(frame)
        await running.handler.told("disconnected", A, Reason.NOT_READING)
        await other.ping()
    await running.emptied()
    assert running.gate.stats().buffered_bytes == 0


@pytest.mark.parametrize(
    "asked",
    [raw.PINGREQ * 40, raw.subscribe(*["#"] * 500), raw.unsubscribe("x") * 20],
    ids=["ping", "subscribe", "unsubscribe"],
)
async def test_one_that_asks_and_never_reads_the_answers(start: Start, asked: bytes) -> None:
    # ProtocolHandler._send_packet writes each answer into a buffer without a bound.
    running = await start(
        limits={"outgoing_bytes": 64 * 1024, "messages_burst": 10**9, "notsent_bytes": 4096}
    )
    async with await running.live(A, window=4096) as attacker:
        attacker.writer.transport.pause_reading()  # type: ignore[attr-defined]
        most = 0
        async with asyncio.timeout(30):
            while not running.handler.has("disconnected"):
                with contextlib.suppress(OSError):
                    attacker.send(asked * 20)
                    await attacker.writer.drain()
                most = max(most, running.gate.stats().buffered_bytes)
                await asyncio.sleep(0)
        assert most < 256 * 1024
    await running.handler.told("disconnected", A, Reason.NOT_READING)


async def test_a_reader_stalled_for_too_long(start: Start) -> None:
    """Under the bound in bytes, over the bound in time."""
    running = await start(limits={"stalled_s": 0.5})
    async with await running.live(A, keepalive=1) as stopped:
        stopped.writer.transport.pause_reading()  # type: ignore[attr-defined]
        # More than the kernels of both sides take, less than the bound.
        full = 0
        while full < 20:
            full += 1
            while running.gate.stats().buffered_bytes < 1024 * 1024:
                assert running.gate.publish(f"pat/1/{A}/dn/s", b"x" * 32768)
                full = 0
            await asyncio.sleep(0.005)
        for _ in range(15):
            stopped.send(raw.PINGREQ)
            await asyncio.sleep(0.1)
    await running.handler.told("disconnected", A, Reason.NOT_READING)


async def test_one_device_far_above_the_rate(start: Start) -> None:
    """It is slowed to its rate, and loses nothing."""
    running = await start(limits={"messages_per_s": 200.0, "messages_burst": 50})
    began = time.monotonic()  # its rate counts from here
    async with await running.live(A) as loud, await running.live(B) as other:
        loud.send(raw.publish(f"pat/1/{A}/up/telemetry/1") * 400)
        for at_least in (50, 150, 400):
            await running.handler.until(lambda n=at_least: len(running.handler.deliveries) >= n)
            taken, took = len(running.handler.deliveries), time.monotonic() - began
            assert taken <= 50 + 200 * (took + 0.1), (taken, took)
            await other.ping()
