"""THREATS, "The gate and the broker": who somebody is, and CONNECT.

One attack, one test, against a running gate over real TLS, and again in a websocket.
Comments name the amqtt 0.12.1 function whose defect is closed by the gate standing before it.
Requirements: R-CON-3, R-CON-4, R-CON-6.
"""

import asyncio
import contextlib
import datetime as dt
import gc
import socket
import ssl
import time
import weakref
from collections.abc import AsyncIterator

import pytest

from broker import denied, gate
from broker.errors import Reason
from broker.gate import Connection
from broker.session import Registry
from broker.websocket import WebSocket
from tests.broker import raw
from tests.broker.conftest import BOTH_CARRIERS, A, B, Running, Start
from tests.broker.raw import Raw
from tests.scale import scaled
from tests.tls import Authority, Issued

pytestmark = BOTH_CARRIERS


async def refused_by_tls(running: Running, identity: Issued | None) -> None:
    """The peer may finish its own half of the handshake; it never gets a CONNACK."""
    await refused_unheard(running, identity, Reason.HANDSHAKE)


async def refused_unheard(
    running: Running, identity: Issued | None, reason: Reason, *, device: str | None = None
) -> None:
    """Closed without an answer, nothing that it sent is looked at, and nothing is left."""
    async with unread():
        await Raw.unheard(running.open(identity), raw.connect(A))
        await running.handler.told("refused", device, reason)
        assert not running.handler.has("connected")
        await running.emptied()


@contextlib.asynccontextmanager
async def unread() -> AsyncIterator[None]:
    """Inside, no byte gets past TLS, amqtt is given nobody, and no connection stays in memory."""
    read: list[object] = []
    made: weakref.WeakSet[Connection] = weakref.WeakSet()
    make = Connection.__init__

    def making(self: Connection, *arguments: object, **options: object) -> None:
        made.add(self)
        make(self, *arguments, **options)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Connection, "__init__", making)
        patch.setattr(Connection, "received", lambda self, *chunk, **_: read.append(chunk))
        patch.setattr(WebSocket, "buffer_updated", lambda self, size: read.append(size))
        patch.setattr(Registry, "serve", lambda self, *streams: read.append(streams))
        yield
    assert not read
    async with asyncio.timeout(5):
        while made:
            await asyncio.sleep(0.01)
            gc.collect()


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
    await refused_unheard(running, authority.device(name, san=san), Reason.NO_IDENTITY)


async def test_an_identity_that_the_portal_denies(start: Start) -> None:
    running = await start(admit=lambda identity: identity.device != A)
    await refused_unheard(running, running.identities[A], Reason.DENIED, device=A)
    async with await running.live(B):
        assert running.gate.connections == {B}


@pytest.mark.parametrize("by", ["device", "certificate"])
async def test_a_device_revoked_while_it_is_live(running: Running, by: str) -> None:
    """THREATS: cut within 2 s, and none of 100 returns succeeds."""
    number = denied.serial(format(running.identities[A].certificate.serial_number, "x"))
    async with await running.live(A) as device, await running.live(B) as other:
        began = time.monotonic()
        if by == "device":
            running.gate.deny(denied.DenyList(devices=frozenset({A})))
        else:
            running.gate.deny(denied.DenyList(certificates=frozenset({number})))
        await device.ended(2)
        assert time.monotonic() - began < 2
        await running.handler.told("disconnected", A, Reason.DENIED)
        for _ in range(scaled(100, at_least=10)):
            await Raw.unheard(running.raw(A), raw.connect(A))
        assert running.gate.connections == {B}
        assert running.gate.stats().counters["connects"] == 2
        await other.ping()
        running.gate.deny(denied.DenyList())
        async with await running.live(A) as allowed:
            await allowed.ping()


async def test_denied_between_the_handshake_and_connect(start: Start) -> None:
    """When it is revoked, it has no seat yet and no kick can find it."""
    denied: set[str] = set()
    running = await start(admit=lambda identity: identity.serial not in denied)
    async with await running.raw(A) as attacker:
        async with asyncio.timeout(5):
            while not running.gate.stats().connections:  # noqa: ASYNC110  (over on both sides)
                await asyncio.sleep(0.01)
        denied.add(f"{running.identities[A].certificate.serial_number:X}")
        denied.add(f"{running.identities[A].certificate.serial_number:040X}")
        attacker.send(raw.connect(A))
        assert await attacker.ended() == b""
    await running.handler.told("refused", A, Reason.DENIED)
    assert not running.handler.has("connected")


async def test_denied_while_connected_and_nobody_kicks(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The timer looks again, as for the certificate's end."""
    monkeypatch.setattr(gate, "_WATCH_S", 0.1)
    denied: set[str] = set()
    running = await start(admit=lambda identity: identity.device not in denied)
    async with await running.live(A) as device:
        denied.add(A)
        assert await device.ended() == b""
    await running.handler.told("disconnected", A, Reason.DENIED)


class Resuming:
    """TLS 1.2 resumes by session id, and OpenSSL does not look at the chain then: the gate asks."""

    def __init__(self, running: Running) -> None:
        self._port = running.gate.port
        self._context = running.authority.client_context(running.identities[A])
        self._context.maximum_version = ssl.TLSVersion.TLSv1_2
        self._session: ssl.SSLSession | None = None
        self._reused = False

    async def begin(self) -> None:
        """Get in, and once more with the session of the first time."""
        for _ in range(2):
            assert await self.visit() == b"\x20\x02\0\0"
        assert self._reused, "nothing was resumed: this test would prove nothing"

    async def visit(self) -> bytes:
        """What the gate says to CONNECT."""
        return await asyncio.to_thread(self._visit)

    def _visit(self) -> bytes:
        session = self._session
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self._port), timeout=5) as plain,
            self._context.wrap_socket(plain, server_hostname="localhost", session=session) as tls,
        ):
            tls.sendall(raw.connect(A))
            said = tls.recv(4)
            self._session, self._reused = session or tls.session, bool(tls.session_reused)
            with contextlib.suppress(OSError):
                tls.unwrap()  # OpenSSL forgets a session that ended without goodbye
            return said
        return b""  # cut, maybe before the client thought that it was in


async def test_denied_on_resumption_of_a_tls_session(start: Start) -> None:
    denied: set[str] = set()
    running = await start(admit=lambda identity: identity.device not in denied)
    device = Resuming(running)
    await device.begin()
    denied.add(A)
    for _ in range(scaled(20)):
        assert await device.visit() == b""


async def test_expired_on_resumption_of_a_tls_session(start: Start) -> None:
    """A month later by the gate's clock; to OpenSSL, which is not asked again, it was good."""
    ahead_s = 0.0
    running = await start(wall_clock=lambda: time.time() + ahead_s)
    device = Resuming(running)
    await device.begin()
    ahead_s = 31 * 86_400.0
    for _ in range(scaled(20)):
        assert await device.visit() == b""
    await running.handler.told("refused", None, Reason.CERTIFICATE_EXPIRED)


async def test_a_certificate_that_expires_while_connected(
    running: Running, authority: Authority
) -> None:
    identity = authority.device(
        A, starts=-dt.timedelta(minutes=1), life=dt.timedelta(minutes=1, seconds=2)
    )
    async with await running.open(identity) as device:
        await device.live(A)
        await device.ended()
    await running.handler.told("disconnected", A, Reason.CERTIFICATE_EXPIRED)


@pytest.mark.parametrize("clean", [True, False])
async def test_another_devices_client_id_while_it_is_online(running: Running, clean: bool) -> None:
    # Broker._initialize_client_session deletes or adopts the session of the id in CONNECT before
    # anybody is authenticated: it wipes A's subscriptions, or hands A's session to B.
    async with await running.live(A) as victim:
        registry = running.gate._registry
        assert registry is not None
        session, _ = registry._sessions[A]
        async with await running.raw(B) as attacker:
            attacker.send(raw.connect(A, clean=clean))
            assert await attacker.ended() == b"\x20\x02\0\x02"
        await running.handler.told("refused", B, Reason.CLIENT_ID)
        assert registry._sessions.keys() == {A}
        assert registry._sessions[A][0] is session
        assert registry.filters(A) == {f"pat/1/{A}/dn/#"}
        assert [entry[0] for entry in running.handler.log] == ["connected", "refused"]
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


@pytest.mark.parametrize("name", ["root", A, "", "#", "nul\0nul", b"\xff\xfe", "x" * 900])
async def test_a_user_name(running: Running, name: str | bytes) -> None:
    # BrokerProtocolHandler.init_from_connect lets a user name stand in for an identity.
    async with await running.raw(A) as attacker:
        attacker.send(raw.connect(A, flags=0x80, tail=raw.text(name)))
        assert await attacker.ended() == b"\x20\x02\0\x04"
    await running.handler.told("refused", A, Reason.USER_NAME)


@pytest.mark.parametrize("topic", [f"pat/1/{B}/dn/job/1", f"pat/1/{A}/up/event/1", "#", ""])
@pytest.mark.parametrize("flags", [0x04, 0x0C, 0x24, 0x20, 0x08])
async def test_a_will(running: Running, flags: int, topic: str) -> None:
    # Broker._handle_disconnect broadcasts the will, and retains it, past every topic plugin.
    async with await running.raw(A) as attacker:
        tail = raw.text(topic) + raw.text(b"{}")
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
        attacker.send(start_of_packet)
        assert await attacker.ended() == b""
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
