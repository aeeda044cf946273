"""`Raw` over a websocket: the same device, the same attacks, one more layer.

Frames are made and read here, not by the library that the gate uses (RFC 6455 section 5.2).
"""

import asyncio
import base64
import contextlib
import os
import ssl
import struct
from typing import Any

from agent.wire import carrier
from tests.broker.raw import WAIT_S, Raw
from tests.tls import Authority, Issued

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA


def frame(payload: bytes, kind: int = BINARY, *, fin: bool = True, mask: bool = True) -> bytes:
    """One frame of a client."""
    masked = 0x80 if mask else 0
    head = bytes([(0x80 if fin else 0) | kind])
    if len(payload) < 126:
        head += bytes([masked | len(payload)])
    elif len(payload) < 65536:
        head += bytes([masked | 126]) + struct.pack(">H", len(payload))
    else:
        head += bytes([masked | 127]) + struct.pack(">Q", len(payload))
    if not mask:
        return head + payload
    key = os.urandom(4)
    pad = (key * (len(payload) // 4 + 1))[: len(payload)]
    body = int.from_bytes(payload) ^ int.from_bytes(pad)
    return head + key + body.to_bytes(len(payload))


def upgrade(path: str = carrier.WEBSOCKET_PATH, **headers: str | None) -> bytes:
    """An opening request; a keyword replaces a header, or with None leaves it out."""
    fields: dict[str, str | None] = {
        "Host": "localhost",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Protocol": carrier.WEBSOCKET_PROTOCOL,
    }
    fields.update({name.replace("_", "-"): value for name, value in headers.items()})
    lines = [f"{name}: {value}" for name, value in fields.items() if value is not None]
    return "\r\n".join([f"GET {path} HTTP/1.1", *lines, "", ""]).encode()


class Framing:
    """Stands where a StreamWriter would: what is written leaves as one binary message."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    def write(self, data: bytes) -> None:
        self._writer.write(frame(data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writer, name)


class RawWebSocket(Raw):
    """One connection; `reader` holds what the gate's binary messages carried."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(asyncio.StreamReader(), Framing(writer))  # type: ignore[arg-type]
        self.bare = Raw(reader, writer)  # under the frames
        self.closed: bytes | None = None  # what the gate's Close frame said
        self.pongs: list[bytes] = []
        self._pump: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls,
        port: int,
        authority: Authority,
        identity: Issued | None,
        *,
        alpn: tuple[str, ...] = carrier.WEBSOCKET,
        context: ssl.SSLContext | None = None,
        window: int | None = None,
        first: bytes = b"",
    ) -> "RawWebSocket":
        bare = await Raw.open(
            port, authority, identity, alpn=alpn, context=context, window=window, first=first
        )
        opened = cls(bare.reader, bare.writer)
        try:
            await opened.shake()
        except TimeoutError:
            await bare.abort()
            raise
        except (OSError, EOFError):
            await bare.abort()
            raise ConnectionResetError("closed before the answer to the upgrade") from None
        return opened

    async def shake(self) -> None:
        """Upgrade. Raises: EOFError, OSError when the gate closes instead."""
        self.bare.send(upgrade())
        async with asyncio.timeout(WAIT_S):
            answer = await self.bare.reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 101 "), answer
        self._pump = asyncio.create_task(self._read(self.bare.reader))

    async def _read(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError, EOFError):
            while True:
                first, length = await reader.readexactly(2)
                assert not length & 0x80, "a server does not mask"
                if length == 126:
                    (length,) = struct.unpack(">H", await reader.readexactly(2))
                elif length == 127:
                    (length,) = struct.unpack(">Q", await reader.readexactly(8))
                payload = await reader.readexactly(length)
                kind = first & 0xF
                assert first & 0xF0 == 0x80, "whole messages, no extension"
                if kind == BINARY:
                    self.reader.feed_data(payload)
                elif kind == CLOSE:
                    self.closed = payload
                elif kind == PONG:
                    self.pongs.append(payload)
        self.reader.feed_eof()

    async def abort(self) -> None:
        await self.bare.abort()
        if self._pump is not None:
            await self._pump
