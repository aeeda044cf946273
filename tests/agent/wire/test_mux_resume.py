"""RESUME: a pipe that loses what it held, at any point and on either leg, loses nothing (R-ACC-5).

`Legs` is the real shape: client, hub, device, and a link on each side of the hub that breaks by
itself. Only the end whose own link broke is told; the other learns of it from the frames.
"""

import contextlib
import random
import struct
from collections import deque
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.wire.frames import HEADER, FrameType, Header, parse
from agent.wire.mux import (
    Accepted,
    Acknowledged,
    Data,
    Ended,
    Event,
    Mux,
    MuxError,
    Opened,
    Reset,
    ResetCode,
)
from agent.wire.mux_stream import FIRST_RESUME, MAX_CONTROL, MAX_PAST, ResumeKind
from agent.wire.seal import Role, Seal
from tests.agent.wire.muxes import Pair, Rogue, seals
from tests.agent.wire.test_mux import pattern
from tests.agent.wire.test_mux_attacks import ACCEPT, OPEN, credit, drain, victim
from tests.scale import scaled

LEGS = ("client", "device")


def resume(kind: int, expected: int, to: int = 0) -> bytes:
    return struct.pack(">BQQ", kind, expected, to)


class WatchedSeal(Seal):
    """Fails when one nonce seals two texts: byte for byte the same frame is allowed."""

    def __init__(self, seal: Seal) -> None:
        self.__dict__.update(seal.__dict__)
        self.made: dict[tuple[int, int], bytes] = {}

    def close(self, header: Header, plaintext: bytes | bytearray | memoryview) -> bytes:
        frame = super().close(header, plaintext)
        assert self.made.setdefault((header.stream, header.number), frame) == frame
        return frame


@dataclass
class End:
    """A program on its mux: says what `pattern` says, and checks that it hears what was said."""

    mux: Mux
    is_client: bool
    said: dict[int, int] = field(default_factory=dict)
    heard: dict[int, int] = field(default_factory=dict)
    unused: dict[int, int] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    offered: list[int] = field(default_factory=list)
    dropped: int = 0

    def take(self, frame: bytes) -> None:
        try:
            events = self.mux.receive(frame)
        except MuxError as error:
            assert error.code is ResetCode.REPLAY  # sent twice: nothing worse comes from a break
            self.dropped += 1
            return
        for event in events:
            self.events.append(event)
            stream = event.stream
            if isinstance(event, Opened):
                self.offered.append(stream)
            elif isinstance(event, Data):
                start = self.heard.get(stream, 0)
                want = pattern(stream, str(not self.is_client), start, len(event.data))
                assert event.data == want
                self.heard[stream] = start + len(event.data)
                self.unused[stream] = self.unused.get(stream, 0) + len(event.data)

    def say(self, stream: int, amount: int) -> None:
        size, start = min(amount, self.mux.writable(stream)), self.said.get(stream, 0)
        if size:
            self.mux.send(stream, pattern(stream, str(self.is_client), start, size))
            self.said[stream] = start + size

    def use(self, stream: int, amount: int) -> None:
        size = min(amount, self.unused.get(stream, 0))
        self.mux.consumed(stream, size)
        self.unused[stream] = self.unused.get(stream, 0) - size


class Legs:
    """Client, hub and device, with two links that break."""

    def __init__(self, **options: int) -> None:
        ours, theirs = map(WatchedSeal, seals())
        self.ends = {
            "client": End(Mux(ours, **options), True),
            "device": End(Mux(theirs, **options), False),
        }
        # What is on its way, by the end that sent it: on its own link, then on the other's.
        self.near: dict[str, deque[bytes]] = {leg: deque() for leg in LEGS}
        self.far: dict[str, deque[bytes]] = {leg: deque() for leg in LEGS}
        self.up = dict.fromkeys(LEGS, True)
        self.next_stream = 0

    @staticmethod
    def other(leg: str) -> str:
        return LEGS[leg == "client"]

    def send(self, leg: str, most: int) -> None:
        while self.up[leg] and most and (frame := self.ends[leg].mux.next_frame()) is not None:
            self.near[leg].append(frame)
            most -= 1

    def carry(self, leg: str, most: int) -> None:
        """Move what this end sent, through the hub, which drops what it has no link for."""
        for _ in range(most):
            if self.far[leg]:
                self.ends[self.other(leg)].take(self.far[leg].popleft())
            if self.near[leg]:
                frame = self.near[leg].popleft()
                if self.up[self.other(leg)]:
                    self.far[leg].append(frame)

    def cut(self, leg: str) -> None:
        self.up[leg] = False
        self.near[leg].clear()
        self.far[self.other(leg)].clear()

    def heal(self, leg: str) -> None:
        if not self.up[leg]:
            self.up[leg] = True
            self.ends[leg].mux.resume()

    def settle(self, rounds: int = 400) -> None:
        """Both links are up: carry until nothing moves."""
        for leg in LEGS:
            self.heal(leg)
        for _ in range(rounds):
            for leg in LEGS:
                self.send(leg, 10_000)
                self.carry(leg, 10_000)
            if not any((*self.near.values(), *self.far.values())):
                return
        raise AssertionError("it never settles")

    def finish(self) -> None:
        """Say everything to the end: each stream that was not cut must be over, and whole."""
        client, device = self.ends["client"], self.ends["device"]
        self.settle()
        for _ in range(60):
            if not any(end.mux.streams for end in self.ends.values()):
                break
            while device.offered:
                device.mux.accept(device.offered.pop())
            self.settle()
            accepted = {e.stream for e in client.events if isinstance(e, Accepted)}
            for stream in set(client.mux.streams) - accepted:
                client.mux.ask(stream)
            for end in self.ends.values():
                for stream in end.mux.streams:
                    end.mux.end(stream)
                    end.use(stream, 10**9)
        assert client.mux.streams == device.mux.streams == ()
        cut = {e.stream for end in self.ends.values() for e in end.events if isinstance(e, Reset)}
        for one, two in ((client, device), (device, client)):
            for stream in set(one.said) - cut:
                assert two.heard.get(stream, 0) == one.said[stream]
            accepted = {e.stream for e in client.events if isinstance(e, Accepted)}
            assert {e.stream for e in one.events if isinstance(e, Ended)} >= accepted - cut
            assert {e.stream for e in one.events if isinstance(e, Acknowledged)} >= accepted - cut
        assert not client.mux.unanswered
        assert not device.mux.unanswered


_operation = st.tuples(
    st.sampled_from(
        ["open", "say", "say", "use", "use", "end", "send", "send", "carry", "carry", "carry",
         "cut", "heal", "reset", "accept"]
    ),
    st.sampled_from(LEGS),
    st.integers(1, 3),
    st.integers(1, 4000),
)  # fmt: skip


def act(legs: Legs, name: str, leg: str, stream: int, amount: int) -> None:
    end = legs.ends[leg]
    if name == "open" and len(legs.ends["client"].mux.streams) < 4:
        legs.next_stream += 1
        legs.ends["client"].mux.open(legs.next_stream, "web", bool(amount % 2))
    elif name == "accept" and legs.ends["device"].offered:
        legs.ends["device"].mux.accept(legs.ends["device"].offered.pop(0))
    elif name in ("say", "use"):
        getattr(end, name)(stream, amount)
    elif name == "end" and stream not in legs.ends["device"].offered:
        end.mux.end(stream)
    elif name == "reset" and amount % 17 == 0 and stream in end.mux.streams:
        end.events.append(Reset(stream, ResetCode.CANCELLED, by_peer=False))
        end.mux.reset(stream)
    elif name in ("send", "carry"):
        getattr(legs, name)(leg, amount % 9 + 1)
    elif name in ("cut", "heal"):
        getattr(legs, name)(leg)


@given(st.lists(_operation, max_size=150), st.integers(64, 4096))
@settings(max_examples=scaled(5000, at_least=100), deadline=None)
def test_nothing_is_lost_doubled_or_disordered_whatever_breaks(
    operations: list[tuple[str, str, int, int]], window: int
) -> None:
    legs = Legs(window=window, max_frame=1024)
    for operation in operations:
        act(legs, *operation)
    legs.finish()


def test_thousands_of_cuts_in_one_session() -> None:
    """The same on one long session, with breaks far more often than any network has."""
    pick = random.Random(11)
    legs = Legs(window=4096, max_frame=1024)
    names = ["say", "use", "send", "carry", "cut", "heal", "accept"]
    weights = [6, 6, 8, 16, 1, 3, 3]
    cuts = 0
    for count in range(scaled(200_000, at_least=10_000)):
        if count % 100 == 0:
            legs.settle()
            for end in legs.ends.values():
                end.mux.end(max(1, legs.next_stream - 2))
            act(legs, "open", "client", 0, count // 100)
        [name] = pick.choices(names, weights)
        leg, stream = pick.choice(LEGS), max(1, legs.next_stream - pick.randrange(4))
        cuts += name == "cut" and legs.up[leg]
        act(legs, name, leg, stream, pick.randrange(1, 3000))
    legs.finish()
    assert cuts > scaled(2000, at_least=100)
    assert legs.next_stream > scaled(300, at_least=15)
    assert sum(end.dropped for end in legs.ends.values()) > cuts / 50  # it did send again


def running() -> Pair:
    pair = Pair()
    pair.running()
    return pair


@pytest.mark.parametrize("teller", LEGS)
def test_both_ends_send_again_though_only_one_knows_of_the_break(teller: str) -> None:
    pair = running()
    pair.client.send(1, b"question")
    pair.device.send(1, b"answer")
    lost = [*pair.flush(pair.client), *pair.flush(pair.device)]
    {"client": pair.client, "device": pair.device}[teller].resume()
    heard = pair.settle()
    assert sorted(map(repr, heard)) == sorted(
        map(repr, [("device", Data(1, b"question")), ("client", Data(1, b"answer"))])
    )
    assert not pair.client.unanswered
    assert not pair.device.unanswered
    for frame in lost:  # and what was not lost but late
        for mux in (pair.client, pair.device):
            with pytest.raises(MuxError):
                mux.receive(frame)
    assert pair.settle() == []


def test_what_goes_again_is_byte_for_byte_what_went() -> None:
    pair = running()
    pair.client.send(1, bytes(50_000))
    pair.client.end(1)
    before = pair.flush(pair.client)
    pair.client.resume()
    [ask] = pair.flush(pair.client)
    assert parse(ask).type is FrameType.RESUME
    assert parse(ask).number == FIRST_RESUME
    pair.device.receive(ask)
    [answer] = pair.flush(pair.device)
    pair.client.receive(answer)
    assert pair.flush(pair.client) == before


def test_new_data_waits_behind_what_goes_again() -> None:
    pair = running()
    pair.client.send(1, b"first ")
    pair.flush(pair.client)  # lost
    pair.client.resume()
    pair.client.send(1, b"second")
    asked = pair.flush(pair.client)
    assert [parse(frame).type for frame in asked] == [FrameType.RESUME]
    assert pair.client.unanswered == (1,)
    pair.down.extend(asked)
    assert pair.settle() == [("device", Data(1, b"first ")), ("device", Data(1, b"second"))]


def test_an_open_that_was_lost_goes_again() -> None:
    pair = Pair()
    pair.client.open(1, "ssh")
    pair.flush(pair.client)
    pair.client.resume()
    assert [type(event) for _, event in pair.settle()] == [Opened, Accepted]


def test_an_open_that_was_lost_with_the_devices_pipe_goes_again_when_asked_for() -> None:
    pair = Pair()
    pair.client.open(1, "ssh")
    pair.client.ask(1)  # not sent yet: nothing to ask
    assert len(pair.flush(pair.client)) == 1
    pair.device.resume()  # it has never heard of the stream
    assert pair.settle() == []
    pair.client.ask(1)
    assert [type(event) for _, event in pair.settle()] == [Opened, Accepted]
    pair.client.ask(9)


def test_an_open_may_be_overtaken() -> None:
    pair = Pair()
    pair.client.open(1, "ssh")
    pair.client.open(2, "ssh")
    frames = pair.flush(pair.client)
    assert pair.device.receive(frames[1]) == [Opened(2, "ssh", False)]
    assert pair.device.receive(frames[0]) == [Opened(1, "ssh", False)]
    for again in frames:
        with pytest.raises(MuxError, match="before"):
            pair.device.receive(again)
    rogue, far = Rogue(Role.CLIENT), 70_000
    pair.device.receive(rogue.frame(FrameType.OPEN, OPEN, stream=far))
    with pytest.raises(MuxError, match="opened before"):  # so far back nothing is remembered
        pair.device.receive(rogue.frame(FrameType.OPEN, OPEN, stream=far - 65))
    assert len(pair.device._numbers._skipped) == 64


def test_an_acceptance_that_was_lost_goes_again() -> None:
    pair = Pair()
    pair.client.open(1, "ssh")
    for frame in pair.flush(pair.client):
        pair.device.receive(frame)
    pair.device.accept(1)
    pair.flush(pair.device)
    pair.client.resume()
    [offer, ask] = pair.flush(pair.client)
    with pytest.raises(MuxError, match="received before"):  # the OPEN had arrived
        pair.device.receive(offer)
    pair.down.append(ask)
    assert pair.settle() == [("client", Accepted(1))]


@pytest.mark.parametrize("teller", LEGS)
def test_the_end_of_a_stream_is_not_lost_with_the_pipe(teller: str) -> None:
    """RESET and the last CREDIT outlive their stream: the peer may wait for them for ever."""
    pair = running()
    pair.running(2)
    pair.client.reset(1)
    for mux in (pair.client, pair.device):
        mux.end(2)
    pair.down.extend(frame for frame in pair.flush(pair.client) if parse(frame).stream == 2)
    pair.settle()
    pair.running(3)
    for mux in (pair.client, pair.device):
        mux.end(3)
    for frame in pair.flush(pair.device):
        pair.client.receive(frame)
    for frame in pair.flush(pair.client):  # EOF and the CREDIT that answers
        pair.device.receive(frame)
    last = pair.flush(pair.device)
    for frame in last:  # over for the client
        pair.client.receive(frame)
    assert pair.client.streams == ()
    assert pair.device.streams == (1,)
    {"client": pair.client, "device": pair.device}[teller].resume()
    assert pair.settle() == [("device", Reset(1, ResetCode.CANCELLED, by_peer=True))]
    assert pair.device.streams == ()


def test_the_last_credit_goes_again() -> None:
    pair = running()
    for mux in (pair.client, pair.device):
        mux.end(1)
    for frame in pair.flush(pair.device):
        pair.client.receive(frame)
    for frame in pair.flush(pair.client):
        pair.device.receive(frame)
    pair.flush(pair.device)  # the device is over; its last word is lost
    assert pair.device.streams == ()
    assert pair.client.streams == (1,)
    pair.client.resume()  # the client's link broke; or
    assert pair.settle() == [("client", Acknowledged(1))]
    assert pair.client.streams == ()


def test_streams_that_are_over_leave_little_behind() -> None:
    pair = Pair()
    for stream in range(1, 500):
        pair.running(stream)
        pair.client.reset(stream)
        pair.settle()
    pair.client.resume()
    assert len(pair.flush(pair.client)) == MAX_PAST
    rogue = Rogue(Role.DEVICE)
    for number in range(1000):  # a peer that asks for the last one again and again
        ask = rogue.frame(FrameType.RESUME, resume(0, 0), stream=499, number=FIRST_RESUME + number)
        assert pair.client.receive(ask) == []
    assert len(pair.flush(pair.client)) <= 2 * MAX_PAST


def test_acknowledgements_are_kept_and_forgotten() -> None:
    """A side that only receives sends CREDITs that nothing in them acknowledges: NOTE does."""
    pair = Pair(window=1024)
    pair.running()
    for _ in range(1000):
        pair.client.send(1, bytes(pair.client.writable(1)))
        pair.settle()
    assert len(pair.device._streams[1].kept_control) <= 128
    pair.device.resume()
    assert pair.settle() == []
    pair.client.send(1, b"still")
    assert pair.settle() == [("device", Data(1, b"still"))]


# --- in other hands ------------------------------------------------------------------------------


@pytest.mark.parametrize("role", Role)
def test_a_resume_that_was_not_sealed_by_the_peer_changes_nothing(role: Role) -> None:
    """R-ACC-5: forged, reflected, bent, or moved to another stream."""
    mux, rogue = victim(role)
    mux.resume()
    [own] = drain(mux)
    real = rogue.frame(FrameType.RESUME, resume(0, 1), number=FIRST_RESUME)
    pick = random.Random(3)
    forged = [own, real[: HEADER.size] + bytes(len(real) - HEADER.size)]
    for _ in range(scaled(2000)):
        bent = bytearray(real)
        bent[pick.randrange(len(bent))] ^= 1 << pick.randrange(8)
        forged.append(bytes(bent))
    for frame in forged:
        try:
            assert mux.receive(frame) == []
        except MuxError as refused:
            assert refused.code in (ResetCode.SEAL, ResetCode.PROTOCOL)
    assert mux.unanswered == (1,)
    assert drain(mux) == []
    assert mux.receive(real) == []
    assert not mux.unanswered


def test_a_resume_that_is_replayed_changes_nothing() -> None:
    pair = running()
    pair.client.send(1, b"x" * 100)
    sent = pair.flush(pair.client)
    pair.client.resume()
    pair.device.resume()
    [ask] = pair.flush(pair.client)
    [question] = pair.flush(pair.device)
    pair.device.receive(ask)
    pair.client.receive(question)
    answers = [*pair.flush(pair.device), *pair.flush(pair.client)]
    for mux, frames in ((pair.device, [ask]), (pair.client, [question])):
        for frame in frames * 3:
            with pytest.raises(MuxError) as refused:
                mux.receive(frame)
            assert refused.value.code is ResetCode.REPLAY
            assert mux.next_frame() is None
    assert sent[0] in answers  # once: the ASK brought it


def test_a_stale_answer_does_not_rewind() -> None:
    """An answer to an older question may come behind newer data: only the last one counts."""
    pair = running()
    pair.client.resume()
    [first] = pair.flush(pair.client)
    pair.device.receive(first)
    [old] = pair.flush(pair.device)
    pair.client.resume()
    [second] = pair.flush(pair.client)
    pair.client.receive(old)
    assert pair.client.unanswered == (1,)
    pair.device.receive(second)
    pair.up.extend(pair.flush(pair.device))
    assert pair.settle() == []
    assert not pair.client.unanswered


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize(
    ("payload", "offset"),
    [
        (b"", 0),
        (resume(0, 0) + b"x", 0),
        (resume(0, 0), 1),
        (resume(3, 0), 0),
        (resume(255, 0), 0),
        (resume(0, 2), 0),  # more than was ever sent
        (resume(1, 2**64 - 1), 0),
    ],
)
def test_a_resume_that_makes_no_sense(role: Role, payload: bytes, offset: int) -> None:
    mux, rogue = victim(role)
    frame = rogue.frame(FrameType.RESUME, payload, offset=offset, number=FIRST_RESUME)
    assert mux.receive(frame) == [Reset(1, ResetCode.PROTOCOL, by_peer=False)]
    assert len(drain(mux)) == 1


@pytest.mark.parametrize(
    ("kind", "number"), [(FrameType.RESUME, 5), (FrameType.DATA, FIRST_RESUME)]
)
def test_the_two_counts_do_not_mix(kind: FrameType, number: int) -> None:
    mux, rogue = victim(Role.DEVICE)
    with pytest.raises(MuxError, match="number"):
        mux.receive(rogue.frame(kind, resume(0, 0), number=number))
    assert mux.streams == (1,)


def test_a_peer_that_asks_for_what_it_has_said_to_have() -> None:
    """Older than what it acknowledged since: sent from there on, as a late question may come."""
    mux, rogue = victim(Role.DEVICE, window=65536)
    mux.send(1, bytes(4000))
    [_data] = drain(mux)
    mux.receive(rogue.frame(FrameType.CREDIT, credit(4000, 4096)))
    assert mux.receive(rogue.frame(FrameType.RESUME, resume(0, 0), number=FIRST_RESUME)) == []
    assert [parse(frame).type for frame in drain(mux)] == [FrameType.RESUME]


def test_a_peer_that_never_says_what_it_has() -> None:
    """Kept CREDITs are bounded; who asks for one that is gone loses the stream."""
    mux, rogue = victim(Role.DEVICE, window=1024)
    for at in range(2 * MAX_CONTROL):
        mux.receive(rogue.frame(FrameType.DATA, bytes(1024), offset=1024 * at))
        mux.consumed(1, 1024)
        drain(mux)
    assert len(mux._streams[1].kept_control) == MAX_CONTROL
    ask = rogue.frame(FrameType.RESUME, resume(0, 1), number=FIRST_RESUME)
    assert mux.receive(ask) == [Reset(1, ResetCode.GAP, by_peer=False)]


def test_a_flood_of_questions_is_answered_in_bounded_memory() -> None:
    mux, rogue = victim(Role.DEVICE)
    mux.send(1, bytes(4096))
    drain(mux)
    for number in range(1000):
        ask = rogue.frame(FrameType.RESUME, resume(0, 0), number=FIRST_RESUME + number)
        assert mux.receive(ask) == []
    assert [parse(frame).type for frame in drain(mux)] == [
        FrameType.RESUME, FrameType.ACCEPT, FrameType.DATA,
    ]  # fmt: skip


def test_a_question_about_a_stream_that_never_was() -> None:
    mux = Mux(seals()[1])
    ask = Rogue(Role.CLIENT).frame(FrameType.RESUME, resume(0, 0), number=FIRST_RESUME)
    with pytest.raises(MuxError, match="never opened"):
        mux.receive(ask)
    assert mux.next_frame() is None


@given(st.lists(st.tuples(
    st.sampled_from(FrameType), st.integers(0, 3), st.sampled_from([0, 1, 2, 5]),
    st.one_of(st.sampled_from([b"", OPEN, ACCEPT, credit(0, 9000), b"\0\1"]),
              st.builds(resume, st.sampled_from([*ResumeKind, 9]), st.integers(0, 3),
                        st.sampled_from([0, FIRST_RESUME, 2**64 - 1]))),
    st.booleans(),
), max_size=40), st.sampled_from(Role))  # fmt: skip
@settings(max_examples=scaled(3000, at_least=50), deadline=None)
def test_any_sealed_frames_with_resumes_give_events_or_errors(
    frames: list[tuple[FrameType, int, int, bytes, bool]], role: Role
) -> None:
    mux, rogue = victim(role)
    for count, (kind, stream, number, payload, broken) in enumerate(frames):
        base = FIRST_RESUME + count if kind is FrameType.RESUME else 0
        with contextlib.suppress(MuxError):
            mux.receive(rogue.frame(kind, payload, stream=stream, number=base + number))
        if broken:
            mux.resume()
        if writable := mux.writable(1):
            mux.send(1, bytes(min(writable, 3000)))
        assert len(drain(mux)) < 200


def test_a_reset_whose_open_was_lost_ends_what_never_began() -> None:
    """The client gives up before it knows that nobody heard it; its number is used all the same."""
    pair = Pair()
    pair.client.open(1, "ssh")
    lost = pair.client.next_frame()
    assert lost is not None
    pair.client.reset(1)
    reset = pair.client.next_frame()
    assert reset is not None
    assert pair.device.receive(reset) == []
    with pytest.raises(MuxError) as caught:
        pair.device.receive(lost)
    assert caught.value.code is ResetCode.REPLAY
