"""Each fault of a network, made by a real little server, is met and named (R-CON-7, R-CON-6)."""

import asyncio
import datetime as dt
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent import identity
from agent.identity import Server
from agent.network import words
from agent.network.connect import MAX_HEAD
from agent.network.findings import Code, Finding, classify
from agent.network.journey import AS_ANYBODY, Astray, Journey, Ready
from agent.network.route import Carrier, Route, Stage
from agent.network.settings import Proxy
from agent.network.websocket import WebSocket
from tests.agent.network.relays import Firewall, HttpProxy, answers, intercepting, serving
from tests.agent.support import enrolled, portal
from tests.tls import Authority

AUTHORITY = Authority()
STRANGER = Authority("Hospital Inspection")


class Traveller:
    """An injector that tries to get to a port of loopback."""

    def __init__(self, folder: Path, authority: Authority = AUTHORITY) -> None:
        known = identity.load(enrolled(folder, authority, 1))
        assert known is not None
        self.context = known.tls_context()

    async def travel(self, port: int, *, timeout_s: float = 5, **route: Any) -> Ready:
        options = {key: route.pop(key) for key in ("resolve", "wall", "alpn") if key in route}
        host = route.pop("host", "localhost")
        to = Route(Server(host=host, port=port), **route)
        self.journey = Journey(to, self.context, timeout_s, **options)
        return await asyncio.to_thread(self.journey.travel)

    async def finding(self, port: int, **route: Any) -> Finding:
        with pytest.raises(Astray) as caught:
            await self.travel(port, **route)
        return classify(caught.value.observation)


@pytest.fixture
def traveller(tmp_path: Path) -> Traveller:
    return Traveller(tmp_path / "state")


def failing(error: OSError) -> Callable[..., list[Any]]:
    def resolve(*_args: Any, **_options: Any) -> list[Any]:
        raise error

    return resolve


# --- the way is free -----------------------------------------------------------------------------


async def test_both_carriers_reach_the_gate(traveller: Traveller, tmp_path: Path) -> None:
    async with portal(tmp_path / "gate", AUTHORITY) as served:
        raw = await traveller.travel(served.gate.port)
        assert isinstance(raw, ssl.SSLSocket)
        assert raw.selected_alpn_protocol() == "mqtt"
        assert [step.stage for step in traveller.journey.steps] == [
            Stage.NAME,
            Stage.TCP,
            Stage.TLS,
        ]
        raw.close()
        framed = await traveller.travel(served.gate.port, carrier=Carrier.WEBSOCKET)
        assert isinstance(framed, WebSocket)
        framed.close()


async def test_through_a_proxy(traveller: Traveller, tmp_path: Path) -> None:
    async with portal(tmp_path / "gate", AUTHORITY) as served:
        proxy = HttpProxy(credentials=("ct2", "s3cret"))
        async with proxy.serving() as port:
            site = Proxy(host="127.0.0.1", port=port, user="ct2", password="s3cret")
            (await traveller.travel(served.gate.port, proxy=site)).close()
            assert proxy.asked == [f"localhost:{served.gate.port}"]
            assert Stage.PROXY in [step.stage for step in traveller.journey.steps]


# --- name and port -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), Code.NAME_UNKNOWN),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure"), Code.NAME_SERVER),
        (socket.gaierror(socket.EAI_FAIL, "Non-recoverable failure"), Code.NAME_SERVER),
    ],
)
async def test_a_name_that_cannot_be_found(
    traveller: Traveller, error: OSError, code: Code
) -> None:
    assert (await traveller.finding(443, resolve=failing(error))).code is code


async def test_nobody_listens(traveller: Traveller, free_port: int) -> None:
    finding = await traveller.finding(free_port)
    assert finding.code is Code.PORT_REFUSED
    assert finding.facts["server"] == f"localhost:{free_port}"


async def test_a_firewall_that_drops(traveller: Traveller) -> None:
    """A backlog that is full: the next SYN is not answered, as behind a firewall that drops."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        waiting = []
        for _each in range(4):
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
            waiting.append(one)
        try:
            finding = await traveller.finding(port, host="127.0.0.1", timeout_s=0.5)
        finally:
            for one in waiting:
                one.close()
    assert finding.code is Code.PORT_BLOCKED


async def test_no_way_there(traveller: Traveller) -> None:
    """No network takes TCP to the broadcast address: the kernel says so by itself."""
    finding = await traveller.finding(443, host="255.255.255.255", timeout_s=1)
    assert finding.code is Code.NO_ROUTE


# --- the proxy -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (
            b"HTTP/1.1 407 No\r\nProxy-Authenticate: Basic realm=x\r\n\r\n",
            Code.PROXY_WANTS_CREDENTIALS,
        ),
        (b"HTTP/1.1 407 No\r\nProxy-Authenticate: Negotiate\r\n\r\n", Code.PROXY_SCHEME),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n<html>", Code.PROXY_FORBIDS),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", Code.PROXY_CANNOT_REACH),
        (b"HTTP/1.1 302 Found\r\nLocation: http://login/\r\n\r\n", Code.PROXY_STATUS),
        (b"SSH-2.0-OpenSSH\r\n", Code.PROXY_NOT_HTTP),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * (2 * MAX_HEAD), Code.PROXY_NOT_HTTP),
        (b"HTTP/1.1 200 OK\r\n\r\nearly", Code.PROXY_NOT_HTTP),
        (b"", Code.PROXY_UNREACHABLE),
    ],
)
async def test_a_proxy_that_does_not_connect(
    traveller: Traveller, answer: bytes, code: Code
) -> None:
    async with serving(answers(answer)) as port:
        finding = await traveller.finding(443, proxy=Proxy(host="127.0.0.1", port=port))
    assert finding.code is code
    assert finding.facts["proxy"] == f"127.0.0.1:{port}"


async def test_a_proxy_that_refuses_the_password(traveller: Traveller) -> None:
    proxy = HttpProxy(credentials=("ct2", "right"))
    async with proxy.serving() as port:
        site = Proxy(host="127.0.0.1", port=port, user="ct2", password="wrong")
        finding = await traveller.finding(443, proxy=site)
    assert finding.code is Code.PROXY_REFUSES_CREDENTIALS
    assert "wrong" not in words.tell(finding)


async def test_a_proxy_that_never_ends_its_answer(traveller: Traveller) -> None:
    async with serving(answers(b"HTTP/1.1 200 OK\r\n", hold=True)) as port:
        site = Proxy(host="127.0.0.1", port=port)
        finding = await traveller.finding(443, proxy=site, timeout_s=0.4)
    assert finding.code is Code.PROXY_SILENT


async def test_a_proxy_that_is_not_there(traveller: Traveller, free_port: int) -> None:
    finding = await traveller.finding(443, proxy=Proxy(host="127.0.0.1", port=free_port))
    assert finding.code is Code.PROXY_UNREACHABLE
    error = socket.gaierror(socket.EAI_NONAME, "unknown")
    site = Proxy(host="proxy.example", port=1)
    assert (
        await traveller.finding(443, proxy=site, resolve=failing(error))
    ).code is Code.PROXY_NAME


# --- TLS -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("page", "where"),
    [
        (
            b"HTTP/1.1 302 Found\r\nLocation: http://login.hospital.example/x\r\n\r\n",
            "login.hospital.example",
        ),
        (b"HTTP/1.1 200 OK\r\n\r\n<html>", "HTTP"),
        (b"HTTP/1.0 302 Found\r\nLocation: http://\x1b[31m/\r\n\r\n", "HTTP"),
    ],
)
async def test_a_captive_portal(traveller: Traveller, page: bytes, where: str) -> None:
    async with serving(answers(page)) as port:
        finding = await traveller.finding(port)
    assert finding.code is Code.CAPTIVE_PORTAL
    assert finding.facts["location"] == where


async def test_tls_inspection_is_named_with_its_issuer_and_never_accepted(
    traveller: Traveller, tmp_path: Path
) -> None:
    """THREATS, faults: a precise message; trust is never lowered."""
    async with (
        portal(tmp_path / "gate", AUTHORITY) as served,
        intercepting(STRANGER, served.gate.port) as port,
    ):
        for carrier in Carrier:
            finding = await traveller.finding(port, carrier=carrier)
            assert finding.code is Code.TLS_INSPECTED
            assert finding.facts["issuer"] == "Hospital Inspection server CA"
            assert "Hospital Inspection server CA" in words.what(finding)
        assert served.connects == 0


async def test_our_own_server_under_another_name(traveller: Traveller, tmp_path: Path) -> None:
    async with portal(tmp_path / "gate", AUTHORITY) as served:
        here = socket.getaddrinfo("127.0.0.1", served.gate.port, type=socket.SOCK_STREAM)
        finding = await traveller.finding(
            served.gate.port, host="gate.example", resolve=lambda *a, **o: here
        )
    assert finding.code is Code.WRONG_SERVER
    assert "localhost" in finding.facts["subject"]


@pytest.mark.parametrize(
    ("starts", "code"),
    [(dt.timedelta(days=2), Code.CLOCK_BEHIND), (dt.timedelta(days=-60), Code.EXPIRED_OR_CLOCK)],
)
async def test_a_certificate_of_another_time(
    traveller: Traveller, starts: dt.timedelta, code: Code
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.server_at(starts).load(context)
    async with serving(answers(b""), context) as port:
        finding = await traveller.finding(port)
    assert finding.code is code
    assert "?" not in words.tell(finding)


async def test_a_firewall_that_cuts_mqtt_in_the_handshake(
    traveller: Traveller, tmp_path: Path
) -> None:
    async with portal(tmp_path / "gate", AUTHORITY) as served:
        firewall = Firewall(served.gate.port)
        async with firewall.serving() as port:
            assert (await traveller.finding(port)).code is Code.TLS_CUT
            (await traveller.travel(port, carrier=Carrier.WEBSOCKET)).close()
            firewall.silently = True
            assert (await traveller.finding(port, timeout_s=0.5)).code is Code.TLS_SILENT


async def test_a_server_that_is_no_websocket_server(traveller: Traveller) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.server.load(context)
    context.set_alpn_protocols(AS_ANYBODY)
    for answer, status in (
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "404"),
        (b"\x00\x01\x02", "-"),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
            b"Sec-WebSocket-Accept: wrong\r\n\r\n",
            "-",
        ),
    ):
        async with serving(answers(answer), context) as port:
            finding = await traveller.finding(port, carrier=Carrier.WEBSOCKET)
        assert finding.code is Code.WEBSOCKET_REFUSED
        assert finding.facts["status"] == status


async def test_abandoning_wakes_the_thread(traveller: Traveller) -> None:
    async with serving(answers(b"", hold=True)) as port:
        going = asyncio.create_task(traveller.travel(port, timeout_s=60))
        await asyncio.sleep(0.1)
        traveller.journey.abandon()
        async with asyncio.timeout(5):
            with pytest.raises(Astray):
                await going
