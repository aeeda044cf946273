"""The PROXY protocol, versions 1 and 2: who is really behind a connection from our own proxy. Pure.

HAProxy and nginx choose a process by the ClientHello and pass TLS on untouched; a header before the
first byte of TLS names the peer (www.haproxy.org/download/3.0/doc/proxy-protocol.txt). It is read
from configured addresses alone and is then mandatory: whether a header is there is never guessed,
or a stranger could choose the address that the audit shows.
"""

import ipaddress
from dataclasses import dataclass

MAX_HEADER = 1024  # bytes; addresses take up to 36, the rest are notes that nobody here reads
_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_V1 = b"PROXY "
_V1_LONGEST = 107  # section 2.1
_LOCAL, _PROXY = 0x20, 0x21
_TCP4, _TCP6 = 0x11, 0x21
_ADDRESSES = {_TCP4: (4, 12), _TCP6: (16, 36)}  # of an address; of both with their ports


class NotProxied(ValueError):
    """These bytes are no PROXY header, or one that we do not take."""


@dataclass(frozen=True, slots=True)
class Header:
    """`source` is None where the proxy speaks for itself, as in its health checks."""

    source: tuple[str, int] | None
    length: int  # bytes to take off the connection


def parse(data: bytes) -> Header | None:
    """Read the start of a connection; None means: look again when there is more.

    Raises: NotProxied.
    """
    if data.startswith(_SIGNATURE[: len(data)]):
        return _binary(data) if len(data) >= 16 else None
    if data.startswith(_V1[: len(data)]):
        return _text(data)
    raise NotProxied("no PROXY header")


def _binary(data: bytes) -> Header | None:
    command, family = data[12], data[13]
    length = 16 + int.from_bytes(data[14:16])
    if command not in (_LOCAL, _PROXY):
        raise NotProxied(f"version and command {command:#04x}")
    if length > MAX_HEADER:
        raise NotProxied(f"a header of {length} bytes; the most is {MAX_HEADER}")
    if len(data) < length:
        return None
    if command == _LOCAL:
        return Header(None, length)
    if family not in _ADDRESSES:
        raise NotProxied(f"family {family:#04x} is not TCP over IP")
    size, least = _ADDRESSES[family]
    if length < 16 + least:
        raise NotProxied("the addresses are cut short")
    source = ipaddress.ip_address(data[16 : 16 + size])
    at = 16 + 2 * size
    return Header((str(source), int.from_bytes(data[at : at + 2])), length)


def _text(data: bytes) -> Header | None:
    end = data.find(b"\r\n", 0, _V1_LONGEST)
    if end < 0:
        if len(data) >= _V1_LONGEST:
            raise NotProxied("a line without an end")
        return None
    try:
        words = data[:end].decode("ascii").split(" ")
    except UnicodeDecodeError:
        raise NotProxied("not a line of ASCII") from None
    if words[1] == "UNKNOWN":
        return Header(None, end + 2)
    if len(words) != 6 or words[1] not in ("TCP4", "TCP6"):
        raise NotProxied("not the six words of a line")
    return Header((_address(words[2], words[1]), _port(words[4])), end + 2)


def _address(text: str, family: str) -> str:
    try:
        parsed = ipaddress.ip_address(text)
    except ValueError:
        raise NotProxied("a word that is no address") from None
    if parsed.version != (4 if family == "TCP4" else 6) or "%" in text:
        raise NotProxied("an address of another family")
    return str(parsed)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) < 65536):
        raise NotProxied("a word that is no port")
    return int(text)
