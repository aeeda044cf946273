"""THREATS, "The gate and the broker": how late is too late, at the figures of production.

No limit is shortened here, so these take their time. Requirements: R-CON-3, R-CON-4, R-CON-6.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable

from agent.wire import carrier
from broker.errors import Reason
from tests.broker import raw
from tests.broker.conftest import A, B, Running, Start
from tests.broker.raw import Raw
from tests.broker.raw_websocket import upgrade

TRICKLE_S = 0.7  # a byte now and then: never silent for long, never done
FIRM = 10.0  # the promise

Opening = Callable[[Running], Awaitable[Raw]]


async def bare(running: Running) -> Raw:
    """A socket, and no TLS."""
    return Raw(*await asyncio.open_connection("127.0.0.1", running.gate.port))


async def secure(running: Running) -> Raw:
    return await running.raw(A)


async def secure_for_http(running: Running) -> Raw:
    return await running.raw(A, alpn=carrier.WEBSOCKET)


def client_hello(running: Running) -> bytes:
    """As a device begins TLS."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = running.authority.client_context(running.identities[A])
    tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise AssertionError("nobody answered")


async def lasts(running: Running, opening: Opening, at_once: bytes, trickled: bytes) -> float:
    """Seconds from before the connection until the gate has closed it."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with await opening(running) as attacker:
        ending = asyncio.create_task(attacker.ended(30))
        attacker.send(at_once)
        for byte in trickled:
            await asyncio.wait((ending,), timeout=TRICKLE_S)
            if ending.done():
                break
            attacker.send(bytes([byte]))
        await ending
        return loop.time() - began


async def test_who_does_not_come_to_connect_is_out_within_ten_seconds(start: Start) -> None:
    """However far they come, and whether they are silent or slow."""
    running: Running = await start()
    hello, connect, request = client_hello(running), raw.connect(A), upgrade()
    attacks: list[tuple[Opening, bytes, bytes]] = [
        (bare, b"", b""),
        (bare, hello[:50], b""),
        (bare, b"", hello),
        (bare, hello, b""),  # and never goes on with the handshake
        (secure, b"", b""),
        (secure, connect[:-1], b""),
        (secure, b"", connect),
        (secure_for_http, b"", b""),
        (secure_for_http, request[:-2], b""),
        (secure_for_http, b"", request),
        (secure_for_http, request, b""),  # and then no CONNECT
    ]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(lasts(running, *attack)) for attack in attacks]
    lasted = [task.result() for task in tasks]
    assert max(lasted) <= FIRM, lasted
    await running.emptied()
    assert not running.handler.has("connected")


async def test_silence_ends_after_one_and_a_half_keepalives(start: Start) -> None:
    """Of a device that asked for six seconds; one that pings stays."""
    running: Running = await start()
    loop = asyncio.get_running_loop()
    async with (
        await running.live(B, keepalive=6) as other,
        await running.live(A, keepalive=6) as silent,
    ):
        began = loop.time()
        ending = asyncio.create_task(silent.ended(30))
        while not ending.done():
            await other.ping()
            await asyncio.wait((ending,), timeout=1)
        assert 8.9 < loop.time() - began < 11
        await running.handler.told("disconnected", A, Reason.SILENT)
        await other.ping()
