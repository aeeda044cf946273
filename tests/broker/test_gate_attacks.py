"""THREATS, "The gate and the broker": one attack, one test, against a running gate over real TLS.

Comments name the amqtt 0.12.1 function whose defect is closed by the gate standing before it.
Requirements: R-CON-3, R-CON-4, R-CON-6.
"""

import asyncio
import datetime as dt
import ssl
import time

import pytest

from broker.errors import Reason
from tests.broker import raw
from tests.broker.conftest import A, B, Running, Start
from tests.broker.raw import Raw
from tests.scale import scaled
from tests.tls import Authority, Issued

CONNACK_OK = (0x20, b"\0\0")


async def refused_by_tls(running: Running, identity: Issued | None) -> None:
    """The peer may finish its own half of the handshake; it never gets a CONNACK."""
    try:
        attacker = await Raw.open(running.gate.port, running.authority, identity)
    except OSError:
        pass
    else:
        async with attacker:
            attacker.send(raw.connect(A))
            assert await attacker.ended() == b""
    await running.handler.told("refused", None, Reason.HANDSHAKE)
    assert not running.handler.has("connected")
    await running.emptied()


# --- identity ---------------------------------------------------------------------------------


async def test_without_a_certificate(running: Running) -> None:
    # Broker._create_ssl_context asks with CERT_OPTIONAL: no certificate is as good as any.
    await refused_by_tls(running, None)


async def test_with_a_certificate_of_a_foreign_ca(running: Running) -> None:
    # Broker._create_ssl_context starts from create_default_context, which may trust public CAs.
    await refused_by_tls(running, Authority("foreign").device(A))


async def test_with_an_expired_certificate(running: Running, authority: Authority) -> None:
    day = dt.timedelta(days=1)
    expired = authority.device(A, starts=-2 * day, life=day)
    await refused_by_tls(running, expired)


async def test_with_the_servers_certificate(running: Running, authority: Authority) -> None:
    """The server CA is not a device CA."""
    await refused_by_tls(running, authority.server)


@pytest.mark.parametrize(
    ("name", "san"),
    [(A, f"spiffe://patency/device/{B}"), (A, "https://example.org"), ("no#id", None)],
)
async def test_a_certificate_that_names_no_one_device(
    running: Running, authority: Authority, name: str, san: str | None
) -> None:
    async with await Raw.open(
        running.gate.port, authority, authority.device(name, san=san)
    ) as attacker:
        attacker.send(raw.connect(A))
        assert await attacker.ended() == b""
    await running.handler.told("refused", None, Reason.NO_IDENTITY)


async def test_an_identity_that_the_portal_denies(start: Start) -> None:
    running = await start(admit=lambda identity: identity.device != A)
    async with await running.raw(A) as attacker:
        attacker.send(raw.connect(A))
        assert await attacker.ended() == b""
    await running.handler.told("refused", None, Reason.DENIED)
    async with await running.live(B):
        assert running.gate.connections == {B}


async def test_a_certificate_that_expires_while_connected(
    running: Running, authority: Authority
) -> None:
    identity = authority.device(
        A, starts=-dt.timedelta(minutes=1), life=dt.timedelta(minutes=1, seconds=2)
    )
    async with await Raw.open(running.gate.port, authority, identity) as device:
        await device.live(A)
        await device.ended()
    await running.handler.told("disconnected", A, Reason.CERTIFICATE_EXPIRED)


@pytest.mark.parametrize("clean", [True, False])
async def test_another_devices_client_id_while_it_is_online(running: Running, clean: bool) -> None:
    # Broker._initialize_client_session deletes or adopts the session of the id in CONNECT before
    # anybody is authenticated: it wipes A's subscriptions, or hands A's session to B.
    async with await running.live(A) as victim:
        async with await running.raw(B) as attacker:
            attacker.send(raw.connect(A, clean=clean))
            assert await attacker.ended() == b"\x20\x02\0\x02"
        await running.handler.told("refused", B, Reason.CLIENT_ID)
        assert running.gate.publish(f"pat/1/{A}/dn/refused/1", b"still here")
        assert await victim.message() == (f"pat/1/{A}/dn/refused/1", b"still here")
        assert not running.handler.has("disconnected")


@pytest.mark.parametrize("clean", [True, False])
async def test_another_devices_client_id_while_it_is_offline(running: Running, clean: bool) -> None:
    # Broker._authenticate is asked about the client id alone; the stored session opens the door.
    async with await running.live(A) as device:
        device.send(raw.DISCONNECT)
        await device.ended()
    async with await running.raw(B) as attacker:
        attacker.send(raw.connect(A, clean=clean))
        assert await attacker.ended() == b"\x20\x02\0\x02"
    assert running.gate.connections == frozenset()


@pytest.mark.parametrize(
    "client_id",
    [
        "a/b/c/d/e",
        "#",
        "+",
        "$SYS",
        "nul\0nul",
        b"\xff\xfe\xfd\xfc",
        b"\xed\xa0\x80",
        "x" * 400,
        "",
    ],
)
async def test_a_client_id_of_forbidden_characters(
    running: Running, client_id: str | bytes
) -> None:
    # codecs_amqtt.decode_string turns invalid UTF-8 into its Python repr and carries on.
    async with await running.raw(A) as attacker:
        attacker.send(raw.connect(client_id))
        assert await attacker.ended() in (b"\x20\x02\0\x02", b"")
    assert not running.handler.has("connected")


# --- CONNECT ----------------------------------------------------------------------------------


async def test_a_user_name(running: Running) -> None:
    # BrokerProtocolHandler.init_from_connect lets a user name stand in for an identity.
    async with await running.raw(A) as attacker:
        attacker.send(raw.connect(A, flags=0x80, tail=raw.text("root")))
        assert await attacker.ended() == b"\x20\x02\0\x04"
    await running.handler.told("refused", A, Reason.USER_NAME)


@pytest.mark.parametrize("flags", [0x04, 0x0C, 0x24, 0x20, 0x08])
async def test_a_will(running: Running, flags: int) -> None:
    # Broker._handle_disconnect broadcasts the will, and retains it, past every topic plugin.
    async with await running.raw(A) as attacker:
        tail = raw.text(f"pat/1/{B}/dn/job/1") + raw.text(b"{}")
        attacker.send(raw.connect(A, flags=flags, tail=tail))
        assert await attacker.ended() == b"\x20\x02\0\x05"
    await running.handler.told("refused", A, Reason.WILL)


@pytest.mark.parametrize(("name", "level"), [("MQIsdp", 3), ("MQTT", 5), ("MQTT", 3)])
async def test_another_version_of_the_protocol(running: Running, name: str, level: int) -> None:
    async with await running.raw(A) as attacker:
        attacker.send(raw.connect(A, name=name, level=level))
        assert await attacker.ended() == b"\x20\x02\0\x01"


@pytest.mark.parametrize("keepalive", [0, 301])
async def test_a_keepalive_that_would_not_notice(running: Running, keepalive: int) -> None:
    async with await running.raw(A) as attacker:
        attacker.send(raw.connect(A, keepalive=keepalive))
        assert await attacker.ended() == b"\x20\x02\0\x05"


@pytest.mark.parametrize("start_of_packet", [b"", b"\x10", raw.connect(A)[:-1]])
async def test_no_connect_or_a_slow_one(start: Start, start_of_packet: bytes) -> None:
    # BrokerProtocolHandler.init_from_connect waits for CONNECT for ever.
    running = await start(limits={"connect_s": 0.4})
    async with await running.raw(A) as attacker:
        before = time.monotonic()
        attacker.send(start_of_packet)
        assert await attacker.ended() == b""
        assert time.monotonic() - before < 2
    await running.handler.told("refused", A, Reason.CONNECT_LATE)
    await running.emptied()


@pytest.mark.parametrize(
    "first", [raw.PINGREQ, raw.publish("x"), raw.subscribe("#"), b"\x00\x00", b"\xf0\x00"]
)
async def test_a_first_packet_that_is_no_connect(running: Running, first: bytes) -> None:
    async with await running.raw(A) as attacker:
        attacker.send(first)
        assert await attacker.ended() == b""
    await running.handler.told("refused", A, Reason.NOT_CONNECT)


async def test_an_endless_connect(running: Running) -> None:
    # ConnectPacket.from_stream reads whatever length the header announces.
    async with await running.raw(A) as attacker:
        attacker.send(b"\x10\xff\xff\xff\x7f")
        assert await attacker.ended() == b""
    await running.handler.told("refused", A, Reason.TOO_LARGE)


async def test_a_second_connect(running: Running) -> None:
    # BrokerProtocolHandler.handle_connect only ends the session; the socket lives on.
    async with await running.live(A) as attacker:
        attacker.send(raw.connect(A))
        assert await attacker.ended() == b""
    await running.handler.told("disconnected", A, Reason.SECOND_CONNECT)


# --- topics -----------------------------------------------------------------------------------


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


async def test_a_refused_filter_beside_a_good_one(running: Running) -> None:
    async with await running.live(A, subscribed=False) as device:
        device.send(raw.subscribe("#", f"pat/1/{A}/dn/#", "$SYS/#", id=9, qos=1))
        assert await device.packet() == (0x90, b"\0\x09\x80\0\x80")
        assert running.gate.publish(f"pat/1/{A}/dn/end/1", b"x")


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


# --- size and time ----------------------------------------------------------------------------


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
        for _ in range(3):
            await asyncio.sleep(0.7)
            await device.ping()
        before = time.monotonic()
        assert await device.ended() == b""
        assert 1.2 < time.monotonic() - before < 2.5
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
                before = time.monotonic()
                await other.ping()
                assert time.monotonic() - before < 0.5
            await asyncio.sleep(0)
        assert most <= 1024 * 1024 + 2 * len(frame)
        await running.handler.told("disconnected", A, Reason.NOT_READING)
        await other.ping()
    await running.emptied()
    assert running.gate.stats().buffered_bytes == 0


async def test_a_reader_stalled_for_too_long(start: Start) -> None:
    """Under the bound in bytes, over the bound in time."""
    running = await start(limits={"stalled_s": 0.5})
    async with await running.live(A, keepalive=1) as stopped:
        stopped.writer.transport.pause_reading()  # type: ignore[attr-defined]
        # More than the kernels of both sides take, less than the bound.
        while running.gate.stats().buffered_bytes < 1024 * 1024:
            assert running.gate.publish(f"pat/1/{A}/dn/s", b"x" * 32768)
            await asyncio.sleep(0)
        for _ in range(15):
            stopped.send(raw.PINGREQ)
            await asyncio.sleep(0.1)
    await running.handler.told("disconnected", A, Reason.NOT_READING)


async def test_half_open_sockets_beside_live_devices(start: Start) -> None:
    """THREATS: 1,000 of each; live devices unaffected, and the port still answers."""
    count = scaled(1000)
    running = await start(limits={"hello_s": 1.0})
    sockets = [await asyncio.open_connection("127.0.0.1", running.gate.port) for _ in range(count)]
    for index, (_, writer) in enumerate(sockets):
        if index % 2:
            writer.write(b"\x16\x03\x01\x02\x00\x01")  # a ClientHello that goes no further
    async with await running.live(A) as device:
        before = time.monotonic()
        await device.ping()
        assert time.monotonic() - before < 0.5
        for reader, writer in sockets:
            assert await Raw(reader, writer).ended() == b""
            writer.close()
        await device.ping()
    assert running.gate.stats().counters["refused"][Reason.NOT_TLS] == count


async def test_handshakes_that_stall_give_their_place_up(start: Start) -> None:
    running = await start(limits={"handshakes": 4, "handshake_fair_s": 0.2})
    stalled = []
    for _ in range(8):
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = running.authority.client_context(None).wrap_bio(
            incoming, outgoing, server_hostname="localhost"
        )
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        reader, writer = await asyncio.open_connection("127.0.0.1", running.gate.port)
        writer.write(outgoing.read())
        stalled.append((reader, writer))
    await asyncio.sleep(0.05)
    async with await running.live(A) as device:
        await device.ping()
    assert running.handler.has("refused", None, Reason.CROWDED)
    for _, writer in stalled:
        writer.close()


async def test_one_device_far_above_the_rate(start: Start) -> None:
    """It is slowed; the others' answers stay quick."""
    running = await start(limits={"messages_per_s": 200.0, "messages_burst": 50})
    async with await running.live(A) as loud, await running.live(B) as other:
        loud.send(raw.publish(f"pat/1/{A}/up/telemetry/1") * 2000)
        slowest = 0.0
        for _ in range(20):
            before = time.monotonic()
            await other.ping()
            slowest = max(slowest, time.monotonic() - before)
            await asyncio.sleep(0.025)
        taken = len(running.handler.deliveries)
        assert 50 <= taken < 400, taken
        assert slowest < 0.25


async def test_no_tls_at_all(running: Running) -> None:
    for words in (b"GET / HTTP/1.1\r\n\r\n", raw.connect(A), b"\x16\x03\x01\xff\xff", b"\x16\x03"):
        reader, writer = await asyncio.open_connection("127.0.0.1", running.gate.port)
        writer.write(words)
        if len(words) == 2:
            writer.write_eof()
        assert await Raw(reader, writer).ended(wait_s=8) == b""
        writer.close()
    async with await running.live(A) as device:
        await device.ping()


async def test_tls_below_1_2(running: Running, authority: Authority) -> None:
    """R-CON-6."""
    context = authority.client_context(running.identities[A])
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning):
        context.minimum_version = ssl.TLSVersion.TLSv1_1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(OSError):
        await Raw.open(running.gate.port, authority, None, context=context)


async def test_tls_1_2_is_still_enough(running: Running, authority: Authority) -> None:
    """R-CON-6."""
    context = authority.client_context(running.identities[A])
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with await Raw.open(running.gate.port, authority, None, context=context) as device:
        await device.live(A)
        await device.ping()
