"""The multiplexer, both ends: what is sent arrives, whole, in order, bounded, fairly (R-ACC-5)."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.wire.frames import HEADER, MAX_DATA, FrameType, parse
from agent.wire.mux import (
    Accepted,
    Acknowledged,
    Credited,
    Data,
    Ended,
    Event,
    LocalError,
    Mux,
    Opened,
    Reset,
    ResetCode,
)
from tests.agent.wire.muxes import Pair, seals
from tests.scale import scaled


def pattern(stream: int, side: str, start: int, size: int) -> bytes:
    """Bytes that say where they belong, so that a lost, doubled or swapped one shows."""
    block = hashlib.sha256(f"{stream}{side}".encode()).digest() * (size // 32 + 2)
    return block[start % 32 : start % 32 + size]


def test_open_accept_talk_and_close() -> None:
    pair = Pair()
    pair.client.open(1, "ssh")
    assert pair.client.writable(1) == 0
    assert pair.settle() == [("device", Opened(1, "ssh", False)), ("client", Accepted(1))]
    pair.client.send(1, b"question")
    pair.device.send(1, b"answer")
    pair.client.end(1)
    assert pair.settle() == [
        ("device", Data(1, b"question")),
        ("device", Ended(1)),
        ("client", Data(1, b"answer")),
        ("client", Acknowledged(1)),
    ]
    pair.device.send(1, b", and more")  # half-closed: the other direction goes on
    pair.device.end(1)
    assert pair.settle() == [
        ("client", Data(1, b", and more")),
        ("client", Ended(1)),
        ("device", Acknowledged(1)),
    ]
    assert pair.client.streams == pair.device.streams == ()


def test_an_end_before_acceptance_waits_for_it() -> None:
    pair = Pair()
    pair.client.open(1, "ssh")
    pair.client.end(1)
    assert [type(event) for _, event in pair.settle()] == [Opened, Accepted, Ended, Acknowledged]
    pair.client.open(2, "ssh")
    pair.settle(accept=False)
    pair.device.end(2)
    pair.device.accept(2)
    assert [type(event) for _, event in pair.settle()] == [Accepted, Ended, Acknowledged]


_operation = st.tuples(
    st.sampled_from(["open", "accept", "send", "consume", "end", "carry", "carry", "reset"]),
    st.booleans(),  # which side
    st.integers(1, 4),  # which stream
    st.integers(1, 5000),  # how much
)


@given(st.lists(_operation, max_size=120), st.integers(64, 4096), st.integers(1024, 2048))
@settings(max_examples=scaled(1500, at_least=30), deadline=None)
def test_any_interleaving_delivers_what_was_sent(
    operations: list[tuple[str, bool, int, int]], window: int, max_frame: int
) -> None:
    pair = Pair(window=window, max_frame=max_frame)
    model = _Model(pair, window)
    for name, is_client, stream, amount in operations:
        getattr(model, name)(is_client, stream, amount)
        model.check_bounds()
    model.finish()


class _Model:
    """Does what a program would do with a Mux, and remembers what must come out."""

    def __init__(self, pair: Pair, window: int) -> None:
        self.pair = pair
        self.window = window
        self.muxes = {True: pair.client, False: pair.device}
        self.sent: dict[tuple[bool, int], int] = {}
        self.received: dict[tuple[bool, int], int] = {}
        self.unused: dict[tuple[bool, int], int] = {}
        self.ended: set[tuple[bool, int]] = set()
        self.ends_heard: set[tuple[bool, int]] = set()
        self.offered: set[int] = set()
        self.cut: set[int] = set()

    def open(self, _: bool, stream: int, amount: int) -> None:
        if stream > max([0, *self.pair.client.streams, *self.cut, *self.offered]):
            self.pair.client.open(stream, "web", bool(amount % 2))

    def accept(self, _: bool, stream: int, __: int) -> None:
        if stream in self.offered:
            self.offered.discard(stream)
            self.pair.device.accept(stream)

    def send(self, is_client: bool, stream: int, amount: int) -> None:
        mux, key = self.muxes[is_client], (is_client, stream)
        size = min(amount, mux.writable(stream))
        start = self.sent.get(key, 0)
        if size:
            mux.send(stream, pattern(stream, str(is_client), start, size))
            self.sent[key] = start + size

    def consume(self, is_client: bool, stream: int, amount: int) -> None:
        size = min(amount, self.unused.get((is_client, stream), 0))
        self.muxes[is_client].consumed(stream, size)
        self.unused[(is_client, stream)] = self.unused.get((is_client, stream), 0) - size

    def end(self, is_client: bool, stream: int, _: int) -> None:
        if stream in self.muxes[is_client].streams and stream not in self.offered:
            self.muxes[is_client].end(stream)
            self.ended.add((is_client, stream))

    def reset(self, is_client: bool, stream: int, amount: int) -> None:
        if amount % 10 == 0 and stream in self.muxes[is_client].streams:
            self.cut.add(stream)
            self.offered.discard(stream)
            self.muxes[is_client].reset(stream)
            assert stream not in self.muxes[is_client].streams

    def carry(self, from_client: bool, _: int, amount: int) -> None:
        """Move some frames one way."""
        receiver = self.muxes[not from_client]
        for _ in range(amount % 7 + 1):
            frame = self.muxes[from_client].next_frame()
            if frame is None:
                return
            for event in receiver.receive(frame):
                self.hear(not from_client, event)

    def hear(self, is_client: bool, event: Event) -> None:
        key = (is_client, event.stream)
        match event:
            case Opened():
                self.offered.add(event.stream)
            case Data():
                start = self.received.get(key, 0)
                size = len(event.data)
                assert event.data == pattern(event.stream, str(not is_client), start, size)
                self.received[key] = start + size
                self.unused[key] = self.unused.get(key, 0) + size
            case Ended():
                self.ends_heard.add(key)
                sent = self.sent.get((not is_client, event.stream), 0)
                assert self.received.get(key, 0) == sent
            case Acknowledged():
                other = (not is_client, event.stream)
                assert self.sent.get(key, 0) == self.received.get(other, 0)
                assert not self.unused.get(other)
            case Reset():
                assert event.by_peer
                assert event.stream in self.cut
                self.offered.discard(event.stream)

    def check_bounds(self) -> None:
        for size in self.unused.values():
            assert 0 <= size <= self.window
        for mux in self.muxes.values():
            assert mux.kept_bytes <= self.window * 4

    def finish(self) -> None:
        """Accept, end, carry and consume until nothing moves: everything must have arrived."""
        for _ in range(400):
            for stream in list(self.offered):
                self.accept(False, stream, 0)
            for is_client in (True, False):
                for stream in self.muxes[is_client].streams:
                    self.end(is_client, stream, 0)
                for _ in range(20):
                    self.carry(is_client, 0, 6)
                for stream in range(1, 5):
                    self.consume(is_client, stream, 10**9)
            if not self.pair.client.streams and not self.pair.device.streams:
                break
        assert self.pair.client.streams == self.pair.device.streams == ()
        for (is_client, stream), size in self.sent.items():
            if stream not in self.cut:
                assert self.received.get((not is_client, stream), 0) == size
        assert {s for _, s in self.ended} - self.cut <= {s for _, s in self.ends_heard}


@pytest.mark.parametrize("size", [1, 100, MAX_DATA, 3 * MAX_DATA + 1])
def test_much_data_in_any_piece_size(size: int) -> None:
    pair = Pair(window=64 * 1024)
    pair.running()
    total = min(size * 3000, 2_000_000)
    sent = 0
    got = hashlib.sha256()
    data = bytes(range(251)) * (size // 251 + 2)
    want = hashlib.sha256()
    while sent < total:
        while piece := data[: min(size, pair.client.writable(1), total - sent)]:
            pair.client.send(1, piece)
            want.update(piece)
            sent += len(piece)
        for who, event in pair.settle():
            if isinstance(event, Data):
                assert who == "device"
                got.update(event.data)
    assert got.digest() == want.digest()


def test_what_is_sent_may_be_changed_afterwards() -> None:
    pair = Pair()
    pair.running()
    buffer = bytearray(b"x" * 40_000)
    pair.client.send(1, buffer)
    pair.client.send(1, memoryview(buffer)[:10])
    buffer[:] = b"y" * 40_000
    heard = b"".join(e.data for _, e in pair.settle() if isinstance(e, Data))
    assert heard == b"x" * 40_010


def test_credit_stops_a_sender_and_consuming_lets_it_go_on() -> None:
    pair = Pair(window=10_000)
    pair.running()
    pair.client.send(1, bytes(10_000))
    assert pair.client.writable(1) == 0
    with pytest.raises(LocalError):
        pair.client.send(1, b"x")
    assert pair.settle(consume=False) == [("device", Data(1, bytes(10_000)))]
    assert pair.client.kept_bytes == 10_000
    pair.device.consumed(1, 2_000)  # below a quarter of the window: not worth a frame
    assert pair.settle() == []
    pair.device.consumed(1, 1_000)
    assert pair.settle() == [("client", Credited(1))]
    assert pair.client.writable(1) == 3_000
    assert pair.client.kept_bytes == 7_000


def test_tiny_writes_are_gathered_and_bounded() -> None:
    """What nobody acknowledges is at most 1024 frames of a stream, whatever the writes."""
    pair = Pair()
    pair.running()
    sent = 0
    for _ in range(3000):
        pair.client.send(1, b"k")
        sent += 1
        frame = pair.client.next_frame()
        if frame is not None:
            pair.down.append(frame)
    assert len(pair.down) == 1024
    events = [e for frame in pair.down for e in pair.device.receive(frame)]
    pair.down.clear()
    for event in events:  # a slow reader: one frame at a time
        assert isinstance(event, Data)
        pair.device.consumed(1, len(event.data))
        pair.up.extend(pair.flush(pair.device))
    rest = sum(len(e.data) for _, e in pair.settle() if isinstance(e, Data))
    assert rest + 1024 == sent
    assert len(pair.up) == 0


def test_control_goes_before_interactive_and_that_before_bulk() -> None:
    pair = Pair()
    pair.running(1, bulk=True)
    pair.running(2)
    pair.running(3)
    pair.client.send(1, bytes(MAX_DATA * 3))
    pair.client.send(2, bytes(MAX_DATA * 2))
    pair.client.send(3, bytes(MAX_DATA * 2))
    pair.client.open(4, "web")
    order = [(h.type, h.stream) for h in map(parse, pair.flush(pair.client))]
    data = FrameType.DATA
    assert order == [
        (FrameType.OPEN, 4),
        (data, 2), (data, 3), (data, 2), (data, 3),
        (data, 1), (data, 1), (data, 1),
    ]  # fmt: skip


def test_bulk_can_be_held_while_the_rest_flows() -> None:
    """In armed, injecting and hold a running bulk transfer waits (R-ACC-7)."""
    pair = Pair()
    pair.running(1, bulk=True)
    pair.running(2)
    pair.client.hold_bulk = True
    pair.client.send(1, b"bulk")
    pair.client.send(2, b"now")
    assert [e for _, e in pair.settle()] == [Data(2, b"now")]
    pair.client.hold_bulk = False
    assert [e for _, e in pair.settle()] == [Data(1, b"bulk")]


def test_frames_follow_the_size_asked_for() -> None:
    pair = Pair(max_frame=1024)
    pair.running()
    pair.client.send(1, bytes(5000))
    sizes = [len(f) - HEADER.size - 16 for f in pair.flush(pair.client)]
    assert sizes == [1024] * 4 + [904]


def test_reset_cuts_both_ways_and_drops_what_waits() -> None:
    pair = Pair()
    pair.running()
    pair.client.send(1, bytes(100_000))
    pair.client.reset(1, ResetCode.CANCELLED)
    assert pair.client.streams == ()
    assert pair.settle() == [("device", Reset(1, ResetCode.CANCELLED, by_peer=True))]
    assert pair.device.streams == ()
    for mux in (pair.client, pair.device):  # a program that has not heard yet does no harm
        assert mux.writable(1) == 0
        mux.consumed(1, 5)
        mux.end(1)
        mux.reset(1)
        mux.accept(1)
    assert pair.settle() == []


def test_a_stream_reset_before_it_left_is_not_mentioned() -> None:
    pair = Pair()
    pair.client.open(1, "ssh")
    pair.client.reset(1)
    assert pair.settle() == []


def test_frames_that_cross_a_reset_are_dropped_quietly() -> None:
    pair = Pair()
    pair.running()
    pair.device.send(1, bytes(100_000))
    pair.up.extend(pair.flush(pair.device))
    pair.client.reset(1)
    assert pair.settle() == [("device", Reset(1, ResetCode.CANCELLED, by_peer=True))]


def test_a_lost_frame_is_sent_again_and_no_other_stream_waits() -> None:
    """Nothing is delivered out of order, ever; the rest is in test_mux_resume."""
    pair = Pair()
    pair.running(1)
    pair.running(2)
    pair.client.send(1, bytes(MAX_DATA) + b"end")
    pair.client.send(2, b"fine")
    frames = pair.flush(pair.client)
    del frames[0]
    pair.down.extend(frames)
    heard = pair.settle()
    assert heard == [
        ("device", Data(2, b"fine")),
        ("device", Data(1, bytes(MAX_DATA))),
        ("device", Data(1, b"end")),
    ]
    assert pair.client.streams == pair.device.streams == (1, 2)


def test_streams_are_counted() -> None:
    pair = Pair(max_streams=2)
    pair.running(1)
    pair.running(2)
    with pytest.raises(LocalError, match="limit"):
        pair.client.open(3, "ssh")
    pair.client.reset(1)
    pair.settle()
    pair.running(3)


def test_stream_numbers_never_repeat_and_epochs_go_side_by_side() -> None:
    """Two processes of one specialist may use a session at once; neither repeats a nonce."""
    pair = Pair()
    pair.running(5)
    pair.client.reset(5)
    for used in (5, 4, 0, 2**32):
        with pytest.raises(LocalError, match="number"):
            pair.client.open(used, "ssh")
    pair.running(2 << 16 | 1)
    pair.running(1 << 16 | 1)  # a lower epoch that opens later
    pair.running(6)
    assert set(pair.device.streams) == {6, 2 << 16 | 1, 1 << 16 | 1}


@pytest.mark.parametrize("service", ["", "SSH", "127.0.0.1:22", "a" * 33, "a b", "ssh\n", "é"])
def test_a_service_is_a_name(service: str) -> None:
    with pytest.raises(LocalError, match="name"):
        Pair().client.open(1, service)


def test_misuse_is_told_to_the_caller() -> None:
    pair = Pair()
    with pytest.raises(LocalError, match="client opens"):
        pair.device.open(1, "ssh")
    pair.running()
    with pytest.raises(LocalError, match="accepted before"):
        pair.device.accept(1)
    with pytest.raises(LocalError, match="not received"):
        pair.device.consumed(1, 1)
    with pytest.raises(LocalError):
        pair.client.send(9, b"x")
    for options in ({"window": 0}, {"window": 2**30}, {"max_frame": 10}, {"max_frame": 10**6}):
        with pytest.raises(LocalError):
            Mux(seals()[0], **options)
