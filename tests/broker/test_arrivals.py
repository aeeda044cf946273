"""From accept to a protocol: the web beside MQTT, half-open sockets, stalls, old TLS.

Requirements: R-CON-3, R-CON-6; ADR 0006.
"""

import asyncio
import ssl
from typing import Any

import pytest

from broker.errors import Reason
from tests.broker import raw
from tests.broker.conftest import A, Running, Start
from tests.broker.raw import Raw
from tests.scale import scaled
from tests.tls import Authority


class Hello(asyncio.Protocol):
    """A web server of one sentence."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")  # type: ignore[attr-defined]
        self.transport.close()


@pytest.mark.parametrize("alpn", [("http/1.1",), ("h2", "http/1.1"), ()])
async def test_browsers_reach_the_web_server_without_a_certificate(
    start: Start, alpn: tuple[str, ...]
) -> None:
    running: Running = await start(web_factory=Hello)
    async with await running.raw(None, alpn=alpn) as browser:
        browser.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200 OK" in await browser.ended()
    async with await running.live(A) as device:
        await device.ping()
    assert running.gate.stats().counters["handshakes"] == 1


async def test_mqtt_among_other_protocols_still_needs_a_certificate(start: Start) -> None:
    running: Running = await start(web_factory=Hello)
    async with await running.raw(None, alpn=("http/1.1", "mqtt")) as attacker:
        attacker.send(b"GET / HTTP/1.1\r\n\r\n")
        assert await attacker.ended() == b""
    await running.handler.told("refused", None, Reason.HANDSHAKE)


async def test_without_a_web_server_only_mqtt_is_spoken(running: Running) -> None:
    with pytest.raises(OSError):
        await running.raw(A, alpn=("http/1.1",))
    await running.handler.told("refused", None, Reason.HANDSHAKE)


async def test_the_accept_loop_survives_running_out_of_descriptors(
    start: Start, monkeypatch: pytest.MonkeyPatch, expects_errors: pytest.LogCaptureFixture
) -> None:
    loop = asyncio.get_running_loop()
    if not isinstance(loop, asyncio.SelectorEventLoop):
        return  # uvloop's methods cannot be replaced; the code above it is the same
    accept, failures = loop.sock_accept, iter([24, 24, 103])

    async def failing(sock: Any) -> Any:
        number = next(failures, None)
        if number is not None:
            raise OSError(number, "as if")
        return await accept(sock)

    monkeypatch.setattr(loop, "sock_accept", failing)
    running: Running = await start()
    async with await running.live(A) as device:
        await device.ping()


async def test_half_open_sockets_beside_live_devices(start: Start) -> None:
    """THREATS: 1,000 of each; live devices unaffected, and the port still answers."""
    count = scaled(1000)
    running = await start(limits={"hello_s": 1.0})
    sockets = [await asyncio.open_connection("127.0.0.1", running.gate.port) for _ in range(count)]
    for index, (_, writer) in enumerate(sockets):
        if index % 2:
            writer.write(b"\x16\x03\x01\x02\x00\x01")  # a ClientHello that goes no further
    async with await running.live(A) as device:
        await device.ping()  # test_neighbours.py measures it
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
    async with asyncio.timeout(5):
        while running.gate.stats().handshakes < 4:  # noqa: ASYNC110  (every place is taken)
            await asyncio.sleep(0.01)
    async with await running.live(A) as device:
        await device.ping()
    await running.handler.told("refused", None, Reason.CROWDED)
    for _, writer in stalled:
        writer.close()


async def test_no_tls_at_all(start: Start) -> None:
    running = await start(limits={"hello_s": 0.5})
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
