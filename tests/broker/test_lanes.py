"""The lanes by themselves: windows, order, waiting, pace, what stands back for what."""

import asyncio
import socket

import pytest

from agent.wire import topics
from broker import packets
from broker.errors import Reason
from broker.lanes import ConnectionInfo, Counters, Delivery, DownLane, Pace, UpLane
from broker.options import Limits

DEVICE = "device-aaaa"
EVENT = topics.Topic(DEVICE, topics.Direction.UP, "event", 1)
FIELD = packets.topic_field("t/s")
FRAME = topics.Topic(DEVICE, topics.Direction.UP, topics.STREAM, 0)


class Portal:
    """A handler with room for so many."""

    def __init__(self, room: int = 1000) -> None:
        self.room = room
        self.taken: list[Delivery] = []
        self.frames: list[bytes] = []

    def connected(self, device: str, info: ConnectionInfo) -> None: ...

    def disconnected(self, device: str, reason: Reason) -> None: ...

    def up(self, delivery: Delivery) -> bool:
        if len(self.taken) >= self.room:
            return False
        self.taken.append(delivery)
        return True

    def stream(self, device: str, frame: bytes) -> None:
        self.frames.append(frame)

    def refused(self, peer: str, device: str | None, reason: Reason) -> None: ...


def lane(portal: Portal, **limits: int) -> tuple[UpLane, list[int], Counters]:
    acknowledged: list[int] = []
    counters = Counters()
    found = UpLane(DEVICE, portal, Limits(**limits), counters, acknowledged.append)  # type: ignore[arg-type]
    return found, acknowledged, counters


def test_the_window_counts_messages() -> None:
    portal = Portal()
    up, acknowledged, _ = lane(portal, unacked=2)
    up.offer(EVENT, b"1", 1)
    assert not up.full
    up.offer(EVENT, b"2", 2)
    assert up.full
    portal.taken[1].ack()
    assert not up.full
    assert acknowledged == [2]
    assert up.in_flight(1)
    assert not up.in_flight(2)


def test_the_window_counts_bytes() -> None:
    portal = Portal()
    up, _, _ = lane(portal, unacked_bytes=100)
    up.offer(EVENT, b"x" * 99, 1)
    assert not up.full
    up.offer(EVENT, b"x", 2)
    assert up.full
    portal.taken[0].ack()
    assert not up.full


def test_what_waits_keeps_its_order() -> None:
    portal = Portal(room=1)
    up, _, counters = lane(portal)
    for number in range(1, 5):
        up.offer(EVENT, bytes([number]), number)
    up.offer(EVENT, b"sample", None)
    assert up.waiting == 3
    assert counters.messages_dropped == 1
    portal.room = 3
    up.resume()
    assert up.waiting == 1
    portal.room = 9
    up.resume()
    assert [delivery.payload for delivery in portal.taken] == [b"\1", b"\2", b"\3", b"\4"]


def test_closed_means_no_acknowledgement() -> None:
    portal = Portal(room=1)
    up, acknowledged, _ = lane(portal)
    up.offer(EVENT, b"1", 1)
    up.offer(EVENT, b"2", 2)
    up.close()
    portal.taken[0].ack()
    portal.room = 9
    up.resume()
    assert acknowledged == []
    assert len(portal.taken) == 1


def test_frames_have_no_window() -> None:
    portal = Portal(room=0)
    up, acknowledged, counters = lane(portal, unacked=1)
    up.offer(FRAME, b"a", None)
    up.offer(FRAME, b"b", 7)
    assert portal.frames == [b"a", b"b"]
    assert acknowledged == [7]
    assert not up.full
    assert (counters.frames_up, counters.frame_bytes_up) == (2, 2)


def test_pace() -> None:
    pace = Pace(Limits(messages_per_s=10.0, messages_burst=5), 0.0)
    assert [pace.spend(0.0) for _ in range(5)] == [0.0] * 5
    assert pace.spend(0.0) == 0.1  # the sixth: a tenth of a second too early
    assert pace.spend(1.0) == 0.0
    assert Pace(Limits(messages_per_s=10.0, messages_burst=5), 0.0).spend(0.0, 8) == 0.3
    assert sum(pace.spend(1000.0) == 0 for _ in range(20)) <= 15


class Pipe:
    """A transport that is full when told."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.size = 0
        self.lane: DownLane | None = None

    def write(self, data: bytes) -> None:
        self.written.append(data)
        if self.size and self.lane is not None:
            self.lane.pause(1.0)

    def get_write_buffer_size(self) -> int:
        return self.size

    def get_extra_info(self, name: str) -> None:
        return None


async def test_frames_stand_back_and_control_passes() -> None:
    pipe = Pipe()
    down = DownLane(pipe, Limits(outgoing_bytes=100), Counters())  # type: ignore[arg-type]
    pipe.lane = down
    down.frame(FIELD, b"1")
    down.pause(5.0)
    assert down.congested
    assert down.stalled_since == 5.0
    down.frame(FIELD, b"2")
    down.frame(FIELD, b"3")
    down.message("t/m", b"now")
    assert [each[-1:] for each in pipe.written] == [b"1", b"w"]
    assert down.buffered == 2 * len(b"\x30\x06\0\x03t/s2")
    pipe.size = 1  # the first frame fills it again
    down.resume()
    assert [each[-1:] for each in pipe.written] == [b"1", b"w", b"2"]
    pipe.size = 0
    down.resume()
    assert [each[-1:] for each in pipe.written] == [b"1", b"w", b"2", b"3"]
    assert down.stalled_since is None
    assert down.buffered == 0


async def test_overflowing() -> None:
    pipe = Pipe()
    down = DownLane(pipe, Limits(outgoing_bytes=100), Counters())  # type: ignore[arg-type]
    down.pause(0.0)
    down.frame(FIELD, b"x" * 80)
    assert not down.overflowing
    down.frame(FIELD, b"x" * 80)
    assert down.overflowing
    down.close()
    assert down.buffered == 0


async def test_a_line_that_is_full_holds_frames_back_and_lets_messages_pass() -> None:
    """R-CON-4: what the kernel has cannot be overtaken: it is given no more than it soon sends."""
    near, far = _tcp_pair()
    with near, far:
        pipe = Pipe()
        pipe.get_extra_info = lambda name: near  # type: ignore[method-assign,assignment,return-value]
        down = DownLane(pipe, Limits(), Counters())  # type: ignore[arg-type]
        drained: list[bool] = []
        down.drained = lambda: drained.append(down.congested)
        down.frame(FIELD, b"1")
        assert len(pipe.written) == 1
        near.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:  # the far end does not read
                down._written += near.send(bytes(65536))
        assert not down.congested
        down.frame(FIELD, b"2")
        assert down.congested
        assert down.stalled_since is not None
        down.message("t/m", b"now")
        down.frame(FIELD, b"3")
        await asyncio.sleep(0.05)
        assert [each[-1:] for each in pipe.written] == [b"1", b"w"]
        assert drained == []
        far.settimeout(0.2)
        with pytest.raises(TimeoutError):
            while far.recv(1 << 20):
                pass
        async with asyncio.timeout(2):
            while down.congested:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        assert [each[-1:] for each in pipe.written] == [b"1", b"w", b"2", b"3"]
        assert down.stalled_since is None
        assert drained == [False]  # told once: whoever waits for room looks at nothing
        down.frame(FIELD, b"4")
        down.close()


def _tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _address = listener.accept()
        return near, far
