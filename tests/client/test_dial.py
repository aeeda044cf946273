"""How the client gets to a session's websocket: straight, or through a hospital's proxy (R-CON-7),
and what it says when it does not."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import InvalidHandshake, InvalidProxy, ProxyError
from websockets.uri import parse_uri

from fleet.client import dial as module
from fleet.client.dial import dial, proxy_for
from fleet.client.portal import Portal
from fleet.client.profile import Profile
from tests.agent.network.relays import HttpProxy, answers, intercepting, serving
from tests.client.test_websocket import Owner
from tests.tls import Authority

SESSION = "ab" * 16
CREDENTIALS = ("ct2", "Zr8-never-up")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http", "https", "all", "no", "ws", "wss"):
        for each in (name, name.upper()):
            monkeypatch.delenv(f"{each}_proxy", raising=False)
            monkeypatch.delenv(f"{each}_PROXY", raising=False)


def context(authority: Authority) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.server.load(made)
    return made


@asynccontextmanager
async def portal(folder: Path, authority: Authority, port: int) -> AsyncIterator[Portal]:
    """A portal of TLS whose name only a proxy knows: `localhost`, taken for another machine."""
    (folder / "ca.pem").write_bytes(authority.server_ca.certificate.public_bytes(Encoding.PEM))
    profile = Profile(
        folder=folder, url=f"https://localhost:{port}", token="pat_test", specialist="noor",
        ca="ca.pem",
    )  # fmt: skip
    with Portal(profile) as made:
        made.is_loopback = False
        yield made


@asynccontextmanager
async def echoing(authority: Authority) -> AsyncIterator[int]:
    async def echo(peer: ServerConnection) -> None:
        async for data in peer:
            await peer.send(data)

    async with serve(echo, "127.0.0.1", 0, ssl=context(authority), compression=None) as server:
        yield server.sockets[0].getsockname()[1]


async def check(to: Portal) -> None:
    """Something goes there and comes back."""
    owner = Owner()
    websocket = owner.websocket = await dial(to, SESSION, owner)
    owner.to_send = [b"there and back", bytes(20_000)]
    owner.pump()
    await owner.has(2)
    assert owner.got == [b"there and back", bytes(20_000)]
    await websocket.close()
    assert websocket.close_code == 1000


async def test_straight_over_tls(tmp_path: Path) -> None:
    authority = Authority()
    async with echoing(authority) as port, portal(tmp_path, authority, port) as to:
        await check(to)


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "WSS_PROXY"])
async def test_through_the_proxy_that_the_environment_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    authority, proxy = Authority(), HttpProxy(CREDENTIALS)
    async with echoing(authority) as there, proxy.serving() as port:
        proxy.leads["localhost:9"] = there  # nothing listens there: only the proxy knows better
        user, password = CREDENTIALS
        monkeypatch.setenv(variable, f"http://{user}:{password}@127.0.0.1:{port}")
        async with portal(tmp_path, authority, 9) as to:
            await check(to)
    assert proxy.asked == ["localhost:9"]
    assert b"User-Agent: patency/1" in proxy.heads[0]
    assert b"pat_test" not in proxy.heads[0]  # the token is the portal's alone


async def test_through_a_proxy_that_is_spoken_to_over_tls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority, proxy = Authority(), HttpProxy()
    trust = ssl.create_default_context(
        cadata=authority.server_ca.certificate.public_bytes(Encoding.PEM).decode()
    )
    monkeypatch.setattr(ssl, "create_default_context", lambda *_a, **_k: trust)
    async with (
        echoing(authority) as there,
        serving(proxy.serve, context(authority)) as port,
    ):
        proxy.leads["localhost:9"] = there
        monkeypatch.setenv("HTTPS_PROXY", f"https://localhost:{port}")
        async with portal(tmp_path, authority, 9) as to:
            await check(to)
    assert proxy.asked == ["localhost:9"]


async def test_no_proxy_to_this_machine_or_where_the_environment_says_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority, proxy = Authority(), HttpProxy()
    async with echoing(authority) as there, proxy.serving() as port:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        async with portal(tmp_path, authority, there) as to:
            to.is_loopback = True
            await check(to)
            to.is_loopback = False
            monkeypatch.setenv("NO_PROXY", "localhost")
            await check(to)
    assert proxy.asked == []


def test_a_proxy_of_another_kind_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    uri = parse_uri("wss://portal.example/ws/stream/x")
    assert proxy_for(uri) is None
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1080")
    with pytest.raises(InvalidProxy, match="only HTTP"):
        proxy_for(uri)
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    assert (found := proxy_for(uri)) is not None
    assert (found.host, found.port) == ("proxy.example", 3128)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "set HTTPS_PROXY to http://USER"),
        (b"HTTP/1.1 403 Forbidden\r\n\r\nno", "refuses with status 403"),
        (b"HTTP/1.1 200 OK\r\n\r\nearly", "does not answer like one"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "does not answer like one"),
        (b"HTTP/1.1 abc\r\n\r\n", "does not answer like one"),
        (b"HTTP/1.1 200 OK\r\n", "does not answer like one"),  # and then the end
        (b"", "does not answer like one"),
        (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 4000, "does not answer like one"),
    ],
)
async def test_what_a_proxy_says_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes, said: str
) -> None:
    async with serving(answers(answer)) as port, portal(tmp_path, Authority(), 9) as to:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        with pytest.raises(ProxyError, match=said) as refused:
            await dial(to, SESSION, Owner())
        assert f"127.0.0.1:{port}" in str(refused.value)


@pytest.mark.parametrize("behind_proxy", [False, True])
async def test_tls_inspection_is_not_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, behind_proxy: bool
) -> None:
    """R-CON-6: another authority's certificate is no portal's, whoever passes it on."""
    ours, theirs = Authority(), Authority("middle")
    proxy = HttpProxy()
    async with (
        echoing(ours) as there,
        intercepting(theirs, there) as middle,
        proxy.serving() as port,
    ):
        if behind_proxy:
            proxy.leads["localhost:9"] = middle
            monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        async with portal(tmp_path, ours, 9 if behind_proxy else middle) as to:
            with pytest.raises(ssl.SSLCertVerificationError):
                await dial(to, SESSION, Owner())


@pytest.mark.parametrize("silent", ["portal", "proxy"])
async def test_silence_ends_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, silent: str
) -> None:
    monkeypatch.setattr(module, "OPEN_S", 0.3)

    async def nothing(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    authority = Authority()
    tls = context(authority) if silent == "portal" else None
    async with serving(nothing, tls) as port, portal(tmp_path, authority, port) as to:
        if silent == "proxy":
            monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        with pytest.raises(TimeoutError, match="in time"):
            await dial(to, SESSION, Owner())


async def test_a_portal_that_refuses_is_an_error_of_the_handshake(tmp_path: Path) -> None:
    authority = Authority()
    refusal = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"
    async with (
        serving(answers(refusal), context(authority)) as port,
        portal(tmp_path, authority, port) as to,
    ):
        with pytest.raises(InvalidHandshake, match="403"):
            await dial(to, SESSION, Owner())
