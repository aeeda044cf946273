"""Little servers and relays on loopback, each with one fault of a hospital's network."""

import asyncio
import base64
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from broker import hello
from tests.agent.support import closed
from tests.tls import Authority

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(serve: Serve, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Serve each connection on a port of loopback, which it gives; none is left open after."""
    tasks: set[asyncio.Task[None]] = set()

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            writer.transport.abort()  # nobody waits for this task
        finally:
            tasks.discard(task)
            await closed(writer)

    server = await asyncio.start_server(one, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]
        for task in tuple(tasks):
            task.cancel()
        async with asyncio.timeout(5):
            while tasks:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
    await asyncio.sleep(0.02)  # a handshake that failed closes its socket a little later


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while chunk := await reader.read(65536):
            writer.write(chunk)
            await writer.drain()
    with contextlib.suppress(OSError):
        writer.close()


async def join(one: Streams, other: Streams) -> None:
    """Until either side ends."""
    ways = [
        asyncio.create_task(pump(one[0], other[1])),
        asyncio.create_task(pump(other[0], one[1])),
    ]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        await closed(other[1])


@dataclass
class HttpProxy:
    """A proxy that takes CONNECT, wants credentials if it has some, and notes what was asked."""

    credentials: tuple[str, str] | None = None
    leads: dict[str, int] = field(default_factory=dict)  # what only the proxy can reach: port
    asked: list[str] = field(default_factory=list)
    heads: list[bytes] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        target = head.split()[1].decode()
        self.asked.append(target)
        if self.credentials is not None:
            token = base64.b64encode(":".join(self.credentials).encode())
            if b"Basic " + token not in head:
                writer.write(
                    b"HTTP/1.1 407 Proxy Authentication Required\r\n"
                    b'Proxy-Authenticate: Basic realm="hospital"\r\nContent-Length: 0\r\n\r\n'
                )
                return
        host, _colon, port = target.rpartition(":")
        there = await asyncio.open_connection(host.strip("[]"), self.leads.get(target, int(port)))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await join((reader, writer), there)

    def serving(self) -> contextlib.AbstractAsyncContextManager[int]:
        return serving(self.serve)


def answers(data: bytes, *, after: float = 0.0, hold: bool = False) -> Serve:
    """Say `data` to whoever connects, once something came; with `hold`, then stay silent."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        await asyncio.sleep(after)
        writer.write(data)
        await writer.drain()
        if hold:
            await reader.read()

    return serve


def intercepting(authority: Authority, port: int) -> contextlib.AbstractAsyncContextManager[int]:
    """TLS inspection: a server certificate of another authority, and what is inside passed on."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.server.load(context)
    inner = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    inner.check_hostname = False
    inner.verify_mode = ssl.CERT_NONE

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await join((reader, writer), await asyncio.open_connection("127.0.0.1", port, ssl=inner))

    return serving(serve, context)


@dataclass
class Forgetful:
    """A firewall that forgets a connection on which nothing moved for `after` seconds: what comes
    then is answered with a reset, or with nothing."""

    port: int
    after: float
    resets: bool = True
    forgot: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection("127.0.0.1", self.port)
        loop = asyncio.get_running_loop()
        moved = loop.time()
        forgotten = False

        async def way(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            nonlocal moved, forgotten
            while chunk := await source.read(65536):
                if not forgotten and loop.time() - moved > self.after:
                    forgotten = True
                    self.forgot += 1
                if forgotten and self.resets:
                    break
                if not forgotten:
                    moved = loop.time()
                    sink.write(chunk)
            writer.transport.abort()
            there[1].transport.abort()

        ways = [
            asyncio.create_task(way(reader, there[1])),
            asyncio.create_task(way(there[0], writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in ways:
                each.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            await closed(there[1])

    def serving(self) -> contextlib.AbstractAsyncContextManager[int]:
        return serving(self.serve)


@dataclass
class Impatient:
    """A firewall that resets a connection on both sides once nothing moved for `after` seconds."""

    port: int
    after: float
    cut: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection("127.0.0.1", self.port)
        loop = asyncio.get_running_loop()
        moved = loop.time()

        async def way(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            nonlocal moved
            while chunk := await source.read(65536):
                moved = loop.time()
                sink.write(chunk)

        async def clock() -> None:
            left = self.after
            while left > 0:
                await asyncio.sleep(left)
                left = moved + self.after - loop.time()
            self.cut += 1

        works = [way(reader, there[1]), way(there[0], writer), clock()]
        tasks = [asyncio.create_task(each) for each in works]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in tasks:
                each.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for end in (writer, there[1]):
                end.transport.abort()
            await closed(there[1])

    def serving(self) -> contextlib.AbstractAsyncContextManager[int]:
        return serving(self.serve)


@dataclass
class Guillotine:
    """Lets a TLS handshake with `port` through, and resets both sides when more is said."""

    port: int
    cut: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.read(65536)
        there = await asyncio.open_connection("127.0.0.1", self.port)
        there[1].write(first)
        back = asyncio.create_task(pump(there[0], writer))
        try:
            there[1].write(await reader.read(65536))  # certificate, its proof, Finished
            await asyncio.sleep(0.05)
            self.cut += 1
        finally:
            back.cancel()
            await asyncio.gather(back, return_exceptions=True)
            for end in (writer, there[1]):
                end.transport.abort()
            await closed(there[1])

    def serving(self) -> contextlib.AbstractAsyncContextManager[int]:
        return serving(self.serve)


@dataclass
class Firewall:
    """Passes TLS on to `port`, and cuts what shows `mqtt` in its ClientHello."""

    port: int
    blocks: bool = True
    silently: bool = False
    cut: int = 0
    passed: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.read(65536)
        parser = hello.parse(first)
        if self.blocks and parser is not None and b"mqtt" in parser.alpn:
            self.cut += 1
            if self.silently:
                await reader.read()
            writer.transport.abort()
            return
        self.passed += 1
        there = await asyncio.open_connection("127.0.0.1", self.port)
        there[1].write(first)
        await join((reader, writer), there)

    def serving(self) -> contextlib.AbstractAsyncContextManager[int]:
        return serving(self.serve)
