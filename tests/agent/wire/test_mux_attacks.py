"""The multiplexer against a peer that breaks the rules, and a pipe in other hands (R-ACC-5).

Everything gives a Reset event or a MuxError; nothing crashes, and nothing grows without bound.
"""

import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.wire.frames import MAX_DATA, FrameType
from agent.wire.mux import Data, Mux, MuxError, Opened, Reset, ResetCode
from agent.wire.seal import Role
from tests.agent.wire.muxes import Pair, Rogue, seals
from tests.scale import scaled

OPEN = struct.pack(">BI", 0, 4096) + b"ssh"
ACCEPT = struct.pack(">I", 4096)


def credit(acked: int, window: int) -> bytes:
    return struct.pack(">QI", acked, window)


def victim(role: Role, *, running: bool = True, window: int = 4096) -> tuple[Mux, Rogue]:
    """A device with a rogue client or the other way round, stream 1 open between them."""
    client, device = seals()
    if role is Role.DEVICE:
        mux, rogue = Mux(device, window=window), Rogue(Role.CLIENT)
        assert mux.receive(rogue.frame(FrameType.OPEN, OPEN)) == [Opened(1, "ssh", False)]
        if running:
            mux.accept(1)
    else:
        mux, rogue = Mux(client, window=window), Rogue(Role.DEVICE)
        mux.open(1, "ssh")
        if running:
            mux.receive(rogue.frame(FrameType.ACCEPT, ACCEPT))
    drain(mux)
    return mux, rogue


def drain(mux: Mux) -> list[bytes]:
    frames = []
    while (frame := mux.next_frame()) is not None:
        frames.append(frame)
    return frames


def assert_cut(mux: Mux, frame: bytes, code: ResetCode) -> None:
    """The frame ends stream 1 here, and the peer is told."""
    assert mux.receive(frame) == [Reset(1, code, by_peer=False)]
    assert mux.streams == ()
    assert len(drain(mux)) == 1


@pytest.mark.parametrize("role", Role)
def test_a_peer_that_ignores_credit(role: Role) -> None:
    mux, rogue = victim(role)
    assert mux.receive(rogue.frame(FrameType.DATA, bytes(4096))) == [Data(1, bytes(4096))]
    assert_cut(mux, rogue.frame(FrameType.DATA, b"x", offset=4096), ResetCode.CREDIT)


def test_a_peer_that_floods_with_tiny_frames() -> None:
    mux, rogue = victim(Role.DEVICE)
    for at in range(1024):
        assert mux.receive(rogue.frame(FrameType.DATA, b"x", offset=at))
    assert_cut(mux, rogue.frame(FrameType.DATA, b"x", offset=1024), ResetCode.CREDIT)


@pytest.mark.parametrize(
    ("kind", "payload", "offset"),
    [
        (FrameType.DATA, b"", 0),
        (FrameType.DATA, b"x", 1),
        (FrameType.EOF, b"x", 0),
        (FrameType.EOF, b"", 1),
        (FrameType.ACCEPT, ACCEPT, 0),
        (FrameType.OPEN, OPEN, 0),
        (FrameType.CREDIT, b"", 0),
        (FrameType.CREDIT, credit(0, 8192) + b"x", 0),
        (FrameType.CREDIT, credit(0, 8192), 1),
        (FrameType.CREDIT, credit(1, 8192), 0),  # acknowledges what was never sent
        (FrameType.CREDIT, credit(0, 4095), 0),  # takes credit back
        (FrameType.CREDIT, credit(0, 2**31), 0),
        (FrameType.CREDIT, credit(2**64 - 1, 2**32 - 1), 0),
        (FrameType.CREDIT, credit(0, 0), 0),  # answers an EOF that was not sent
        (FrameType.RESET, b"", 0),
        (FrameType.RESET, b"abc", 0),
    ],
)
@pytest.mark.parametrize("role", Role)
def test_frames_that_make_no_sense(
    role: Role, kind: FrameType, payload: bytes, offset: int
) -> None:
    mux, rogue = victim(role)
    assert_cut(mux, rogue.frame(kind, payload, offset=offset), ResetCode.PROTOCOL)


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("kind", [FrameType.DATA, FrameType.CREDIT, FrameType.EOF])
def test_frames_before_acceptance(role: Role, kind: FrameType) -> None:
    mux, rogue = victim(role, running=False)
    payload = {FrameType.DATA: b"x", FrameType.CREDIT: credit(0, 8192)}.get(kind, b"")
    assert_cut(mux, rogue.frame(kind, payload), ResetCode.PROTOCOL)


@pytest.mark.parametrize("payload", [b"", struct.pack(">I", 0), struct.pack(">I", 2**32 - 1)])
def test_a_bad_accept(payload: bytes) -> None:
    mux, rogue = victim(Role.CLIENT, running=False)
    assert_cut(mux, rogue.frame(FrameType.ACCEPT, payload), ResetCode.PROTOCOL)


@pytest.mark.parametrize("kind", [FrameType.DATA, FrameType.EOF])
def test_frames_after_the_end(kind: FrameType) -> None:
    mux, rogue = victim(Role.DEVICE)
    mux.receive(rogue.frame(FrameType.EOF))
    payload = b"x" if kind is FrameType.DATA else b""
    assert_cut(mux, rogue.frame(kind, payload), ResetCode.PROTOCOL)


@pytest.mark.parametrize(
    "payload",
    [
        b"", OPEN[:5], OPEN[:4], struct.pack(">BI", 2, 4096) + b"ssh",
        struct.pack(">BI", 0, 0) + b"ssh", struct.pack(">BI", 0, 2**32 - 1) + b"ssh",
        struct.pack(">BI", 0, 4096) + b"127.0.0.1:22", struct.pack(">BI", 0, 4096) + b"ssh\n",
        struct.pack(">BI", 0, 4096) + b"s" * 33, struct.pack(">BI", 0, 4096) + b"\xff",
    ],
)  # fmt: skip
def test_a_bad_open_opens_nothing(payload: bytes) -> None:
    mux = Mux(seals()[1])
    with pytest.raises(MuxError) as refused:
        mux.receive(Rogue(Role.CLIENT).frame(FrameType.OPEN, payload))
    assert refused.value.code is ResetCode.PROTOCOL
    assert mux.streams == ()


def test_an_open_comes_first_and_once() -> None:
    mux, rogue = victim(Role.DEVICE)
    for frame, code in (
        (rogue.frame(FrameType.OPEN, OPEN, stream=2, number=1), ResetCode.PROTOCOL),
        (rogue.frame(FrameType.OPEN, OPEN, stream=0, number=0), ResetCode.REPLAY),
        (rogue.frame(FrameType.DATA, b"x", stream=9, number=0), ResetCode.PROTOCOL),
        (rogue.frame(FrameType.OPEN, OPEN, stream=1, number=0), ResetCode.REPLAY),
        (rogue.frame(FrameType.RESUME, b"", stream=1), ResetCode.PROTOCOL),
    ):
        with pytest.raises(MuxError) as refused:
            mux.receive(frame)
        assert refused.value.code is code
    mux.reset(1)
    with pytest.raises(MuxError):  # what is over is not opened again by its old frame
        mux.receive(rogue.frame(FrameType.OPEN, OPEN, stream=1, number=0))
    assert mux.streams == ()


def test_a_replay_changes_nothing() -> None:
    """R-ACC-5: whoever carries the frames may repeat any of them, at any time."""
    pair = Pair()
    pair.running()
    seen: list[bytes] = []
    pick = random.Random(5)
    got = b""
    for n in range(200):
        pair.client.send(1, bytes([n]) * 10)
        for frame in pair.flush(pair.client):
            for event in pair.device.receive(frame):
                assert isinstance(event, Data)
                got += event.data
                pair.device.consumed(1, len(event.data))
            seen.append(frame)
            with pytest.raises(MuxError) as refused:
                pair.device.receive(pick.choice(seen))
            assert refused.value.code is ResetCode.REPLAY
        for frame in pair.flush(pair.device):
            pair.client.receive(frame)
    assert got == b"".join(bytes([n]) * 10 for n in range(200))


@pytest.mark.parametrize("role", Role)
def test_a_bad_seal_changes_nothing(role: Role) -> None:
    mux, rogue = victim(role)
    frame = rogue.frame(FrameType.DATA, b"data")
    pick = random.Random(7)
    for _ in range(scaled(2000)):
        bent = bytearray(frame)
        bent[pick.randrange(len(bent))] ^= 1 << pick.randrange(8)
        try:
            assert mux.receive(bytes(bent)) == []  # a stream that this client does not have
        except MuxError as refused:
            assert refused.code in (ResetCode.SEAL, ResetCode.PROTOCOL)
    assert mux.receive(frame) == [Data(1, b"data")]


def test_frames_of_another_session_or_direction() -> None:
    mux, _ = victim(Role.DEVICE)
    own = Rogue(Role.DEVICE).frame(FrameType.DATA, b"x", number=1)
    with pytest.raises(MuxError) as refused:
        mux.receive(own)  # its own frame comes back
    assert refused.value.code is ResetCode.SEAL
    foreign = bytearray(own)
    foreign[4:20] = bytes(16)
    with pytest.raises(MuxError, match="another session"):
        mux.receive(bytes(foreign))


def test_a_flood_of_opens_is_refused_in_bounded_memory() -> None:
    mux, rogue = Mux(seals()[1], max_streams=4), Rogue(Role.CLIENT)
    opened, errors = 0, 0
    for stream in range(1, 1001):
        try:
            opened += len(mux.receive(rogue.frame(FrameType.OPEN, OPEN, stream=stream)))
        except MuxError as refused:
            assert refused.code is ResetCode.BUSY
            errors += 1
    assert opened == 4
    assert errors == 1000 - 4 - 8
    assert len(drain(mux)) == 8  # refusals; the four wait for accept()


def test_opening_and_cutting_at_once_leaves_nothing_behind() -> None:
    mux, rogue = Mux(seals()[1], max_streams=4), Rogue(Role.CLIENT)
    mux.hold_bulk = True
    bulk = struct.pack(">BI", 1, 65536) + b"ssh"
    for stream in range(1, 500):
        assert mux.receive(rogue.frame(FrameType.OPEN, bulk, stream=stream))
        mux.accept(stream)
        mux.send(stream, bytes(65536))
        mux.receive(rogue.frame(FrameType.RESET, b"\0\0", stream=stream))
        drain(mux)
    assert mux.streams == ()
    assert not mux._bulk
    assert not mux._control


def test_a_reset_of_a_later_version_is_a_reset() -> None:
    mux, rogue = victim(Role.CLIENT)
    frame = rogue.frame(FrameType.RESET, b"\xff\xff", number=77)  # even across a gap
    assert mux.receive(frame) == [Reset(1, ResetCode.INTERNAL, by_peer=True)]


@given(st.lists(st.tuples(
    st.sampled_from(FrameType), st.integers(0, 3), st.integers(0, 3),
    st.sampled_from([0, 0, 0, 1, 5, 4096, 2**64 - 1]),
    st.one_of(st.sampled_from([b"", OPEN, ACCEPT, credit(0, 9000), credit(5, 0), b"\0\1"]),
              st.binary(max_size=20)),
), max_size=30), st.sampled_from(Role))  # fmt: skip
@settings(max_examples=scaled(3000, at_least=50), deadline=None)
def test_any_sealed_frames_give_events_or_errors(
    frames: list[tuple[FrameType, int, int, int, bytes]], role: Role
) -> None:
    mux, rogue = victim(role)
    for kind, stream, jump, offset, payload in frames:
        number = rogue.numbers.get(stream, 0) + jump - 1 if jump else None
        try:
            frame = rogue.frame(
                kind, payload, stream=stream, offset=offset, number=max(number, 0) if jump else None
            )
            for event in mux.receive(frame):
                if isinstance(event, Opened):
                    mux.accept(event.stream)
                if isinstance(event, Data):
                    mux.consumed(event.stream, len(event.data))
        except MuxError:
            pass
        if writable := mux.writable(1):
            mux.send(1, bytes(min(writable, MAX_DATA)))
        drain(mux)
        assert len(mux.streams) <= 32
