"""An address on which metrics are read, for the operator's own monitoring and nobody else.

    async with listening("127.0.0.1", 9464, registry) as port: ...

The least of an HTTP/1.1 server: `GET /metrics`, one request a connection, few at a time, each
within its time. It has neither TLS nor passwords, so it belongs on the loopback address or on a
network of administrators; it is off unless an address is given.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

PATH = b"/metrics"
MOST = 8  # readers at a time
REQUEST_S = 5.0  # to read a request and to take the answer
_HEAD = 8192  # bytes of a request


class _Reading:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._readers = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._readers >= MOST:
            writer.close()
            return
        self._readers += 1
        try:
            async with asyncio.timeout(REQUEST_S):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(await self._answer(head))
                await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):
            pass  # whoever it was sees it by the closed connection
        finally:
            self._readers -= 1
            writer.close()

    async def _answer(self, head: bytes) -> bytes:
        words = head.split(b"\r\n", 1)[0].split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            return _response("400 Bad Request", b"Ask for GET /metrics over HTTP/1.1.\n")
        method, path, _version = words
        if path.partition(b"?")[0] != PATH:
            return _response("404 Not Found", b"There is /metrics, and nothing else.\n")
        if method not in (b"GET", b"HEAD"):
            return _response("405 Method Not Allowed", b"Read it with GET.\n", "Allow: GET, HEAD")
        # In a thread: it takes milliseconds, which every frame would wait for.
        body = await asyncio.to_thread(generate_latest, self._registry)
        answer = _response("200 OK", body, kind=CONTENT_TYPE_LATEST)
        return answer[: -len(body)] if method == b"HEAD" else answer


def _response(
    status: str, body: bytes, *headers: str, kind: str = "text/plain; charset=utf-8"
) -> bytes:
    lines = [
        f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body)}",
        "Cache-Control: no-store", "Connection: close", *headers,
    ]  # fmt: skip
    return "\r\n".join([*lines, "", ""]).encode() + body


@contextlib.asynccontextmanager
async def listening(host: str, port: int, registry: CollectorRegistry) -> AsyncIterator[int]:
    """Serve there until the end of the block; gives the port. Raises: OSError (it is taken)."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    server = await asyncio.start_server(
        _Reading(registry).serve, host, port, family=family, limit=_HEAD
    )
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()
