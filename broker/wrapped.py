"""Transports that stand before another one and change one thing about it."""

import asyncio
from typing import Any


class Wrapped(asyncio.Transport):
    """Does what the transport within does."""

    def __init__(self, inner: asyncio.Transport) -> None:
        super().__init__()
        self.inner = inner

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.inner.write(data)

    def close(self) -> None:
        self.inner.close()

    def abort(self) -> None:
        self.inner.abort()

    def is_closing(self) -> bool:
        return self.inner.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.inner.get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.inner.set_protocol(protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self.inner.get_protocol()

    def is_reading(self) -> bool:
        return self.inner.is_reading()

    def pause_reading(self) -> None:
        self.inner.pause_reading()

    def resume_reading(self) -> None:
        self.inner.resume_reading()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.inner.set_write_buffer_limits(high=high, low=low)

    def get_write_buffer_size(self) -> int:
        return self.inner.get_write_buffer_size()


class Behind(Wrapped):
    """A connection that our proxy passed on: its peer is who the PROXY header names."""

    def __init__(self, inner: asyncio.Transport, peer: tuple[str, int]) -> None:
        super().__init__(inner)
        self._peer = peer

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "peername":
            return self._peer
        if name == "socket":
            return default  # its getpeername would name the proxy
        return self.inner.get_extra_info(name, default)


class Introduced(asyncio.Protocol):
    """Gives the web server's protocol a transport that knows its peer."""

    def __init__(self, protocol: asyncio.Protocol, peer: tuple[str, int]) -> None:
        self._protocol = protocol
        self._peer = peer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transport does not inherit
        self._protocol.connection_made(Behind(transport, self._peer))  # type: ignore[arg-type]

    def data_received(self, data: bytes) -> None:
        self._protocol.data_received(data)

    def eof_received(self) -> bool | None:
        return self._protocol.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()
