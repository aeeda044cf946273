"""The hub: frames to whom they belong, and to nobody else (R-ACC-5, R-ACC-8)."""

import asyncio
from collections.abc import Iterator

import pytest

from agent.wire.frames import MAX_FRAME, FrameType, Header
from fleet.access import hub as hubs
from fleet.access.hub import Channel, Client, FrameRefusedError, Hub
from fleet.core import ports

SESSION, OTHER = bytes.fromhex("5e" * 16), bytes.fromhex("aa" * 16)
DEVICE = "device-0001"


def frame(stream: int = 1, *, session: bytes = SESSION, size: int = 16, n: int = 0) -> bytes:
    return Header(FrameType.DATA, session, stream, n, 0).pack() + bytes(size)


class Down:
    """The device's connection."""

    def __init__(self) -> None:
        self.frames: list[tuple[str, bytes]] = []
        self.full = False

    def __call__(self, device: str, data: bytes) -> bool:
        if not self.full:
            self.frames.append((device, data))
        return not self.full


@pytest.fixture
def down() -> Iterator[Down]:
    sender = Down()
    ports.set_frame_sender(sender)
    yield sender
    ports.set_frame_sender(None)


def taken(client: Client) -> list[bytes]:
    """Everything that waits for the client; then its transport is full again."""
    frames: list[bytes] = []
    client.resume(frames.append)
    client.pause()
    return frames


async def test_frames_go_to_the_sessions_client_and_are_counted(down: Down) -> None:
    hub = Hub()
    channel, client = hub.join(SESSION, DEVICE)
    one, two = frame(n=0), frame(n=1)
    hub.from_device(DEVICE, one)
    hub.from_device(DEVICE, two)
    assert taken(client) == [one, two]
    assert hub.from_client(channel, client, one)
    assert down.frames == [(DEVICE, one)]
    assert (channel.bytes_up, channel.bytes_down) == (112, 56)


async def test_only_the_sessions_own_device_may_speak(down: Down) -> None:
    hub = Hub()
    _channel, client = hub.join(SESSION, DEVICE)
    hub.from_device("device-0002", frame())
    hub.from_device(DEVICE, frame(session=OTHER))
    hub.from_device(DEVICE, b"")
    hub.from_device(DEVICE, frame()[:55])
    hub.from_device(DEVICE, frame(size=MAX_FRAME))
    assert taken(client) == []


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", 4400),
        (frame()[:55], 4400),
        (frame(size=MAX_FRAME), 4400),
        (b"\x02" + frame()[1:], 4400),
        (frame(session=OTHER), 4403),
    ],
)
async def test_what_a_client_may_not_send(down: Down, data: bytes, code: int) -> None:
    hub = Hub()
    channel, client = hub.join(SESSION, DEVICE)
    with pytest.raises(FrameRefusedError) as caught:
        hub.from_client(channel, client, data)
    assert caught.value.code == code
    assert down.frames == []


async def test_several_clients_have_their_own_streams(down: Down) -> None:
    hub = Hub()
    channel, first = hub.join(SESSION, DEVICE)
    same, second = hub.join(SESSION, DEVICE)
    assert same is channel
    hub.from_client(channel, first, frame(1))
    hub.from_client(channel, second, frame(65537))
    hub.from_device(DEVICE, frame(1))
    hub.from_device(DEVICE, frame(65537))
    hub.from_device(DEVICE, frame(9))  # nobody's: to the one that came last
    assert taken(first) == [frame(1)]
    assert taken(second) == [frame(65537), frame(9)]
    down.frames.clear()
    assert hub.from_client(channel, second, frame(1))  # somebody else's: goes nowhere
    assert down.frames == []
    hub.leave(channel, first)
    assert hub.from_client(channel, second, frame(1))
    assert down.frames == [(DEVICE, frame(1))]


@pytest.mark.parametrize("kind", [FrameType.OPEN, FrameType.RESUME])
async def test_a_client_that_connects_again_takes_its_streams_along(
    down: Down, kind: FrameType
) -> None:
    """R-CON-5: its old websocket may look alive; who resumes a stream is whose it is."""
    hub = Hub()
    channel, old = hub.join(SESSION, DEVICE)
    hub.from_client(channel, old, frame(1))
    hub.from_client(channel, old, frame(2))
    _channel, new = hub.join(SESSION, DEVICE)
    down.frames.clear()

    def resumes(stream: int) -> bytes:
        return Header(kind, SESSION, stream, 1 << 63, 0).pack() + bytes(33)

    assert hub.from_client(channel, new, resumes(1))
    assert old.close_code is None  # it still has one
    assert hub.from_client(channel, new, resumes(2))
    assert old.close_code == hubs.REPLACED
    assert [data for _device, data in down.frames] == [resumes(1), resumes(2)]
    hub.from_device(DEVICE, frame(1))
    assert taken(new) == [frame(1)]
    hub.leave(channel, old)
    hub.from_device(DEVICE, frame(2))
    assert taken(new) == [frame(2)]


async def test_a_session_has_few_clients() -> None:
    hub = Hub()
    for _ in range(hubs.MAX_CLIENTS):
        hub.join(SESSION, DEVICE)
    with pytest.raises(FrameRefusedError) as caught:
        hub.join(SESSION, DEVICE)
    assert caught.value.code == 4429


async def test_a_client_that_does_not_take_is_cut_and_others_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hubs, "MAX_QUEUED", 200)
    hub = Hub()
    channel, slow = hub.join(SESSION, DEVICE)
    _channel, quick = hub.join(OTHER, DEVICE)
    for n in range(4):
        hub.from_device(DEVICE, frame(n=n))
        hub.from_device(DEVICE, frame(session=OTHER, n=n))
        assert taken(quick) == [frame(session=OTHER, n=n)]
    assert slow.close_code == 4408
    assert await slow.closed() == 4408
    assert taken(slow) == []
    assert len(channel.clients) == 1  # until its websocket is closed


async def test_what_was_taken_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hubs, "MAX_QUEUED", 200)
    hub = Hub()
    _channel, client = hub.join(SESSION, DEVICE)
    for n in range(20):
        hub.from_device(DEVICE, frame(n=n))
        assert taken(client) == [frame(n=n)]


async def test_a_client_with_room_is_written_to_at_once() -> None:
    """And one whose transport fills up in the middle keeps the rest, in order."""
    hub = Hub()
    _channel, client = hub.join(SESSION, DEVICE)
    for n in range(3):  # before there is a transport
        hub.from_device(DEVICE, frame(n=n))
    written: list[bytes] = []

    def full_after_two(data: bytes) -> None:
        written.append(data)
        if len(written) == 2:
            client.pause()

    client.resume(full_after_two)
    assert written == [frame(n=0), frame(n=1)]
    hub.from_device(DEVICE, frame(n=3))
    client.resume(written.append)
    assert written == [frame(n=n) for n in range(4)]
    hub.from_device(DEVICE, frame(n=4))
    assert written[4:] == [frame(n=4)]
    client.close(4409)
    hub.from_device(DEVICE, frame(n=5))
    assert len(written) == 5


async def test_a_full_device_is_told_apart(down: Down) -> None:
    hub = Hub()
    channel, client = hub.join(SESSION, DEVICE)
    down.full = True
    assert not hub.from_client(channel, client, frame())
    assert channel.bytes_down == 0


async def test_the_end_closes_every_client_from_any_thread() -> None:
    hub = Hub()
    hub.end("5e" * 16)  # before anybody came: nothing to close
    channel, first = hub.join(SESSION, DEVICE)
    _channel, second = hub.join(SESSION, DEVICE)
    _other, untouched = hub.join(OTHER, DEVICE)
    await asyncio.to_thread(hub.end, "5e" * 16)
    async with asyncio.timeout(10):
        assert await first.closed() == 4409
        assert await second.closed() == 4409
    assert (first.close_code, untouched.close_code) == (4409, None)
    first.close(4400)
    assert first.close_code == 4409
    with pytest.raises(FrameRefusedError) as caught:
        hub.from_client(channel, first, frame())
    assert caught.value.code == 4409
    hub.from_device(DEVICE, frame())
    assert taken(first) == []


async def test_the_channel_goes_with_its_last_client() -> None:
    hub = Hub()
    channel, first = hub.join(SESSION, DEVICE)
    _channel, second = hub.join(SESSION, DEVICE)
    hub.leave(channel, first)
    assert hub.join(SESSION, DEVICE)[0] is channel
    hub.leave(channel, second)
    hub.leave(channel, channel.clients[0])
    hub.leave(channel, second)  # twice: nothing
    assert hub.join(SESSION, DEVICE)[0] is not channel


async def test_streams_remembered_of_a_client_are_bounded(
    down: Down, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hubs, "MAX_STREAMS", 4)
    hub = Hub()
    channel, client = hub.join(SESSION, DEVICE)
    for stream in range(1, 11):
        hub.from_client(channel, client, frame(stream))
    assert len(channel.owners) == len(client.streams) == 4
    assert len(down.frames) == 10


async def test_a_sink_takes_an_executions_frames() -> None:
    class Sink:
        device = DEVICE
        frames: list[bytes] = []

        def frame(self, data: bytes) -> None:
            self.frames.append(data)

    hub, sink = Hub(), Sink()
    hub.register(SESSION, sink)
    hub.from_device(DEVICE, frame())
    hub.from_device("device-0002", frame())
    assert sink.frames == [frame()]
    with pytest.raises(ValueError, match="already"):
        hub.register(SESSION, Sink())
    with pytest.raises(FrameRefusedError):  # no client joins a bundle
        hub.join(SESSION, DEVICE)
    hub.end("5e" * 16)
    hub.unregister(SESSION, Channel(SESSION, DEVICE))  # somebody else's: stays
    hub.unregister(SESSION, sink)
    hub.from_device(DEVICE, frame())
    assert len(sink.frames) == 1


async def test_a_joining_client_of_another_device_finds_nothing() -> None:
    hub = Hub()
    hub.join(SESSION, DEVICE)
    with pytest.raises(FrameRefusedError) as caught:
        hub.join(SESSION, "device-0002")
    assert caught.value.code == 4404
