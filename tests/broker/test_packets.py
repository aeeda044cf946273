"""MQTT framing: whatever the cut, the same packets; whatever the bytes, a packet or a PeerError."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker import packets
from broker.errors import PeerError, Reason
from tests.broker import raw
from tests.scale import scaled

LIMITS = packets.from_device(100_000)
A = "pat/1/device-aaaa"


def read_all(
    chunks: list[bytes], limits: tuple[int, ...] = LIMITS
) -> tuple[list[tuple[int, bytes]], packets.Reader]:
    """Feed chunks from one reused buffer, as the gate does."""
    reader = packets.Reader(limits)
    shared = bytearray(max(map(len, chunks), default=0))
    found = []
    for chunk in chunks:
        shared[: len(chunk)] = chunk
        reader.feed(memoryview(shared)[: len(chunk)])
        while (packet := reader.next()) is not None:
            found.append((packet[0], bytes(packet[1])))
        reader.keep()
        shared[:] = b"\xee" * len(shared)  # nothing may point here any more
    return found, reader


payloads = st.lists(st.binary(max_size=300), min_size=1, max_size=8)


@settings(max_examples=scaled(500, at_least=30), deadline=None)
@given(payloads, st.lists(st.integers(1, 40), min_size=1, max_size=30))
def test_cutting_changes_nothing(bodies: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(raw.publish(f"{A}/up/s", body) for body in bodies)
    chunks, at, turn = [], 0, 0
    while at < len(stream):
        size = cuts[turn % len(cuts)]
        chunks.append(stream[at : at + size])
        at, turn = at + size, turn + 1
    found, reader = read_all(chunks)
    assert found == read_all([stream])[0]
    name = raw.text(f"{A}/up/s")
    assert [body for _, body in found] == [name + body for body in bodies]
    assert reader.held == 0


def test_a_caller_that_stops_in_between_loses_nothing() -> None:
    stream = b"".join(raw.publish(f"{A}/up/s", bytes([n]) * n * 50) for n in range(20))
    reader = packets.Reader(LIMITS)
    found = []
    for at in range(0, len(stream), 1000):
        reader.feed(stream[at : at + 1000])
        packet = reader.next()  # only one at a time, then hold
        if packet is not None:
            found.append(bytes(packet[1]))
        reader.keep()
    reader.feed(b"")
    while (packet := reader.next()) is not None:
        found.append(bytes(packet[1]))
    assert found == [body for _, body in read_all([stream])[0]]


def test_a_packet_that_lies_whole_in_its_chunk_is_not_copied() -> None:
    chunk = memoryview(bytearray(raw.publish(f"{A}/up/s", b"x" * 1000)))
    reader = packets.Reader(LIMITS)
    reader.feed(chunk)
    packet = reader.next()
    assert packet is not None
    chunk[-1] = 7
    assert packet[1][-1] == 7


@settings(max_examples=scaled(2000, at_least=100), deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=6))
def test_any_bytes_give_packets_or_a_peer_error(chunks: list[bytes]) -> None:
    for limits in (LIMITS, packets.BEFORE_CONNECT):
        try:
            read_all(chunks, limits)
        except PeerError as error:
            assert error.reason in Reason


def decode(first: int, body: memoryview) -> object:
    if first == packets.CONNECT:
        return packets.connect(body)
    if first == packets.SUBSCRIBE:
        return packets.subscribe(body)
    return packets.unsubscribe(body)


@pytest.mark.timeout(900)
def test_fuzz() -> None:
    """THREATS: 10^7 fuzzed packets, sampled in CI: nothing but PeerError is ever raised."""
    random_ = random.Random(425)
    seeds = [
        raw.connect("device-aaaa"),
        raw.subscribe(f"{A}/dn/#", "#"),
        raw.unsubscribe(f"{A}/dn/#"),
        raw.publish(f"{A}/up/event/1", b"{}", first=0x32),
    ]
    outcomes = {"good": 0, "bad": 0}
    for _ in range(scaled(10_000_000)):
        data = bytearray(random_.choice(seeds))
        for _ in range(random_.randrange(5)):
            data[random_.randrange(len(data))] = random_.randrange(256)
        del data[random_.randrange(len(data), 2 * len(data)) :]
        limits = packets.BEFORE_CONNECT if data[0] == packets.CONNECT else LIMITS
        reader = packets.Reader(limits)
        reader.feed(bytes(data))
        try:
            while (packet := reader.next()) is not None:
                if packet[0] in (packets.CONNECT, packets.SUBSCRIBE, packets.UNSUBSCRIBE):
                    decode(*packet)
            outcomes["good"] += 1
        except PeerError:
            outcomes["bad"] += 1
        assert reader.held <= len(data)
    assert all(outcomes.values())


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16383, 16384, 2097151, 2097152, 268435455])
def test_the_remaining_length_round_trips(size: int) -> None:
    encoded = packets.length(size)
    assert encoded == raw.varint(size)
    assert packets._header(bytearray(b"\x30" + encoded), 0, 1 + len(encoded)) == (
        size,
        1 + len(encoded),
    )


def test_a_packet_too_long_to_say() -> None:
    with pytest.raises(ValueError, match="the most is"):
        packets.length(268_435_456)


def refused(data: bytes, limits: tuple[int, ...] = LIMITS) -> Reason:
    with pytest.raises(PeerError) as caught:
        read_all([data], limits)
    return caught.value.reason


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x30\xff\xff\xff\x7f", Reason.TOO_LARGE),
        (b"\x30\xff\xff\xff\xff", Reason.MALFORMED),
        (b"\x30\x80\x00", Reason.MALFORMED),
        (b"\x31\x00", Reason.RETAINED),
        (b"\x34\x00", Reason.QOS),
        (b"\x36\x00", Reason.QOS),
        (b"\x38\x00", Reason.MALFORMED),
        (b"\x80\x00", Reason.MALFORMED),
        (b"\xc1\x00", Reason.MALFORMED),
        (b"\xc0\x01", Reason.TOO_LARGE),
        (b"\xe0\x01", Reason.TOO_LARGE),
        (b"\x10\x00", Reason.SECOND_CONNECT),
        (b"\x40\x02", Reason.UNEXPECTED),
        (b"\x62\x02", Reason.UNEXPECTED),
        (b"\x00\x00", Reason.UNEXPECTED),
        (b"\xf0\x00", Reason.UNEXPECTED),
    ],
)
def test_refused_at_the_header(data: bytes, reason: Reason) -> None:
    assert refused(data) is reason
    if len(data) > 2:
        with pytest.raises(PeerError):  # and in single bytes as well
            read_all([data[i : i + 1] for i in range(len(data))])


def test_before_connect_there_is_only_connect() -> None:
    assert refused(b"\xc0\x00", packets.BEFORE_CONNECT) is Reason.NOT_CONNECT
    assert refused(b"\x10\x81\x08", packets.BEFORE_CONNECT) is Reason.TOO_LARGE


def body(packet: bytes) -> memoryview:
    found, _ = read_all([packet], packets.table({packet[0]: 10_000}))
    return memoryview(found[0][1])


def connect_refused(packet: bytes) -> Reason:
    with pytest.raises(PeerError) as caught:
        packets.connect(body(packet))
    return caught.value.reason


def test_connect() -> None:
    found = packets.connect(body(raw.connect("device-aaaa", clean=False, keepalive=10)))
    assert found == packets.Connect("device-aaaa", False, 10)


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (raw.connect("x", name="MQIsdp", level=3), Reason.PROTOCOL_LEVEL),
        (raw.connect("x", level=5), Reason.PROTOCOL_LEVEL),
        (raw.connect("x", flags=1), Reason.MALFORMED),
        (raw.connect("x", flags=4), Reason.WILL),
        (raw.connect("x", flags=0x20), Reason.WILL),
        (raw.connect("x", flags=0x80), Reason.USER_NAME),
        (raw.connect("x", flags=0x40), Reason.USER_NAME),
        (raw.connect("x", tail=b"more"), Reason.MALFORMED),
        (raw.connect(b"\xc3"), Reason.MALFORMED),
        (raw.connect(b"\xed\xa0\x80"), Reason.MALFORMED),
        (raw.connect("a\0b"), Reason.MALFORMED),
        (raw.packet(0x10, raw.text("MQTT") + b"\x04"), Reason.MALFORMED),
        (raw.packet(0x10, b"\0\x09MQTT"), Reason.MALFORMED),
    ],
)
def test_connect_refused(packet: bytes, reason: Reason) -> None:
    assert connect_refused(packet) is reason


def test_subscribe_and_unsubscribe() -> None:
    assert packets.subscribe(body(raw.subscribe("a", "b/#", id=300, qos=1))) == (
        300,
        [("a", 1), ("b/#", 1)],
    )
    assert packets.unsubscribe(body(raw.unsubscribe("a", "b", id=2))) == (2, ["a", "b"])


@pytest.mark.parametrize(
    "data",
    [
        raw.packet(0x82, b"\0\x01"),
        raw.packet(0x82, b"\0"),
        raw.packet(0x82, b"\0\0" + raw.text("a") + b"\0"),
        raw.packet(0x82, b"\0\x01" + raw.text("a")),
        raw.packet(0x82, b"\0\x01" + raw.text("a") + b"\x03"),
        raw.packet(0x82, b"\0\x01" + raw.text("") + b"\0"),
    ],
)
def test_a_bad_subscribe(data: bytes) -> None:
    with pytest.raises(PeerError):
        packets.subscribe(body(data))


@pytest.mark.parametrize("data", [b"\0\x01", b"\0\x01\0\0", b"\0\x01\0\x05a"])
def test_a_bad_unsubscribe(data: bytes) -> None:
    with pytest.raises(PeerError):
        packets.unsubscribe(memoryview(data))


def test_what_we_send_is_what_the_standard_says() -> None:
    assert packets.publish("a/b", b"hi") == b"\x30\x07\0\x03a/bhi"
    assert packets.publish("t", b"x" * 200) == raw.publish("t", b"x" * 200)
    assert packets.puback(513) == b"\x40\x02\x02\x01"
    assert packets.suback(1, [0, 128]) == b"\x90\x04\0\x01\0\x80"
    assert packets.unsuback(9) == b"\xb0\x02\0\x09"
    assert packets.connack(5) == b"\x20\x02\0\x05"
    assert packets.subscribe_packet(3, ["a", "b"]) == raw.subscribe("a", "b", id=3)
    assert packets.connect_packet("id", "proof") == raw.connect(
        "id", flags=0x80, keepalive=0, tail=raw.text("proof")
    )
