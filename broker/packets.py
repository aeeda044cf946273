"""MQTT 3.1.1 framing without IO: bytes in, packets out, and the packets we send.

Theory of operation. `Reader.feed` borrows a chunk, `next` hands out one packet at a time as
`(first byte, body)`, and `keep` copies what is left before the chunk is reused. A body is a view:
of the chunk when the packet lies whole in it (the usual case: no copy), of a buffer of its own when
it came in pieces. A table of 256 entries, indexed by the first byte, says how long a body may be or
that such a packet is refused, so a bad packet ends the connection at its header and nothing of it
is ever stored (section 2.2 of the standard).
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from broker.errors import PeerError, Reason

# First bytes: type and flags (sections 2.2.1 and 2.2.2).
CONNECT = 0x10
CONNACK = 0x20
PUBLISH = 0x30  # QoS 0
PUBLISH_QOS1 = 0x32
PUBLISH_QOS1_AGAIN = 0x3A  # DUP
PUBACK = 0x40
SUBSCRIBE = 0x82
SUBACK = 0x90
UNSUBSCRIBE = 0xA2
UNSUBACK = 0xB0
PINGREQ = 0xC0
PINGRESP = 0xD0
DISCONNECT = 0xE0

SUBSCRIPTION_REFUSED = 0x80
MAX_LENGTH = 268_435_455  # four bytes of seven bits
MAX_TOPIC = 256  # bytes; ours stay under 130
PUBLISH_OVERHEAD = 2 + MAX_TOPIC + 2

_REFUSED = -1
_NOTHING = memoryview(b"")
_DUP = 0x08
_RETAIN = 0x01


def table(limits: Mapping[int, int]) -> tuple[int, ...]:
    """For each first byte: the longest body in bytes, or that it is refused."""
    return tuple(limits.get(first, _REFUSED) for first in range(256))


# The first packet must be CONNECT; ours is under 100 bytes.
BEFORE_CONNECT = table({CONNECT: 1024})


def from_device(max_payload: int) -> tuple[int, ...]:
    """What a connected device may send; a payload has at most `max_payload` bytes."""
    publish = max_payload + PUBLISH_OVERHEAD
    return table(
        {
            PUBLISH: publish,
            PUBLISH_QOS1: publish,
            PUBLISH_QOS1_AGAIN: publish,
            SUBSCRIBE: 4096,
            UNSUBSCRIBE: 4096,
            PINGREQ: 0,
            DISCONNECT: 0,
        }
    )


def _refusal(first: int, limits: tuple[int, ...]) -> PeerError:
    if limits[first] != _REFUSED:
        return PeerError(Reason.TOO_LARGE)
    kind = first & 0xF0
    if limits is BEFORE_CONNECT:
        return PeerError(Reason.NOT_CONNECT)
    if kind == CONNECT:
        return PeerError(Reason.SECOND_CONNECT)
    if kind == PUBLISH:
        if first & _RETAIN:
            return PeerError(Reason.RETAINED)
        if first & 0x04:  # QoS 2, and the QoS 3 that does not exist
            return PeerError(Reason.QOS)
        return PeerError(Reason.MALFORMED)  # DUP at QoS 0 [MQTT-3.3.1-2]
    if kind in (SUBSCRIBE & 0xF0, UNSUBSCRIBE & 0xF0, PINGREQ, DISCONNECT):
        return PeerError(Reason.MALFORMED)  # reserved flags [MQTT-2.2.2-2]
    return PeerError(Reason.UNEXPECTED)


def _header(data: bytearray | memoryview, at: int, end: int) -> tuple[int, int] | None:
    """Remaining length and where the body starts, or None when more bytes are needed."""
    length = 0
    for index in range(4):
        position = at + 1 + index
        if position >= end:
            return None
        byte = data[position]
        length |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            if index and not byte:
                raise PeerError(Reason.MALFORMED)  # longer than need be
            return length, position + 1
    raise PeerError(Reason.MALFORMED)


class Reader:
    """Splits a byte stream into packets, each within `limits` (see `table`)."""

    __slots__ = ("_at", "_chunk", "_end", "_held", "_more", "limits")

    def __init__(self, limits: tuple[int, ...]) -> None:
        self.limits = limits
        self._chunk = _NOTHING
        self._at = 0
        self._end = 0
        self._held = bytearray()
        self._more = False  # what is held may contain whole packets

    @property
    def held(self) -> int:
        """Bytes waiting for the rest of a packet, or for the caller to go on."""
        return len(self._held)

    def feed(self, chunk: bytes | memoryview) -> None:
        """Borrow the next bytes of the stream until `keep`."""
        if self._held and self._more:
            self._held += chunk
            chunk = bytes(self._held)
            self._held = bytearray()
        self._chunk = chunk if isinstance(chunk, memoryview) else memoryview(chunk)
        self._at = 0
        self._end = len(chunk)

    def keep(self) -> None:
        """Copy what has not been taken; the fed chunk may be reused afterwards."""
        if self._at < self._end:
            self._held += self._chunk[self._at : self._end]
        self._chunk = _NOTHING
        self._at = self._end = 0

    def next(self) -> tuple[int, memoryview] | None:
        """The next whole packet as (first byte, body), or None.

        Raises: PeerError as soon as a header shows that the packet is refused.
        """
        if self._held:
            return self._next_held()
        at = self._at
        if self._end - at < 2:
            self._more = False
            return None
        chunk = self._chunk
        first = chunk[at]
        length = chunk[at + 1]
        start = at + 2
        if length > 0x7F:
            header = _header(chunk, at, self._end)
            if header is None:
                self._more = False
                return None
            length, start = header
        if length > self.limits[first]:
            raise _refusal(first, self.limits)
        end = start + length
        if end > self._end:
            self._more = False
            return None
        self._at = end
        self._more = True
        return first, chunk[start:end]

    def _next_held(self) -> tuple[int, memoryview] | None:
        """Complete the packet whose beginning is held."""
        held = self._held
        self._more = False
        while (header := _header(held, 0, len(held))) is None:
            if self._at == self._end:
                return None
            held.append(self._chunk[self._at])
            self._at += 1
        length, start = header
        first = held[0]
        if length > self.limits[first]:
            raise _refusal(first, self.limits)
        missing = start + length - len(held)
        take = min(missing, self._end - self._at)
        held += self._chunk[self._at : self._at + take]
        self._at += take
        if take < missing:
            return None
        self._held = bytearray()
        self._more = True
        return first, memoryview(held)[start:]


# --- decoding ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Connect:
    client_id: str
    clean: bool
    keepalive_s: int


def _text(body: memoryview, at: int) -> tuple[str, int]:
    """A length-prefixed UTF-8 string and the position behind it (section 1.5.3)."""
    if at + 2 > len(body):
        raise PeerError(Reason.MALFORMED)
    end = at + 2 + (body[at] << 8 | body[at + 1])
    if end > len(body):
        raise PeerError(Reason.MALFORMED)
    try:
        text = bytes(body[at + 2 : end]).decode()
    except UnicodeDecodeError:
        raise PeerError(Reason.MALFORMED) from None
    if "\0" in text:
        raise PeerError(Reason.MALFORMED)
    return text, end


def connect(body: memoryview) -> Connect:
    """Read CONNECT. Raises: PeerError for what is malformed and for what we do not allow."""
    name, at = _text(body, 0)
    if len(body) < at + 4:
        raise PeerError(Reason.MALFORMED)
    level, flags = body[at], body[at + 1]
    if name != "MQTT" or level != 4:
        raise PeerError(Reason.PROTOCOL_LEVEL)
    if flags & 0x01:
        raise PeerError(Reason.MALFORMED)  # [MQTT-3.1.2-3]
    if flags & 0x3C:  # will flag, its QoS, its retain
        raise PeerError(Reason.WILL)
    if flags & 0xC0:
        raise PeerError(Reason.USER_NAME)
    keepalive = body[at + 2] << 8 | body[at + 3]
    client_id, at = _text(body, at + 4)
    if at != len(body):
        raise PeerError(Reason.MALFORMED)
    return Connect(client_id, bool(flags & 0x02), keepalive)


def packet_id(body: memoryview, at: int = 0) -> int:
    """The identifier at `at`. Raises: PeerError when it is missing or zero [MQTT-2.3.1-1]."""
    if at + 2 > len(body):
        raise PeerError(Reason.MALFORMED)
    number = body[at] << 8 | body[at + 1]
    if not number:
        raise PeerError(Reason.PACKET_ID)
    return number


def subscribe(body: memoryview) -> tuple[int, list[tuple[str, int]]]:
    """Packet identifier and the filters with the QoS asked. Raises: PeerError."""
    number = packet_id(body)
    filters: list[tuple[str, int]] = []
    at = 2
    while at < len(body):
        text, at = _text(body, at)
        if at >= len(body) or body[at] > 2 or not text:
            raise PeerError(Reason.MALFORMED)
        filters.append((text, body[at]))
        at += 1
    if not filters:
        raise PeerError(Reason.MALFORMED)  # [MQTT-3.8.3-3]
    return number, filters


def unsubscribe(body: memoryview) -> tuple[int, list[str]]:
    """Packet identifier and filters. Raises: PeerError."""
    number = packet_id(body)
    filters: list[str] = []
    at = 2
    while at < len(body):
        text, at = _text(body, at)
        if not text:
            raise PeerError(Reason.MALFORMED)
        filters.append(text)
    if not filters:
        raise PeerError(Reason.MALFORMED)  # [MQTT-3.10.3-2]
    return number, filters


# --- encoding ---------------------------------------------------------------------------------

PINGREQ_PACKET = bytes([PINGREQ, 0])
PINGRESP_PACKET = bytes([PINGRESP, 0])
DISCONNECT_PACKET = bytes([DISCONNECT, 0])
_ID = struct.Struct(">H")
_ACK = struct.Struct(">BBH")
_ONE = tuple(bytes((number,)) for number in range(0x80))
_TWO = struct.Struct("BB")


def length(number: int) -> bytes:
    """The remaining length as one to four bytes (section 2.2.3).

    Raises: ValueError above 268,435,455.
    """
    if number < 0x80:
        return _ONE[number]
    if number < 0x4000:
        return _TWO.pack(number & 0x7F | 0x80, number >> 7)
    if number > MAX_LENGTH:
        raise ValueError(f"a packet of {number} bytes; the most is {MAX_LENGTH}")
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _string(text: str) -> bytes:
    data = text.encode()
    return _ID.pack(len(data)) + data


def packet(first: int, body: bytes) -> bytes:
    return bytes((first,)) + length(len(body)) + body


def topic_field(topic: str) -> bytes:
    """A topic as PUBLISH carries it; for `publish_to` again and again."""
    return _string(topic)


def publish(topic: str, payload: bytes | memoryview) -> bytes:
    """A PUBLISH at QoS 0."""
    return publish_to(_string(topic), payload)


def publish_to(field: bytes, payload: bytes | memoryview) -> bytes:
    """A PUBLISH at QoS 0 to the topic of a `topic_field`."""
    return b"".join((b"\x30", length(len(field) + len(payload)), field, payload))


def publish_qos1(
    topic: str, payload: bytes | memoryview, number: int, *, again: bool = False
) -> bytes:
    """A PUBLISH at QoS 1; `again` sets DUP."""
    name = topic.encode()
    return b"".join(
        (
            b"\x3a" if again else b"\x32",
            length(4 + len(name) + len(payload)),
            _ID.pack(len(name)),
            name,
            _ID.pack(number),
            payload,
        )
    )


def puback(number: int) -> bytes:
    return _ACK.pack(PUBACK, 2, number)


def unsuback(number: int) -> bytes:
    return _ACK.pack(UNSUBACK, 2, number)


def suback(number: int, codes: Sequence[int]) -> bytes:
    return packet(SUBACK, _ID.pack(number) + bytes(codes))


def connack(code: int) -> bytes:
    """CONNACK without a session present: there never is one, sessions are clean."""
    return bytes((CONNACK, 2, 0, code))


def connect_packet(client_id: str, user_name: str) -> bytes:
    """The CONNECT that amqtt sees: clean session, keepalive 0, no will.

    The user name carries the gate's own proof that it vouches for the client id.
    """
    flags = 0x82  # user name, clean session
    body = _string("MQTT") + bytes((4, flags, 0, 0)) + _string(client_id) + _string(user_name)
    return packet(CONNECT, body)


def client_packet(client_id: str, keepalive_s: int) -> bytes:
    """The CONNECT of an ordinary client: clean session, no user name, no will."""
    body = _string("MQTT") + bytes((4, 0x02)) + _ID.pack(keepalive_s) + _string(client_id)
    return packet(CONNECT, body)


def subscribe_packet(number: int, filters: Sequence[str], *, qos: int = 0) -> bytes:
    """SUBSCRIBE at `qos` to each filter."""
    body = b"".join(_string(text) + bytes((qos,)) for text in filters)
    return packet(SUBSCRIBE, _ID.pack(number) + body)
