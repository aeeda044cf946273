"""One end's books of one stream: what was sent, what arrived, and what may have to be sent again.

Nothing here seals or parses; `agent.wire.mux` does, and its theory of operation holds for this too.
"""

from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, IntEnum, auto
from heapq import merge

from agent.wire.frames import FrameType
from agent.wire.mux_events import ResetCode

MAX_KEPT = 1024  # sealed DATA frames of one stream kept until acknowledged
MAX_CONTROL = 256  # other frames of one stream kept until the peer is known to have them
MAX_PAST = 64  # streams that are over and whose last frames are kept
MAX_SKIPPED = 64  # stream numbers below the highest whose OPEN may still come
FIRST_RESUME = 1 << 63  # RESUME frames count from here, all others from 0: no nonce serves twice


class State(Enum):
    OFFERED = auto()  # client: OPEN is queued or sent
    ASKED = auto()  # device: OPEN came, no accept() yet
    RUNNING = auto()
    DRAINED = auto()  # running, and the peer has sent EOF


LEGAL: dict[State, frozenset[FrameType]] = {
    State.OFFERED: frozenset({FrameType.ACCEPT, FrameType.RESET, FrameType.RESUME}),
    State.ASKED: frozenset({FrameType.RESET, FrameType.RESUME}),
    State.RUNNING: frozenset(
        {FrameType.DATA, FrameType.CREDIT, FrameType.EOF, FrameType.RESET, FrameType.RESUME}
    ),
    State.DRAINED: frozenset({FrameType.CREDIT, FrameType.RESET, FrameType.RESUME}),
}
SENDING = (State.RUNNING, State.DRAINED)  # in which this side may send data


class ResumeKind(IntEnum):
    """What a RESUME wants. Each says which frame its sender takes next."""

    ASK = 0  # send me again what I lack, and tell me what you lack
    ANSWER = 1  # that is what I lack
    NOTE = 2  # you need not keep what came before


class Numbers:
    """Which stream numbers were used, by the epochs that make them. Bounded by the epochs there
    are, and by MAX_SKIPPED lower numbers that were never offered: their OPEN may still come."""

    def __init__(self) -> None:
        self._highest: dict[int, int] = {}  # of each epoch
        self._skipped: dict[int, None] = {}  # oldest first

    def highest(self, stream: int) -> int:
        """The highest number used in the epoch of this one, or 0."""
        return self._highest.get(stream >> 16, 0)

    def make(self, stream: int) -> None:
        """Use a number, and by that every lower one of its epoch."""
        self._highest[stream >> 16] = stream

    def is_used(self, stream: int) -> bool:
        return stream <= self.highest(stream) and stream not in self._skipped

    def use(self, stream: int) -> None:
        """Use a number that the peer made."""
        skipped, epoch = self._skipped, stream >> 16
        if stream in skipped:
            del skipped[stream]
            return
        after = max(self._highest.get(epoch, epoch << 16) + 1, stream - MAX_SKIPPED)
        skipped.update(dict.fromkeys(range(after, stream)))
        while len(skipped) > MAX_SKIPPED:
            del skipped[next(iter(skipped))]
        self._highest[epoch] = stream


class FaultError(Exception):
    """A sealed frame that its sender may not send: ends the stream."""

    def __init__(self, code: ResetCode) -> None:
        self.code = code


class Stream:
    """Both directions of one stream. Offsets count bytes from 0, numbers count frames."""

    __slots__ = (
        "acked",
        "again",
        "answer_to",
        "arrived",
        "ask_due",
        "asked",
        "bulk",
        "consumed",
        "control",
        "credit_due",
        "ending",
        "eof_acked",
        "eof_sent",
        "expected",
        "final_sent",
        "floor",
        "granted",
        "head",
        "heard",
        "id",
        "kept",
        "kept_control",
        "limit",
        "note_due",
        "number",
        "offer_due",
        "queue",
        "queued",
        "ready",
        "received",
        "reported",
        "resumes",
        "sent",
        "state",
        "unnoted",
        "unreported",
        "waiting",
    )

    def __init__(self, id: int, state: State, bulk: bool) -> None:
        self.id = id
        self.state = state
        self.bulk = bulk
        # sending
        self.number = 0  # of the next frame
        self.queue: deque[bytes | bytearray] = deque()  # plaintext not yet sealed
        self.head = 0  # bytes of queue[0] that are sealed already
        self.queued = 0
        self.sent = 0
        self.limit = 0  # offset up to which the peer lets us send
        self.acked = 0
        self.kept: deque[tuple[int, int, bytes]] = deque()  # number, end offset, sealed frame
        self.kept_control: deque[tuple[int, bytes]] = deque()  # OPEN, ACCEPT, CREDIT
        self.ending = False
        self.eof_sent = False
        self.eof_acked = False
        self.control: bytes | None = None  # payload of an OPEN or ACCEPT that is due
        self.waiting = False  # in the control queue
        self.ready = False  # in a data queue
        # receiving
        self.expected = 0  # number of the next frame
        self.received = 0
        self.consumed = 0
        self.reported = 0  # consumed, as last told to the peer
        self.granted = 0  # offset up to which the peer may send
        self.unreported: deque[int] = deque()  # ends of DATA frames that no CREDIT covers yet
        self.credit_due = False
        self.final_sent = False
        # resuming
        self.arrived = 0  # the peer is known to have every frame below this number
        self.floor = 0  # frames below this number cannot be sent again
        self.again: deque[bytes] = deque()  # to be sent again, before anything new
        self.resumes = FIRST_RESUME  # number of our next RESUME
        self.heard = FIRST_RESUME - 1  # number of the peer's last RESUME
        self.ask_due = False
        self.asked = 0  # number of our ASK that waits for its answer; 0: none
        self.offer_due = False  # the OPEN goes out again, before the ASK
        self.answer_to = 0  # number of the peer's ASK that waits for ours; 0: none
        self.note_due = False
        self.unnoted = 0  # CREDITs that came since our last NOTE

    def room(self) -> int:
        """Bytes that may be queued to send."""
        if self.ending or self.state not in SENDING:
            return 0
        return self.limit - self.sent - self.queued

    def over(self) -> bool:
        return self.eof_acked and self.final_sent

    @property
    def halted(self) -> bool:
        """No numbered frame may leave, or it would meet a gap: what the peer lacks comes first."""
        return bool(self.asked or self.ask_due)

    @property
    def resuming(self) -> bool:
        """A RESUME is due."""
        return self.ask_due or bool(self.answer_to) or self.note_due

    def keep_control(self, number: int, frame: bytes) -> None:
        """An honest peer says often enough what it has; of one that does not, the oldest frames
        are forgotten, and with them the way to resume."""
        self.kept_control.append((number, frame))
        if len(self.kept_control) > MAX_CONTROL:
            self.floor = self.kept_control.popleft()[0] + 1

    def used(self, acked: int) -> None:
        """The peer has used everything up to this offset; an EOF stays until it is answered."""
        kept, arrived = self.kept, 0
        while kept and kept[0][1] <= acked:
            arrived = kept.popleft()[0] + 1
        if arrived:
            self.has_arrived(arrived)

    def has_arrived(self, number: int) -> None:
        """The peer has every frame below this number."""
        if number > self.arrived:
            self.arrived = number
            self.offer_due = False
            while self.kept_control and self.kept_control[0][0] < number:
                self.kept_control.popleft()

    def rewind(self, expected: int) -> None:
        """Send again from the frame that the peer takes next. Raises FaultError."""
        self.has_arrived(expected)
        start = self.arrived  # it may have told more since than it says here
        if start < self.floor:
            raise FaultError(ResetCode.GAP)
        self.again = deque(frame for number, frame in self._since(start))

    def _since(self, start: int) -> Iterator[tuple[int, bytes]]:
        data = ((number, frame) for number, _end, frame in self.kept if number >= start)
        control = (each for each in self.kept_control if each[0] >= start)
        return merge(data, control)


@dataclass(slots=True)
class Past:
    """What is left of a stream that is over: the frames that end it for the peer."""

    frames: tuple[bytes, ...]
    heard: int  # number of the peer's last RESUME


class Graveyard:
    """The last frames of streams that are over, as the peer may have missed them. Bounded."""

    def __init__(self) -> None:
        self._past: OrderedDict[int, Past] = OrderedDict()

    def bury(self, stream: int, frames: tuple[bytes, ...], heard: int) -> None:
        if not frames:
            return
        self._past[stream] = Past(frames, heard)
        if len(self._past) > MAX_PAST:
            self._past.popitem(last=False)

    def get(self, stream: int) -> Past | None:
        return self._past.get(stream)

    def frames(self) -> Iterator[bytes]:
        for past in self._past.values():
            yield from past.frames
