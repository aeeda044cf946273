"""Frames beside paho: divided whole and in order coming, whole packets leaving (R-CON-8)."""

import ssl
from collections import deque
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.lane import BUFFER, LONGEST, MAX_PACKET, RECORD, Lane, Next, TooLarge
from agent.link import PIECE
from agent.outflow import LARGEST
from agent.wire import topics
from agent.wire.frames import HEADER, TAG

DEVICE = "device-0001"
DOWN, UP = topics.down_stream(DEVICE), topics.up_stream(DEVICE)


class Wire:
    """A socket as OpenSSL gives it: what it could not take must be offered again unchanged."""

    def __init__(self, *chunks: bytes) -> None:
        self.chunks = deque(chunks)
        self.over = False
        self.taken = bytearray()
        self.pieces = 0
        self.full = False
        self._refused: bytes | None = None

    def recv_into(self, room: memoryview, size: int) -> int:
        assert size == len(room) > 0
        if not self.chunks:
            if self.over:
                return 0
            raise ssl.SSLWantReadError
        chunk = self.chunks.popleft()
        got = min(size, len(chunk), RECORD)
        room[:got] = chunk[:got]
        if got < len(chunk):
            self.chunks.appendleft(chunk[got:])
        return got

    def pending(self) -> int:
        return 0

    def send(self, data: bytes) -> int:
        assert self._refused in (None, data)
        if self.full:
            self._refused = data
            raise ssl.SSLWantWriteError
        self._refused = None
        self.pieces += 1
        self.taken += data
        return len(data)

    def close(self) -> None:
        self.over = True


def lane(wire: Wire) -> Lane:
    return Lane(cast(Any, wire), DEVICE)


def packet(kind: int, body: bytes) -> bytes:
    left, length = len(body), bytearray()
    while True:
        left, byte = divmod(left, 0x80)
        length.append(byte | (0x80 if left else 0))
        if not left:
            return bytes((kind, *length)) + body


def publish(topic: str, payload: bytes, kind: int = 0x30) -> bytes:
    return packet(kind, len(topic).to_bytes(2, "big") + topic.encode() + payload)


def arrivals(way: Lane, most: int = 1 << 20) -> list[bytes | Next]:
    """All that stands there, in order: paho's bytes, as it reads them, behind `paho`."""
    found: list[bytes | Next] = []
    pahos = bytearray()
    way.fill()
    while (each := way.next()) is not None:
        if each is Next.OTHER:
            pahos += way.recv(most)
            continue
        if pahos:
            found.append(b"paho" + pahos)
            pahos = bytearray()
        found.append(each if each is Next.PONG else b"lane" + each)
    return [*found, b"paho" + pahos] if pahos else found


def joined(found: list[bytes | Next]) -> list[bytes | Next]:
    """What paho read in a row as one."""
    result: list[bytes | Next] = []
    for each in found:
        last = result[-1] if result else None
        if isinstance(each, bytes) and isinstance(last, bytes) and each[:4] == last[:4] == b"paho":
            result[-1] = last + each[4:]
        else:
            result.append(each)
    return result


_short = st.binary(max_size=300)
_payload = _short | st.integers(0, LONGEST).map(lambda size: b"x" * size)
_frame = _payload.map(lambda payload: (publish(DOWN, payload), b"lane" + payload))
_pong = st.just((b"\xd0\x00", Next.PONG))
_other = st.one_of(
    st.builds(publish, st.sampled_from([DOWN + "x", DOWN[:-1], UP, "pat/1"]), _short),
    _short.map(lambda payload: publish(DOWN, payload, 0x32)),  # at QoS 1
    _short.map(lambda payload: publish(DOWN, payload, 0x31)),  # retained
    st.integers(0, 3_000).map(lambda size: packet(0x90, b"y" * size)),
    st.just(packet(0x30, b"\x00")),
    st.just(packet(0xD0, b"\x00")),
).map(lambda data: (data, b"paho" + data))


@given(
    st.lists(_frame | _pong | _other, max_size=12),
    st.lists(st.integers(1, 40_000), max_size=20),
    st.sampled_from([1, 7, 1 << 20]),
)
def test_what_came_is_divided_whole_and_in_order_however_it_was_cut(
    packets: list[tuple[bytes, bytes | Next]], cuts: list[int], most: int
) -> None:
    stream = b"".join(data for data, _meant in packets)
    wire = Wire()
    way = lane(wire)
    found: list[bytes | Next] = []
    for cut in (*cuts, len(stream)):
        if stream[:cut]:
            wire.chunks.append(stream[:cut])
        stream = stream[cut:]
        found += arrivals(way, most)
    meant = [what for _data, what in packets]
    assert joined(found) == joined(meant)


def test_a_message_is_read_before_the_frame_behind_it() -> None:
    message = publish(topics.down(DEVICE, "rate", 1), b"{}")
    way = lane(Wire(message + publish(DOWN, b"frame")))
    way.fill()
    assert way.next() is Next.OTHER
    assert way.recv(1) == message[:1]
    assert way.next() is Next.OTHER  # still: paho has not taken the whole of it
    assert way.recv(1 << 20) == message[1:]
    with pytest.raises(BlockingIOError):
        way.recv(1)  # a frame is no business of paho's
    assert way.next() == b"frame"
    assert way.next() is None


@pytest.mark.parametrize(
    "head", [b"\x30\xff\xff\xff\x7f", b"\x30\xff\xff\xff\xff", b"\x90\xff\xff\x7f"]
)
def test_a_packet_that_is_too_large_is_refused_at_its_header(head: bytes) -> None:
    way = lane(Wire(head + bytes(100)))
    way.fill()
    with pytest.raises(TooLarge):
        way.next()


def test_the_largest_message_passes() -> None:
    message = packet(0x90, bytes(MAX_PACKET))
    assert joined(arrivals(lane(Wire(message)))) == [b"paho" + message]
    assert len(message) > BUFFER


def test_the_end_is_pahos_even_in_the_middle_of_a_frame() -> None:
    wire = Wire(publish(DOWN, b"frame")[:-1])
    way = lane(wire)
    assert arrivals(way) == []
    wire.over = True
    way.fill()
    assert way.next() is Next.OTHER
    assert way.recv(1) == b""


def test_what_the_socket_did_not_take_goes_first_and_nothing_gets_into_it() -> None:
    wire = Wire()
    way = lane(wire)
    wire.full = True
    way.put(b"one")
    assert not way.flush()
    with pytest.raises(BlockingIOError):
        way.send(b"paho's")
    way.ping()
    assert way.pending
    wire.full = False
    assert way.send(b"paho's") == 6
    assert not way.pending
    assert wire.taken == publish(UP, b"one") + b"\xc0\x00" + b"paho's"


def test_a_packet_of_pahos_that_was_taken_is_kept_until_the_socket_takes_it() -> None:
    wire = Wire()
    way = lane(wire)
    wire.full = True
    assert way.send(bytearray(b"paho's")) == 6
    way.put(b"one")
    assert way.pending
    wire.full = False
    assert way.flush()
    assert wire.taken == b"paho's" + publish(UP, b"one")


@given(st.lists(_payload, min_size=1, max_size=8))
def test_frames_leave_in_one_piece_as_whole_packets(frames: list[bytes]) -> None:
    wire = Wire()
    way = lane(wire)
    for frame in frames:
        way.put(frame)
    assert way.flush()
    assert wire.pieces == 1
    assert wire.taken == b"".join(publish(UP, frame) for frame in frames)


def test_two_of_the_largest_frames_fill_four_records() -> None:
    wire = Wire()
    way = Lane(cast(Any, wire), "d" * 64)
    for _each in range(2):
        way.put(bytes(HEADER.size + LARGEST + TAG))
    assert way.flush()
    assert 4 * RECORD - 256 < len(wire.taken) <= 4 * RECORD
    assert LARGEST < PIECE <= 2 * LARGEST


def test_what_waits_is_offered_once_more_at_the_end() -> None:
    wire = Wire()
    way = lane(wire)
    way.ping()
    way.close()
    assert wire.over
    assert wire.taken == b"\xc0\x00"
