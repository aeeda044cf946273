"""The ClientHello, read without being taken: which ALPN protocols does this client offer?

One port serves devices and browsers, and each needs its own TLS context before the handshake
begins. (Choosing later, in an `sni_callback`, lets clients without a certificate in: measured.)
Layout: RFC 8446 section 4.1.2, in TLS records (section 5.1), which may split the message.
"""

from dataclasses import dataclass

MAX_HELLO = 16 * 1024  # bytes of records that we are ready to look at
_HANDSHAKE = 22
_CLIENT_HELLO = 1
_ALPN = 16
_MAX_RECORD = 16 * 1024


class NotTLS(ValueError):
    """These bytes are no ClientHello, or one too large to look at."""


@dataclass(frozen=True, slots=True)
class Hello:
    alpn: tuple[bytes, ...]


class _Cursor:
    """Reads big-endian numbers and slices; running over the end means the message is broken."""

    __slots__ = ("_at", "_data", "_end")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._end = len(data)

    def __bool__(self) -> bool:
        return self._at < self._end

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size))

    def take(self, size: int) -> bytes:
        at = self._at
        if at + size > self._end:
            raise NotTLS("a length points behind the end")
        self._at = at + size
        return self._data[at : at + size]

    def vector(self, size: int) -> bytes:
        """A slice behind its own length of `size` bytes."""
        return self.take(self.number(size))


def parse(data: bytes) -> Hello | None:
    """Read the start of a connection; None means: look again when there is more.

    Raises: NotTLS.
    """
    message = _message(data)
    if message is None:
        if len(data) >= MAX_HELLO:
            raise NotTLS(f"no ClientHello within {MAX_HELLO} bytes")
        return None
    return Hello(_alpn(_Cursor(message)))


def _message(data: bytes) -> bytes | None:
    """The handshake message without its records, or None while it is incomplete."""
    message = bytearray()
    at = 0
    while at < len(data):
        if data[at] != _HANDSHAKE or data[at + 1 : at + 2] not in (b"", b"\x03"):
            raise NotTLS("not a TLS handshake record")
        if at + 5 > len(data):
            return None
        size = int.from_bytes(data[at + 3 : at + 5])
        if not 0 < size <= _MAX_RECORD:
            raise NotTLS(f"a record of {size} bytes")
        message += data[at + 5 : at + 5 + size]
        at += 5 + size
        if message and message[0] != _CLIENT_HELLO:
            raise NotTLS("the first message is no ClientHello")
        if len(message) >= 4:
            total = int.from_bytes(message[1:4])
            if total > MAX_HELLO:
                raise NotTLS(f"a ClientHello of {total} bytes")
            if len(message) >= 4 + total:
                return bytes(message[4 : 4 + total])
    return None


def _alpn(hello: _Cursor) -> tuple[bytes, ...]:
    hello.take(2 + 32)  # version, random
    hello.vector(1)  # session id
    hello.vector(2)  # cipher suites
    hello.vector(1)  # compression methods
    if not hello:
        return ()  # a ClientHello may end here
    extensions = _Cursor(hello.vector(2))
    while extensions:
        kind = extensions.number(2)
        body = _Cursor(extensions.vector(2))
        if kind == _ALPN:
            names = _Cursor(body.vector(2))
            found = []
            while names:
                found.append(names.vector(1))
            return tuple(found)
    return ()
