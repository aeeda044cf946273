"""The gate doing its work: lanes, acknowledgements, takeover, kick, the end.

Requirements: R-CON-3, R-CON-4, R-CON-6.
"""

import asyncio
import random
import time
from typing import Any

import pytest

from agent.wire.messages import MAX_PAYLOAD
from broker.errors import NotStarted, Reason
from tests.broker import raw
from tests.broker.conftest import A, B, Running, Start
from tests.broker.raw import Raw
from tests.scale import scaled

EVENT = f"pat/1/{A}/up/event/1"
STREAM = f"pat/1/{A}/up/s"


def puback(number: int) -> tuple[int, bytes]:
    return 0x40, number.to_bytes(2)


async def test_a_message_goes_up_and_its_puback_comes_only_after_ack(running: Running) -> None:
    # ProtocolHandler._handle_qos1_message_flow sends PUBACK as soon as a message is queued.
    running.handler.acks = False
    async with await running.live(A) as device:
        device.send(raw.publish(EVENT, b'{"seq":1}', first=0x32, id=7))
        await running.handler.until(lambda: bool(running.handler.deliveries))
        delivery = running.handler.deliveries[0]
        assert (delivery.device, delivery.type, delivery.version) == (A, "event", 1)
        assert (delivery.payload, delivery.qos) == (b'{"seq":1}', 1)
        assert await device.quiet()
        delivery.ack()
        delivery.ack()
        assert await device.packet() == puback(7)
        assert await device.quiet()


async def test_acknowledgements_in_any_order(running: Running) -> None:
    running.handler.acks = False
    async with await running.live(A) as device:
        for number in (1, 2, 3):
            device.send(raw.publish(EVENT, first=0x32, id=number))
        await running.handler.until(lambda: len(running.handler.deliveries) == 3)
        for index in (2, 0, 1):
            running.handler.deliveries[index].ack()
        assert [await device.packet() for _ in range(3)] == [puback(3), puback(1), puback(2)]


async def test_a_late_second_ack_does_not_acknowledge_the_next_message(running: Running) -> None:
    running.handler.acks = False
    async with await running.live(A) as device:
        device.send(raw.publish(EVENT, first=0x32, id=5))
        await running.handler.until(lambda: len(running.handler.deliveries) == 1)
        running.handler.deliveries[0].ack()
        assert await device.packet() == puback(5)
        device.send(raw.publish(EVENT, first=0x32, id=5))
        await running.handler.until(lambda: len(running.handler.deliveries) == 2)
        running.handler.deliveries[0].ack()
        assert await device.quiet()
        running.handler.deliveries[1].ack()
        assert await device.packet() == puback(5)


async def test_an_ack_after_the_connection_is_over_does_nothing(running: Running) -> None:
    running.handler.acks = False
    async with await running.live(A) as device:
        device.send(raw.publish(EVENT, first=0x32, id=5))
        await running.handler.until(lambda: len(running.handler.deliveries) == 1)
    await running.handler.told("disconnected", A)
    running.handler.deliveries[0].ack()
    assert running.gate.stats().counters["acknowledged"] == 0


async def test_a_packet_id_still_in_flight(running: Running) -> None:
    running.handler.acks = False
    async with await running.live(A) as device:
        device.send(raw.publish(EVENT, first=0x32, id=5) * 2)
        await device.ended()
    await running.handler.told("refused", A, Reason.PACKET_ID)


async def test_too_many_unacknowledged_messages_stop_the_reading(start: Start) -> None:
    running: Running = await start(limits={"unacked": 4})
    running.handler.acks = False
    async with await running.live(A) as device:
        for number in range(1, 11):
            device.send(raw.publish(EVENT, first=0x32, id=number))
        device.send(raw.PINGREQ)
        await running.handler.until(lambda: len(running.handler.deliveries) == 4)
        assert await device.quiet()
        assert len(running.handler.deliveries) == 4
        running.handler.acks = True
        for delivery in running.handler.deliveries[:4]:
            delivery.ack()
        answers = [await device.packet() for _ in range(11)]
        answers.remove(raw.PINGRESP)
        assert answers == [puback(number) for number in range(1, 11)]


async def test_a_device_whose_window_is_full_is_not_called_silent(start: Start) -> None:
    running: Running = await start(limits={"unacked": 1})
    running.handler.acks = False
    async with await running.live(A, keepalive=1) as device:
        device.send(raw.publish(EVENT, first=0x32, id=1))
        await asyncio.sleep(2)
        assert not running.handler.has("disconnected")
        running.handler.deliveries[0].ack()
        assert await device.packet() == puback(1)
        await device.ping()


async def test_while_the_handler_is_full_messages_wait_and_pings_are_answered(
    running: Running,
) -> None:
    """A slow database must not look like a dead link."""
    running.handler.full = True
    async with await running.live(A) as device:
        device.send(raw.publish(EVENT, b"1", first=0x32, id=1))
        device.send(raw.publish(EVENT, b"sample"))  # QoS 0: dropped, by design
        device.send(raw.publish(EVENT, b"2", first=0x32, id=2))
        await device.ping()
        assert running.gate.stats().waiting == 2
        running.handler.full = False
        running.gate.resume()
        assert [delivery.payload for delivery in running.handler.deliveries] == [b"1", b"2"]
        assert [await device.packet() for _ in range(2)] == [puback(1), puback(2)]
    assert running.gate.stats().counters["messages_dropped"] == 1


async def test_frames_go_straight_to_the_stream_handler(running: Running) -> None:
    frames = [random.Random(number).randbytes(number * 3000) for number in range(12)]
    async with await running.live(A) as device:
        for frame in frames:
            device.send(raw.publish(STREAM, frame))
        await running.handler.until(lambda: len(running.handler.frames) == len(frames))
    assert running.handler.frames == [(A, frame) for frame in frames]
    assert not running.handler.deliveries


async def test_packets_in_pieces_of_every_size(running: Running) -> None:
    """However TCP cuts the stream, the same messages come out."""
    random_ = random.Random(7)
    payloads = [random_.randbytes(random_.choice((0, 1, 50, 130, 5000))) for _ in range(40)]
    stream = b"".join(raw.publish(STREAM, payload) for payload in payloads)
    async with await running.live(A) as device:
        at = 0
        while at < len(stream):
            size = random_.choice((1, 2, 3, 5, 100, 3000))
            device.send(stream[at : at + size])
            at += size
            if size < 4:
                await device.writer.drain()
                await asyncio.sleep(0)
        await running.handler.until(lambda: len(running.handler.frames) == len(payloads))
    assert [frame for _, frame in running.handler.frames] == payloads


async def test_the_largest_payload_and_one_byte_more(running: Running) -> None:
    async with await running.live(A) as device:
        device.send(raw.publish(EVENT, b"x" * MAX_PAYLOAD, first=0x32, id=1))
        assert await device.packet() == puback(1)
        device.send(raw.publish(EVENT, b"x" * (MAX_PAYLOAD + 1), first=0x32, id=2))
        assert await device.ended() == b""
    await running.handler.told("refused", A, Reason.TOO_LARGE)


async def test_what_comes_behind_a_subscribe_is_handled_after_it(running: Running) -> None:
    granted: list[bool] = []
    handler = running.handler
    take = handler.up

    def up(delivery: Any) -> bool:
        granted.append(running.gate.publish(f"pat/1/{A}/dn/hello/1", b"answer"))
        return take(delivery)

    handler.up = up  # type: ignore[method-assign]
    async with await running.raw(A) as device:
        device.send(
            raw.connect(A) + raw.subscribe(f"pat/1/{A}/dn/#") + raw.publish(EVENT, first=0x32)
        )
        assert await device.packet() == (0x20, b"\0\0")
        assert await device.packet() == (0x90, b"\0\x01\0")
        assert await device.message() == (f"pat/1/{A}/dn/hello/1", b"answer")
    assert granted == [True]


async def test_a_handler_that_fails_ends_that_connection_and_no_other(
    running: Running, expects_errors: pytest.LogCaptureFixture
) -> None:
    take = running.handler.up

    def up(delivery: Any) -> bool:
        if delivery.device == A:
            raise ZeroDivisionError
        return take(delivery)

    running.handler.up = up  # type: ignore[method-assign]
    async with await running.live(A) as device, await running.live(B) as other:
        device.send(raw.publish(EVENT, first=0x32))
        assert await device.ended() == b""
        await running.handler.told("disconnected", A, Reason.INTERNAL)
        other.send(raw.publish(f"pat/1/{B}/up/event/1", first=0x32))
        assert await other.packet() == puback(1)


async def test_a_message_goes_down_only_to_a_subscriber(running: Running) -> None:
    topic = f"pat/1/{A}/dn/refused/1"
    publish = running.gate.publish
    assert not publish(topic, b"")
    async with await running.live(A, subscribed=False) as device, await running.live(B) as other:
        assert not publish(topic, b"")
        device.send(raw.subscribe(f"pat/1/{A}/dn/end/1", topic))
        assert await device.packet() == (0x90, b"\0\x01\0\0")
        assert publish(topic, b"one")
        assert not publish(f"pat/1/{A}/dn/s", b"")
        assert await device.message() == (topic, b"one")
        device.send(raw.unsubscribe(topic, id=3))
        assert await device.packet() == (0xB0, b"\0\x03")
        assert not publish(topic, b"two")
        assert publish(f"pat/1/{A}/dn/end/1", b"three")
        assert await device.message() == (f"pat/1/{A}/dn/end/1", b"three")
        device.send(raw.unsubscribe("nothing/of/mine", id=4))
        assert await device.packet() == (0xB0, b"\0\x04")
        assert await other.quiet()


@pytest.mark.parametrize("topic", ["", "pat/1", f"pat/1/{A}", f"pat/1/{A}/up/event/1", "a/b/c/d"])
async def test_what_is_no_down_topic_goes_nowhere(running: Running, topic: str) -> None:
    async with await running.live(A) as device:
        assert not running.gate.publish(topic, b"x")
        assert await device.quiet(0.02)


async def test_an_oversized_payload_is_the_callers_mistake(running: Running) -> None:
    with pytest.raises(ValueError, match="the most is"):
        running.gate.publish(f"pat/1/{A}/dn/job/1", b"x" * (MAX_PAYLOAD + 1))


async def test_a_frame_is_not_taken_when_it_would_wait(running: Running) -> None:
    """Nor for a device that is offline, or has not subscribed."""
    assert not running.gate.frame(A, b"x")
    async with await running.live(A, subscribed=False) as device:
        assert not running.gate.frame(A, b"x")
        device.send(raw.subscribe(f"pat/1/{A}/dn/s"))
        assert await device.packet() == (0x90, b"\0\x01\0")
        device.writer.transport.pause_reading()  # type: ignore[attr-defined]
        sent = 0
        while running.gate.frame(A, sent.to_bytes(2) * 16000):
            sent += 1
            await asyncio.sleep(0)
        assert running.gate.congested(A)
        device.writer.transport.resume_reading()  # type: ignore[attr-defined]
        for number in range(sent):
            assert await device.message() == (f"pat/1/{A}/dn/s", number.to_bytes(2) * 16000)
    with pytest.raises(ValueError, match="the most is"):
        running.gate.frame(A, b"x" * (MAX_PAYLOAD + 1))


async def test_a_control_message_passes_frames_that_wait(running: Running) -> None:
    """DESIGN, the wire: control, then interactive, then bulk."""
    frames = 100
    async with await running.live(A) as device:
        device.writer.transport.pause_reading()  # type: ignore[attr-defined]
        for number in range(frames):
            assert running.gate.publish(f"pat/1/{A}/dn/s", number.to_bytes(2) * 16000)
            await asyncio.sleep(0)
        assert running.gate.congested(A)
        assert running.gate.publish(f"pat/1/{A}/dn/end/1", b"stop")
        device.writer.transport.resume_reading()  # type: ignore[attr-defined]
        order = [await device.message() for _ in range(frames + 1)]
        numbers = [payload[:2] for topic, payload in order if topic.endswith("/s")]
        assert numbers == [number.to_bytes(2) for number in range(frames)]
        assert order.index((f"pat/1/{A}/dn/end/1", b"stop")) < frames - 5
        assert not running.gate.congested(A)


async def test_publish_is_on_its_way_before_it_returns(running: Running) -> None:
    """R-CON-4: a push costs microseconds here, whatever else the loop has to do."""
    async with await running.live(A) as device:
        began = time.thread_time()
        for _ in range(500):
            assert running.gate.publish(f"pat/1/{A}/dn/end/1", b"x" * 200)
        assert (time.thread_time() - began) / 500 < 0.001
        for _ in range(500):
            await device.message()


async def test_takeover_closes_the_old_socket_before_the_new_one_is_announced(
    running: Running,
) -> None:
    # Broker._initialize_client_session with a clean session deletes the old session and leaves its
    # socket live: it goes on receiving. Broker._handle_client_session adds a second reader.
    async with await running.live(A) as old, await running.live(A) as new:
        assert await old.ended() == b""
        await running.handler.told("disconnected", A, Reason.TAKEN_OVER)
        kinds = [entry[0] for entry in running.handler.log if entry[1] == A]
        assert kinds == ["connected", "disconnected", "connected"]
        assert running.gate.publish(f"pat/1/{A}/dn/end/1", b"to the new one")
        assert await new.message() == (f"pat/1/{A}/dn/end/1", b"to the new one")
        stats = running.gate.stats()
        assert (stats.devices, stats.connections, stats.sessions) == (1, 1, 1)


async def test_many_takeovers_at_once_leave_one(running: Running) -> None:
    # BrokerProtocolHandler.start loses a goodbye that comes while it starts: a session for ever.
    many = [await running.raw(A) for _ in range(8)]
    for each in many:
        each.send(raw.connect(A))
    await running.handler.told("connected", A, wait_s=2)
    ended = [asyncio.create_task(each.ended(30)) for each in many]
    async with asyncio.timeout(10):
        while sum(task.done() for task in ended) < 7:
            await asyncio.wait(ended, return_when=asyncio.FIRST_COMPLETED, timeout=0.01)
    await asyncio.sleep(0.1)
    assert sum(task.done() for task in ended) == 7
    stats = running.gate.stats()
    assert (stats.devices, stats.connections, stats.sessions) == (1, 1, 1)
    for each in many:
        await each.abort()
    await asyncio.wait(ended)
    assert not any(isinstance(task.exception(), TimeoutError) for task in ended)
    await running.emptied()


async def test_a_quick_return_does_not_wait_for_a_polite_close(start: Start) -> None:
    """The old socket said goodbye and was left open by the device; R-CON-4 wants it back now."""
    running: Running = await start(limits={"shutdown_s": 60.0})
    async with await running.live(A) as old:
        old.writer.transport.pause_reading()  # type: ignore[attr-defined]  never says close_notify
        old.send(raw.DISCONNECT)
        await running.handler.told("disconnected", A, Reason.DISCONNECTED)
        async with await running.live(A) as new:
            await new.ping()


async def test_one_that_leaves_while_it_is_not_read_leaves_nothing(running: Running) -> None:
    """SUBSCRIBE, goodbye and the end of the socket at once: the gate waits for amqtt meanwhile."""
    for _each in range(5):
        device = await running.live(A, subscribed=False)
        device.send(raw.subscribe(f"pat/1/{A}/dn/#") + raw.DISCONNECT)
        await device.writer.drain()
        device.writer.transport.abort()  # FIN, no close_notify
        await device.abort()
        await running.emptied()


async def test_when_amqtt_hangs_the_device_is_told_and_nothing_is_left(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(self: object, inlet: object, outlet: object) -> None:
        await asyncio.sleep(3600)

    running: Running = await start(limits={"broker_s": 0.2})
    with monkeypatch.context() as patch:
        patch.setattr("broker.session.Registry.serve", hang)
        async with await running.raw(A) as device:
            device.send(raw.connect(A))
            assert await device.ended() == b"\x20\x02\0\x03"
        async with asyncio.timeout(2):
            while running.gate._house is None or running.gate._house.seats:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    assert not running.handler.has("connected")
    async with await running.live(A) as device:
        await device.ping()


async def test_a_gate_that_breaks_says_so_and_closes_everything(start: Start) -> None:
    running: Running = await start()
    async with await running.live(A) as device:
        house = running.gate._house
        assert house is not None

        async def fault() -> None:
            raise ZeroDivisionError

        house.spawn(fault())
        with pytest.raises(ExceptionGroup):
            await running.gate.wait()
        assert await device.ended() == b""
        assert running.handler.has("disconnected", A)
    with pytest.raises(ExceptionGroup):
        await running.gate.stop()


async def test_kick_cuts_within_two_seconds(running: Running) -> None:
    async with await running.live(A) as device, await running.live(B) as other:
        began = time.monotonic()
        assert running.gate.kick(A)
        assert await device.ended(2) == b""
        assert time.monotonic() - began < 2
        await running.handler.told("disconnected", A, Reason.KICKED)
        assert not running.gate.kick(A)
        assert not running.gate.publish(f"pat/1/{A}/dn/end/1", b"")
        await other.ping()


@pytest.mark.parametrize("polite", [True, False])
async def test_nothing_is_left_of_a_connection_that_ended(running: Running, polite: bool) -> None:
    # Broker._client_connected leaks its waiters, and Broker._session_monitor finds a dead session
    # a second later: no zombie session, subscription or task may survive its socket here.
    for _ in range(scaled(100, at_least=10)):
        device = await running.live(A)
        if polite:
            device.send(raw.DISCONNECT)
            await device.ended()
        await device.abort()
    await running.emptied()
    registry = running.gate._registry
    assert registry is not None
    assert not registry.sessions
    assert not registry.subscriptions
    assert not registry._filters
    house = running.gate._house
    assert house is not None
    assert not house.seats
    assert not house.connections
    reason = Reason.DISCONNECTED if polite else Reason.LOST
    assert set(running.gate.stats().counters["ended"]) == {reason}


async def test_stop_ends_every_connection(start: Start) -> None:
    running: Running = await start()
    async with (
        await running.live(A) as one,
        await running.live(B) as two,
        await running.raw(B) as _,
    ):
        began = time.monotonic()
        await running.gate.stop()
        assert time.monotonic() - began < 3
        assert await one.ended() == b""
        assert await two.ended() == b""
    assert running.handler.has("disconnected", A, Reason.STOPPING)
    assert running.gate.connections == frozenset()
    with pytest.raises(OSError):
        await Raw.open(running.gate.port, running.authority, None)
    await running.gate.start()
    async with await running.live(A) as again:
        await again.ping()


async def test_a_gate_starts_once(running: Running) -> None:
    with pytest.raises(NotStarted):
        await running.gate.start()


async def test_what_is_known_of_a_connection(running: Running) -> None:
    async with await running.live(A, keepalive=10):
        info = next(entry[2] for entry in running.handler.log if entry[0] == "connected")
        assert info.keepalive_s == 10
        assert info.tls == "TLSv1.3"
        assert info.peer.startswith("127.0.0.1:")
        serial = running.identities[A].certificate.serial_number
        assert int(info.certificate, 16) == serial
        stats = running.gate.stats()
        assert (stats.devices, stats.sessions, stats.counters["connects"]) == (1, 1, 1)


def _noise(random_: random.Random) -> bytes:
    """Packets that are nearly right: a good one, mutilated."""
    good = [
        raw.publish(EVENT, random_.randbytes(random_.randrange(60)), first=0x32, id=9),
        raw.publish(STREAM, random_.randbytes(random_.randrange(2000))),
        raw.subscribe(f"pat/1/{A}/dn/#", "#"),
        raw.unsubscribe(f"pat/1/{A}/dn/#"),
        raw.PINGREQ,
        raw.connect(A),
        raw.DISCONNECT,
    ]
    data = bytearray(random_.choice(good))
    for _ in range(random_.randrange(4)):
        data[random_.randrange(len(data))] = random_.randrange(256)
    return bytes(data)


async def test_fuzzed_packets_crash_nothing_and_leave_nothing(running: Running) -> None:
    """THREATS: 10^7 fuzzed packets, sampled: no crash, no zombie session."""
    random_ = random.Random(20261)
    left = scaled(20_000)
    while left > 0:
        device = await running.live(A)
        for _ in range(50):
            device.send(_noise(random_))
            left -= 1
        await asyncio.sleep(0)
        device.send(raw.DISCONNECT)
        await asyncio.sleep(0.002)
        await device.abort()
    await running.emptied()
    assert not running.gate.stats().counters["ended"].get(Reason.INTERNAL)
    assert not running.gate.stats().counters["ended"].get(Reason.BROKER)
