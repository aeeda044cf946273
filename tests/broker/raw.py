"""A device that speaks raw MQTT over real TLS, politely or not: attacks are its methods.

It has its own encoders on purpose: a mistake in `broker.packets` must not hide in the tests.
"""

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import Awaitable
from types import TracebackType
from typing import Self

from tests.tls import Authority, Issued

WAIT_S = 10.0  # for what comes at once on an idle machine


def varint(number: int) -> bytes:
    out = bytearray()
    while True:
        number, rest = divmod(number, 128)
        out.append(rest | (128 if number else 0))
        if not number:
            return bytes(out)


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack(">H", len(data)) + data


def packet(first: int, body: bytes = b"") -> bytes:
    return bytes([first]) + varint(len(body)) + body


def connect(
    client_id: str | bytes,
    *,
    clean: bool = True,
    keepalive: int = 60,
    flags: int = 0,
    name: str = "MQTT",
    level: int = 4,
    tail: bytes = b"",
) -> bytes:
    flags |= 2 if clean else 0
    body = text(name) + bytes([level, flags]) + struct.pack(">H", keepalive)
    return packet(0x10, body + text(client_id) + tail)


def publish(topic: str | bytes, payload: bytes = b"{}", *, first: int = 0x30, id: int = 1) -> bytes:
    number = struct.pack(">H", id) if first & 6 else b""
    return packet(first, text(topic) + number + payload)


def subscribe(*filters: str | bytes, id: int = 1, qos: int = 0) -> bytes:
    body = b"".join(text(each) + bytes([qos]) for each in filters)
    return packet(0x82, struct.pack(">H", id) + body)


def unsubscribe(*filters: str, id: int = 1) -> bytes:
    return packet(0xA2, struct.pack(">H", id) + b"".join(text(each) for each in filters))


PINGREQ = b"\xc0\0"
PINGRESP = (0xD0, b"")
DISCONNECT = b"\xe0\0"


class Raw:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(
        cls,
        port: int,
        authority: Authority,
        identity: Issued | None,
        *,
        alpn: tuple[str, ...] = ("mqtt",),
        context: ssl.SSLContext | None = None,
        window: int | None = None,
        first: bytes = b"",
    ) -> "Raw":
        """`window`: bytes that the kernel takes for a reader that does not read; `first`: bytes
        before TLS."""
        context = context or authority.client_context(identity, alpn=alpn)
        sock = socket.socket()
        if window is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        sock.setblocking(False)
        try:
            async with asyncio.timeout(WAIT_S):
                await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
                await asyncio.get_running_loop().sock_sendall(sock, first)
                return cls(
                    *await asyncio.open_connection(
                        sock=sock, ssl=context, server_hostname="localhost"
                    )
                )
        except BaseException:
            with contextlib.suppress(OSError):
                sock.close()
            sock.detach()  # uvloop has closed it under the object
            raise

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.abort()

    async def abort(self) -> None:
        """Leave without a word."""
        self.writer.transport.abort()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(WAIT_S):
                await self.writer.wait_closed()

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def packet(self, wait_s: float = WAIT_S) -> tuple[int, bytes]:
        """The next packet from the gate."""
        async with asyncio.timeout(wait_s):
            first = (await self.reader.readexactly(1))[0]
            length = shift = 0
            while True:
                byte = (await self.reader.readexactly(1))[0]
                length |= (byte & 127) << shift
                shift += 7
                if byte < 128:
                    break
            return first, await self.reader.readexactly(length)

    async def message(self) -> tuple[str, bytes]:
        first, body = await self.packet()
        assert first == 0x30, hex(first)
        size = struct.unpack(">H", body[:2])[0]
        return body[2 : 2 + size].decode(), body[2 + size :]

    async def ended(self, wait_s: float = WAIT_S) -> bytes:
        """Wait until the gate has closed; returns what it said before."""
        said = b""
        async with asyncio.timeout(wait_s):
            with contextlib.suppress(OSError):
                while chunk := await self.reader.read(65536):
                    said += chunk
        return said

    @classmethod
    async def unheard(cls, opening: Awaitable["Raw"], sent: bytes) -> None:
        """The gate closes without a word: in the handshake, or after what is `sent`."""
        try:
            peer = await opening
        except TimeoutError:
            raise
        except OSError:
            return  # a TLS 1.3 client may also believe that it is in
        async with peer:
            peer.send(sent)
            assert await peer.ended() == b""

    async def quiet(self, for_s: float = 0.1) -> bool:
        """Nothing arrives, and the connection stays open."""
        try:
            async with asyncio.timeout(for_s):
                await self.reader.read(1)
        except TimeoutError:
            return True
        return False

    async def live(self, device: str, *, keepalive: int = 60, subscribed: bool = True) -> Self:
        """CONNECT, and subscribe to one's own dn/."""
        self.send(connect(device, keepalive=keepalive))
        assert await self.packet() == (0x20, b"\0\0")
        if subscribed:
            self.send(subscribe(f"pat/1/{device}/dn/#"))
            assert await self.packet() == (0x90, b"\0\x01\0")
        return self

    async def ping(self) -> None:
        self.send(PINGREQ)
        assert await self.packet() == PINGRESP
