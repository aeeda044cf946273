"""The PROXY protocol: the bytes, and a gate that believes them from its own proxies alone.

Requirements: R-CON-3, R-ACC-10 (the audit names the real peer).
"""

import asyncio
import ipaddress
import random
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker import proxy
from broker.errors import Reason
from broker.options import Network
from tests.broker import raw
from tests.broker.conftest import BOTH_CARRIERS, A, Running, Start
from tests.broker.raw import Raw
from tests.scale import scaled

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")
TRUSTED = (ipaddress.ip_network("127.0.0.0/8"),)


def v2(
    source: str = "203.0.113.9",
    port: int = 50_000,
    *,
    command: int = 0x21,
    family: int | None = None,
    notes: bytes = b"",
) -> bytes:
    address = ipaddress.ip_address(source)
    to = ipaddress.ip_address("192.0.2.1" if address.version == 4 else "2001:db8::1")
    body = address.packed + to.packed + struct.pack(">HH", port, 443) + notes
    if family is None:
        family = 0x11 if address.version == 4 else 0x21
    return SIGNATURE + bytes([command, family]) + struct.pack(">H", len(body)) + body


def v1(source: str = "203.0.113.9", port: int = 50_000) -> bytes:
    address = ipaddress.ip_address(source)
    to = "192.0.2.1" if address.version == 4 else "2001:db8::1"
    return f"PROXY TCP{address.version} {source} {to} {port} 443\r\n".encode()


# --- the bytes ----------------------------------------------------------------------------------

addresses = st.ip_addresses().map(str)
ports = st.integers(0, 65535)


@settings(max_examples=scaled(1000, at_least=100), deadline=None)
@given(addresses, ports, st.binary(max_size=200), st.binary(max_size=40))
def test_version_2_names_the_peer_however_it_arrives(
    source: str, port: int, notes: bytes, behind: bytes
) -> None:
    data = v2(source, port, notes=notes)
    for end in range(len(data)):
        assert proxy.parse(data[:end]) is None
    assert proxy.parse(data + behind) == proxy.Header((source, port), len(data))


@settings(max_examples=scaled(1000, at_least=100), deadline=None)
@given(addresses, ports, st.binary(max_size=40))
def test_version_1_names_the_peer_however_it_arrives(source: str, port: int, behind: bytes) -> None:
    data = v1(source, port)
    for end in range(len(data)):
        assert proxy.parse(data[:end]) is None
    assert proxy.parse(data + behind) == proxy.Header((source, port), len(data))


def test_a_proxy_that_speaks_for_itself() -> None:
    local = SIGNATURE + b"\x20\0\0\0"
    assert proxy.parse(local) == proxy.Header(None, 16)
    assert proxy.parse(v2(command=0x20)) == proxy.Header(None, len(v2()))
    assert proxy.parse(b"PROXY UNKNOWN\r\n") == proxy.Header(None, 15)
    assert proxy.parse(b"PROXY UNKNOWN ffff::1 ::1 1 2\r\nx") == proxy.Header(None, 31)


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00",
        b"GET / HTTP/1.1\r\n",
        b"PROXX",
        b"proxy tcp4 1.2.3.4 1.2.3.4 1 2\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n",
        b"PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n",
        b"PROXY TCP4 1.2.3 1.2.3.4 1 2\r\n",
        b"PROXY TCP4 ::1 ::1 1 2\r\n",
        b"PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n",
        b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 -1 2\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 \xc2\xb2 2\r\n",
        b"PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n",
        b"PROXY TCP4 " + b"1" * 100,
        SIGNATURE[:11] + b"\r",
        v2(command=0x11),
        v2(command=0x22),
        v2(family=0x12),  # UDP
        v2(family=0x31),  # a Unix socket
        v2(family=0x00),
        v2(family=0x21),  # IPv6 in the space of IPv4
        v2(notes=b"x" * 1024),
        SIGNATURE + b"\x21\x11\0\x04\x7f\0\0\x01",
        SIGNATURE + b"\x21\x11\xff\xff",
    ],
)
def test_what_is_no_header(data: bytes) -> None:
    with pytest.raises(proxy.NotProxied):
        proxy.parse(data)


def test_fuzz() -> None:
    """Nothing but a Header within the bytes, None or NotProxied comes out."""
    random_ = random.Random(1)
    seeds = [v1(), v1("2001:db8::9"), v2(), v2("2001:db8::9", notes=b"\x03\0\x04\0\0\0\0")]
    outcomes = {"header": 0, "more": 0, "not": 0}
    for _ in range(scaled(300_000)):
        data = bytearray(random_.choice(seeds) + b"\x16\x03\x01")
        for _ in range(random_.randrange(4)):
            data[random_.randrange(len(data))] = random_.choice((*b"\0 \r\n0fF:.", 255))
        del data[random_.randrange(len(data), 2 * len(data)) :]
        try:
            found = proxy.parse(bytes(data))
        except proxy.NotProxied:
            outcomes["not"] += 1
            continue
        outcomes["header" if found else "more"] += 1
        if found:
            assert 0 < found.length <= len(data)
            assert found.source is None or ipaddress.ip_address(found.source[0])
    assert all(outcomes.values()), outcomes


# --- a gate behind one --------------------------------------------------------------------------


def peer(running: Running) -> Any:
    return next(entry[2].peer for entry in running.handler.log if entry[0] == "connected")


@BOTH_CARRIERS
@pytest.mark.parametrize(
    ("first", "seen"),
    [
        (v1(), "203.0.113.9:50000"),
        (v2(), "203.0.113.9:50000"),
        (v2("2001:db8::9", notes=b"\x04\0\x03abc"), "2001:db8::9:50000"),
    ],
    ids=["v1", "v2", "v2-ipv6"],
)
async def test_the_gate_sees_the_real_peer(start: Start, first: bytes, seen: str) -> None:
    running: Running = await start(proxies=TRUSTED)
    async with await (await running.raw(A, first=first)).live(A) as device:
        await device.ping()
        assert peer(running) == seen


async def test_a_header_in_pieces(start: Start) -> None:
    running: Running = await start(proxies=TRUSTED)
    reader, writer = await asyncio.open_connection("127.0.0.1", running.gate.port)
    for byte in v2():
        writer.write(bytes([byte]))
        await asyncio.sleep(0.002)
    context = running.authority.client_context(running.identities[A])
    await writer.start_tls(context, server_hostname="localhost")
    async with await Raw(reader, writer).live(A):
        assert peer(running) == "203.0.113.9:50000"


async def test_a_refusal_names_the_real_peer(start: Start) -> None:
    running: Running = await start(proxies=TRUSTED)
    told: list[str] = []
    running.handler.refused = lambda peer, device, reason: told.append(peer)  # type: ignore[method-assign]
    reader, writer = await asyncio.open_connection("127.0.0.1", running.gate.port)
    writer.write(v2() + b"GET / HTTP/1.1\r\n\r\n")
    assert await Raw(reader, writer).ended() == b""
    assert told == ["203.0.113.9:50000"]
    writer.close()


async def test_a_health_check_is_no_refusal(start: Start) -> None:
    running: Running = await start(proxies=TRUSTED)
    for said in (SIGNATURE + b"\x20\0\0\0", b""):
        _, writer = await asyncio.open_connection("127.0.0.1", running.gate.port)
        writer.write(said)
        writer.close()
        await writer.wait_closed()
    async with await running.raw(A, first=v2()):
        assert not running.handler.log


async def test_a_proxy_that_names_nobody_is_refused(
    start: Start, expects_errors: pytest.LogCaptureFixture
) -> None:
    """A forgotten `send-proxy-v2` shows at once, with the remedy, not as a wrong audit."""
    running: Running = await start(proxies=TRUSTED)
    with pytest.raises(OSError):
        await running.raw(A)
    await running.handler.told("refused", None, Reason.PROXY)
    assert "switch the PROXY protocol on" in expects_errors.text


@pytest.mark.parametrize("proxies", [(), (ipaddress.ip_network("192.0.2.0/24"),)])
@pytest.mark.parametrize("first", [v1(), v2()])
async def test_a_stranger_cannot_choose_its_address(
    start: Start, proxies: tuple[Network, ...], first: bytes
) -> None:
    running: Running = await start(proxies=proxies)
    with pytest.raises(OSError):
        await running.raw(A, first=first)
    await running.handler.told("refused", None, Reason.NOT_TLS)
    async with await running.live(A) as device:
        await device.ping()
        assert peer(running).startswith("127.0.0.1:")


class Peers(asyncio.Protocol):
    """A web server that says who it thinks is there, the way uvicorn finds out."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        from uvicorn.protocols.utils import get_local_addr, get_remote_addr, is_ssl

        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.said = f"{get_remote_addr(transport)} {get_local_addr(transport)} {is_ssl(transport)}"

    def data_received(self, data: bytes) -> None:
        self.transport.write(self.said.encode())
        self.transport.close()


async def test_the_web_server_sees_the_real_peer(start: Start) -> None:
    running: Running = await start(web_factory=Peers, proxies=TRUSTED)
    browser = await Raw.open(
        running.gate.port, running.authority, None, alpn=("http/1.1",), first=v2()
    )
    async with browser:
        browser.send(b"x")
        said = await browser.ended()
    assert said == f"('203.0.113.9', 50000) ('127.0.0.1', {running.gate.port}) True".encode()
    assert not running.handler.log


def test_the_header_is_never_guessed() -> None:
    """Neither reading is ever a beginning of the other: raw TLS starts with neither."""
    for first in (v1()[:1], v2()[:1]):
        assert first != raw.connect(A)[:1]
        assert first != b"\x16"
