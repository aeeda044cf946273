"""A session's websocket, opened: TCP, or the way through an HTTP proxy, then TLS, then the upgrade.

The proxy is the one that the environment names (HTTPS_PROXY, ALL_PROXY, NO_PROXY), as for the
portal's API; none for a portal on this machine.
"""

import asyncio
import ssl
import urllib.request
from typing import cast

from websockets.exceptions import InvalidProxy, ProxyError
from websockets.headers import build_authorization_basic, build_host
from websockets.uri import Proxy, WebSocketURI, parse_proxy, parse_uri

from fleet.client.i18n import _
from fleet.client.portal import Portal
from fleet.client.websocket import Owner, Websocket

OPEN_S = 10.0
_MAX_ANSWER = 16 * 1024  # bytes of a proxy's answer
_END = b"\r\n\r\n"


async def dial(portal: Portal, session: str, owner: Owner) -> Websocket:
    """An open websocket. Raises OSError, TimeoutError, WebSocketException."""
    uri = parse_uri(portal.stream_url(session))
    headers = {name: portal.headers[name] for name in ("Authorization", "User-Agent")}
    try:
        async with asyncio.timeout(OPEN_S):
            websocket = Websocket(uri, headers, owner)
            await _connect(portal, uri, websocket)
            try:
                await websocket.opened()
            except BaseException:
                websocket.abort()
                raise
    except TimeoutError:
        raise TimeoutError(_("it did not answer in time")) from None
    return websocket


async def _connect(portal: Portal, uri: WebSocketURI, websocket: Websocket) -> None:
    loop = asyncio.get_running_loop()
    name = uri.host if portal.ssl is not None else None
    proxy = None if portal.is_loopback else proxy_for(uri)
    if proxy is None:
        await loop.create_connection(
            lambda: websocket, uri.host, uri.port, ssl=portal.ssl, server_hostname=name
        )
        return
    transport = await _through(proxy, uri, portal.headers["User-Agent"])
    try:
        transport.set_protocol(websocket)
        if portal.ssl is not None:
            transport = cast(
                asyncio.Transport,
                await loop.start_tls(transport, websocket, portal.ssl, server_hostname=name),
            )
    except BaseException:
        transport.abort()
        raise
    websocket.connection_made(transport)


# --- the proxy ----------------------------------------------------------------------------------


def proxy_for(uri: WebSocketURI) -> Proxy | None:
    """The proxy that the environment names for this address. Raises InvalidProxy."""
    if urllib.request.proxy_bypass(f"{uri.host}:{uri.port}"):
        return None
    named = urllib.request.getproxies()
    own = ("wss", "https") if uri.secure else ("ws", "http")
    for scheme in (*own, "all"):
        if address := named.get(scheme):
            proxy = parse_proxy(address)
            if proxy.scheme not in ("http", "https"):
                raise InvalidProxy(address, "only HTTP proxies are supported")
            return proxy
    return None


class _Ask(asyncio.Protocol):
    """CONNECT, and the head of its answer (RFC 9110 section 9.3.6)."""

    def __init__(self, question: bytes) -> None:
        self._question = question
        self._head = b""
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).write(self._question)

    def data_received(self, data: bytes) -> None:
        self._head += data
        if not self.answer.done() and (_END in self._head or len(self._head) > _MAX_ANSWER):
            self.answer.set_result(self._head)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.answer.done():
            self.answer.set_result(self._head)


async def _through(proxy: Proxy, uri: WebSocketURI, agent: str) -> asyncio.Transport:
    """A connection that the proxy carries on to the portal. Raises OSError, ProxyError."""
    loop = asyncio.get_running_loop()
    ask = _Ask(_question(proxy, uri, agent))
    tls = ssl.create_default_context() if proxy.scheme == "https" else None
    transport, _ask = await loop.create_connection(lambda: ask, proxy.host, proxy.port, ssl=tls)
    try:
        _check(proxy, await ask.answer)
    except BaseException:
        transport.abort()
        raise
    return transport


def _question(proxy: Proxy, uri: WebSocketURI, agent: str) -> bytes:
    target = build_host(uri.host, uri.port, uri.secure, always_include_port=True)
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}", f"User-Agent: {agent}"]
    if proxy.username is not None:
        credentials = build_authorization_basic(proxy.username, proxy.password or "")
        lines.append(f"Proxy-Authorization: {credentials}")
    return "\r\n".join([*lines, "", ""]).encode()


def _check(proxy: Proxy, answer: bytes) -> None:
    """Raises ProxyError, whose text is for a person."""
    head, end, early = answer.partition(_END)
    version, _space, rest = head.decode("latin-1").partition(" ")
    status = rest[:3]
    opens = status.startswith("2")
    if not end or not version.startswith("HTTP/1.") or not status.isdigit() or (opens and early):
        text = _("the proxy {host}:{port} does not answer like one")
    elif status == "407":
        text = _(
            "the proxy {host}:{port} wants a user name and a password: "
            "set HTTPS_PROXY to http://USER:PASSWORD@{host}:{port}"
        )
    elif not opens:
        text = _("the proxy {host}:{port} refuses with status {status}")
    else:
        return
    raise ProxyError(text.format(host=proxy.host, port=proxy.port, status=status))
