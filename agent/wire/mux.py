"""The stream multiplexer: many byte streams in one sealed session. Pure: frames in, events out.

Theory of operation
-------------------
Two ends share a `Seal`. The CLIENT (the specialist's program, or the portal for a bundle) opens
streams; the DEVICE accepts or resets them. Whatever carries the frames is a pipe: it may stop, and
it may lose anything, but it keeps order. The owner of a Mux moves bytes and nothing else:

    for each frame that arrives:    for event in mux.receive(frame): …
    whenever the pipe has room:     while (frame := mux.next_frame()): pipe.write(frame)
    to send on a stream:            mux.send(stream, data[: mux.writable(stream)])
    when data has been used:        mux.consumed(stream, len(data))
    when the pipe was made again:   mux.resume()
    when an OPEN has no answer:     mux.ask(stream)

Life of a stream, by the frames that its peer may send (`mux_stream.LEGAL`):

    client   open() ──OPEN──▶ OFFERED ──◀ACCEPT── RUNNING ──◀EOF── DRAINED
    device   ──▶OPEN── ASKED ── accept() ──ACCEPT──▶ RUNNING ──◀EOF── DRAINED

Each direction ends by itself (half-close). A stream is over when both ends have sent EOF and
each has said that it used everything up to the other's EOF; or at once with RESET.

Credit. A sender may have `window` bytes on the way that its peer has not yet used; CREDIT(acked,
window) says how many bytes were used and how many more may follow. `send` takes no more than the
credit, so credit bounds every queue here: plaintext waiting, sealed frames kept for the peer's
word and, on the other side, data not yet consumed. No more than MAX_KEPT DATA frames of a stream
may lack an acknowledgement, so tiny writes gather into larger frames. CREDIT with window 0 answers
EOF: all of it arrived and was used.

Order. Each direction of each stream numbers its frames from 0; frames are sealed when they leave,
so numbers follow the order on the pipe. The receiver takes exactly the next number. A number seen
before is a replay and changes nothing. A gap means that the pipe lost something: what comes after
it is dropped, and the receiver asks for the rest. RESET alone may come after a gap, as it ends the
stream anyway.

Resume. Every numbered frame is kept as it was sealed until the peer is known to have it: DATA and
EOF by CREDIT, the others by what came after them and by RESUME. RESUME(kind, expected, to) says
which number its sender takes next:

    ASK     "send again from `expected`, and tell me what you lack": after a gap, and on every
            stream when an end's pipe was made again
    ANSWER  the same of the other end, to the ASK with number `to`
    NOTE    "you need not keep what came before `expected`": after every _NOTE_FRAMES CREDITs,
            which nothing else may acknowledge

An end that asked sends no numbered frame of that stream until it has an ANSWER, or the peer's own
ASK (which says as much; its answer may have been lost with the pipe). Whoever hears ASK or ANSWER
sends again what the other lacks, byte for byte and in order, before anything new. Both may ask at
once, and again whenever a pipe breaks: what was sent twice is a replay. So it is enough that each
end asks when *its* pipe was made again; the other end need not know that anything broke. An OPEN
that nobody answered goes out again before its ASK, and the last frames of streams that are over go
out again as well (of the last MAX_PAST), as the peer may wait for them.

RESUME has numbers of its own, from 2^63 up, never twice in one direction of a stream: its nonce is
no other frame's. It counts when its number is above that of the last one, whatever was lost, so
that a replay is nothing; it is sealed like every frame, so nobody on the way can make one, and
one that comes back to its sender was sealed with the wrong key. An ASK without an answer (a peer
that is gone) is the owner's to give up: see `unanswered`.

Fairness. `next_frame` serves control (OPEN, ACCEPT, CREDIT, RESET, RESUME) before interactive
streams, and those before bulk ones, and takes turns within each.

Stream numbers are never used twice within a session, since a number is half of the nonce: a client
process takes an epoch (16 bits, persisted by the caller) and counts below it. The device remembers
the highest count of each epoch and refuses what is not above it, but for the last _MAX_SKIPPED that
it was not offered: their OPEN may have been lost, and be overtaken by another when it goes again.

Faults. What the peer sealed but may not do resets the stream: a `Reset` event here, a RESET there.
What the peer did not seal, or cannot be attributed to a stream, raises MuxError and changes no
state, as anyone on the way can make such a frame. LocalError is a mistake of this side's caller.
"""

import re
import struct
from collections import deque

from agent.wire.frames import MAX_DATA, FrameError, FrameType, Header, parse
from agent.wire.mux_events import (
    Accepted,
    Acknowledged,
    Credited,
    Data,
    Ended,
    Event,
    LocalError,
    MuxError,
    Opened,
    Reset,
    ResetCode,
)
from agent.wire.mux_stream import (
    FIRST_RESUME,
    LEGAL,
    MAX_KEPT,
    MAX_PAST,
    SENDING,
    FaultError,
    Graveyard,
    Past,
    ResumeKind,
    State,
    Stream,
)
from agent.wire.seal import Role, Seal, SealError

__all__ = [
    "Accepted",
    "Acknowledged",
    "Credited",
    "Data",
    "Ended",
    "Event",
    "LocalError",
    "Mux",
    "MuxError",
    "Opened",
    "Reset",
    "ResetCode",
]

DEFAULT_WINDOW = 1024 * 1024  # bytes
MAX_WINDOW = 16 * 1024 * 1024  # bytes; what a peer may grant
MIN_FRAME = 1024  # bytes of data in a frame, at least
_CREDIT_FRAMES = 64  # acknowledge at least this often; far below MAX_KEPT, so that it never blocks
_NOTE_FRAMES = 64  # CREDITs taken before the peer is told so; far below MAX_CONTROL
_MAX_SKIPPED = 64
_SMALL = 16 * 1024  # bytes; smaller writes are gathered while they wait
_MAX_STREAM = 2**32 - 1

_OPEN = struct.Struct(">BI")  # flags (bit 0: bulk), window; the service's name follows
_ACCEPT = struct.Struct(">I")  # window
_CREDIT = struct.Struct(">QI")  # bytes used, window beyond them
_RESET = struct.Struct(">H")  # ResetCode
_RESUME = struct.Struct(">BQQ")  # ResumeKind, number taken next, number of the ASK answered or 0
_SERVICE = re.compile(rb"[a-z][a-z0-9-]{0,31}")


class Mux:
    """One end of a sealed session's streams. Not thread-safe; one owner.

    `window` is the credit given to the peer on each stream, in bytes; `max_frame` the most data put
    in a frame, in bytes, and may be changed at any time within MIN_FRAME and MAX_DATA.
    """

    def __init__(
        self,
        seal: Seal,
        *,
        window: int = DEFAULT_WINDOW,
        max_streams: int = 32,
        max_frame: int = MAX_DATA,
    ) -> None:
        if not 1 <= window <= MAX_WINDOW:
            raise LocalError(f"a window has 1 to {MAX_WINDOW} bytes")
        if not MIN_FRAME <= max_frame <= MAX_DATA:
            raise LocalError(f"a frame has {MIN_FRAME} to {MAX_DATA} bytes of data")
        self.max_frame = max_frame
        self.hold_bulk = False  # true: next_frame sends no data of bulk streams
        self.hold_data = False  # true: of no stream; control goes on
        self._seal = seal
        self._window = window
        self._max_streams = max_streams
        self._streams: dict[int, Stream] = {}
        self._highest: dict[int, int] = {}  # of each epoch, the highest stream seen or made
        self._skipped: dict[int, None] = {}  # lower ones that were never offered, oldest first
        self._resets: deque[bytes] = deque()  # sealed
        self._repeats: deque[bytes] = deque()  # last frames of streams that are over
        self._past = Graveyard()
        self._control: deque[Stream] = deque()
        self._interactive: deque[Stream] = deque()
        self._bulk: deque[Stream] = deque()

    # --- what the owner may ask and do ----------------------------------------------------------

    @property
    def streams(self) -> tuple[int, ...]:
        """The streams that are not over."""
        return tuple(self._streams)

    @property
    def kept_bytes(self) -> int:
        """Bytes sent and not yet acknowledged, all streams."""
        return sum(stream.sent - stream.acked for stream in self._streams.values())

    def open(self, stream: int, service: str, bulk: bool = False) -> None:
        """Ask the device for a service. Client only. Raises LocalError when the number was used
        before, is out of range, the name is none, or `max_streams` are open."""
        name = service.encode()
        if self._seal.role is not Role.CLIENT:
            raise LocalError("only the client opens streams")
        if not _SERVICE.fullmatch(name):
            raise LocalError("a service's name is lower-case letters, digits and hyphens")
        if not 1 <= stream <= _MAX_STREAM or stream <= self._highest.get(stream >> 16, 0):
            raise LocalError(f"stream number {stream} is out of range or was used before")
        if self._full():
            raise LocalError(f"{self._max_streams} streams are open, which is the limit")
        self._highest[stream >> 16] = stream
        it = Stream(stream, State.OFFERED, bulk)
        it.granted = self._window
        it.control = _OPEN.pack(int(bulk), self._window) + name
        self._streams[stream] = it
        self._want_control(it)

    def accept(self, stream: int) -> None:
        """Take the stream that Opened announced. Device only. No effect when it is gone by now;
        raises LocalError when it was accepted before."""
        it = self._streams.get(stream)
        if it is None:
            return
        if it.state is not State.ASKED:
            raise LocalError(f"stream {stream} was not offered, or was accepted before")
        it.state = State.RUNNING
        it.granted = self._window
        it.control = _ACCEPT.pack(self._window)
        self._want_control(it)
        if it.ending:
            self._want_data(it)

    def writable(self, stream: int) -> int:
        """Bytes that send() takes now; 0 when the stream is unknown, ended or not accepted."""
        it = self._streams.get(stream)
        if it is None or it.ending or it.state not in SENDING:
            return 0
        return it.limit - it.sent - it.queued

    def send(self, stream: int, data: bytes | bytearray | memoryview) -> None:
        """Queue at most writable() bytes, large `bytes` uncopied. Raises LocalError for more."""
        size = len(data)
        if size > self.writable(stream):
            raise LocalError(f"stream {stream} takes {self.writable(stream)} bytes, not {size}")
        if not size:
            return
        it = self._streams[stream]
        queue = it.queue
        last = queue[-1] if queue else None
        if isinstance(last, bytearray) and len(last) + size <= self.max_frame:
            last += data
        elif size < _SMALL:
            queue.append(bytearray(data))
        else:
            queue.append(bytes(data))
        it.queued += size
        self._want_data(it)

    def end(self, stream: int) -> None:
        """Send EOF after what is queued. No effect on a stream that is gone or ended."""
        it = self._streams.get(stream)
        if it is None or it.ending:
            return
        it.ending = True
        if it.state in SENDING:
            self._want_data(it)

    def reset(self, stream: int, code: ResetCode = ResetCode.CANCELLED) -> None:
        """Cut both directions and drop what is queued. No effect on a stream that is gone."""
        it = self._streams.get(stream)
        if it is None:
            return
        self._forget(it)
        if it.number or self._seal.role is Role.DEVICE:  # else the peer never heard of it
            self._refuse(stream, it.number, code, it.heard)

    def consumed(self, stream: int, size: int) -> None:
        """Say that `size` bytes of Data were used, so that the peer may send as many more. No
        effect on a stream that is gone. Raises LocalError for more than was received."""
        it = self._streams.get(stream)
        if it is None:
            return
        if not 0 <= size <= it.received - it.consumed:
            raise LocalError(f"stream {stream} has not received that much")
        it.consumed += size
        self._consider_credit(it)

    def resume(self) -> None:
        """The pipe was made again: find out what both ends lack, on every stream."""
        self._repeats = deque(self._past.frames())
        for it in self._streams.values():
            if it.number or self._seal.role is Role.DEVICE:  # else the peer never heard of it
                self._ask(it)

    def ask(self, stream: int) -> None:
        """The same of one stream: of an OPEN that was lost with the device's pipe only its sender
        knows. No effect on a stream that is gone, or of which nothing has left."""
        it = self._streams.get(stream)
        if it is not None and it.number:
            self._ask(it)

    @property
    def unanswered(self) -> tuple[int, ...]:
        """Streams that stand still until the peer answers."""
        return tuple(it.id for it in self._streams.values() if it.halted)

    # --- frames in --------------------------------------------------------------------------------

    def receive(self, frame: bytes) -> list[Event]:
        """Take a frame from the pipe. Raises MuxError, and changes nothing, when it must not be.

        Frames of streams that are over, and of another client process's streams, give no events.
        """
        try:
            header = parse(frame)
            if header.session != self._seal.session:
                raise MuxError(ResetCode.SEAL, "the frame belongs to another session")
            it = self._streams.get(header.stream)
            past = self._past.get(header.stream) if header.type is FrameType.RESUME else None
            if it is None and past is None and self._is_late(header):
                return []
            header, payload = self._seal.open(frame)
        except FrameError as error:
            raise MuxError(ResetCode.PROTOCOL, str(error)) from error
        except SealError as error:
            raise MuxError(ResetCode.SEAL, str(error)) from error
        if (header.number >= FIRST_RESUME) is not (header.type is FrameType.RESUME):
            raise MuxError(ResetCode.PROTOCOL, "a number that this type does not have")
        if it is None:
            return self._receive_past(past, header) if past else self._receive_open(header, payload)
        seen = it.heard + 1 if header.type is FrameType.RESUME else it.expected
        if header.number < seen:
            raise MuxError(ResetCode.REPLAY, f"frame {header.number} was received before")
        try:
            return self._receive_on(it, header, payload)
        except FaultError as fault:
            self.reset(it.id, fault.code)
            return [Reset(it.id, fault.code, by_peer=False)]

    def _is_late(self, header: Header) -> bool:
        """Whether a frame of an unknown stream is to be dropped without a word."""
        if self._seal.role is Role.CLIENT:
            return True
        if header.type is FrameType.OPEN:
            return False
        return self._was_offered(header.stream)

    def _was_offered(self, stream: int) -> bool:
        return stream <= self._highest.get(stream >> 16, 0) and stream not in self._skipped

    def _note_offered(self, stream: int) -> None:
        skipped, epoch = self._skipped, stream >> 16
        if stream in skipped:
            del skipped[stream]
            return
        after = max(self._highest.get(epoch, epoch << 16) + 1, stream - _MAX_SKIPPED)
        skipped.update(dict.fromkeys(range(after, stream)))
        while len(skipped) > _MAX_SKIPPED:
            del skipped[next(iter(skipped))]
        self._highest[epoch] = stream

    def _receive_open(self, header: Header, payload: bytes) -> list[Event]:
        stream = header.stream
        if header.type is not FrameType.OPEN:
            raise MuxError(ResetCode.PROTOCOL, f"stream {stream} was never opened")
        if not stream or self._was_offered(stream):
            raise MuxError(ResetCode.REPLAY, f"stream {stream} was opened before")
        if header.number or header.offset or len(payload) < _OPEN.size:
            raise MuxError(ResetCode.PROTOCOL, "a bad OPEN")
        flags, window = _OPEN.unpack_from(payload)
        service = payload[_OPEN.size :]
        if flags > 1 or not 1 <= window <= MAX_WINDOW or not _SERVICE.fullmatch(service):
            raise MuxError(ResetCode.PROTOCOL, "a bad OPEN")
        if self._full():
            if len(self._resets) >= 2 * self._max_streams:  # it does not even read our refusals
                raise MuxError(ResetCode.BUSY, "too many streams")
            self._note_offered(stream)
            self._refuse(stream, 0, ResetCode.BUSY, FIRST_RESUME - 1)
            return []
        self._note_offered(stream)
        it = Stream(stream, State.ASKED, bool(flags))
        it.expected = 1
        it.limit = window
        self._streams[stream] = it
        return [Opened(stream, service.decode(), it.bulk)]

    def _receive_on(self, it: Stream, header: Header, payload: bytes) -> list[Event]:
        kind = header.type
        if kind is FrameType.RESET:
            return self._receive_reset(it, payload)
        if kind is FrameType.RESUME:
            return self._receive_resume(it, header, payload)
        if header.number != it.expected:
            if not it.halted:
                self._ask(it)
            return []
        if kind not in LEGAL[it.state]:
            raise FaultError(ResetCode.PROTOCOL)
        it.expected += 1
        if kind is FrameType.DATA:
            return self._receive_data(it, header.offset, payload)
        if kind is FrameType.CREDIT:
            return self._receive_credit(it, header.offset, payload)
        if kind is FrameType.EOF:
            return self._receive_eof(it, header.offset, payload)
        return self._receive_accept(it, header.offset, payload)

    def _receive_data(self, it: Stream, offset: int, payload: bytes) -> list[Event]:
        size = len(payload)
        if not size or offset != it.received:
            raise FaultError(ResetCode.PROTOCOL)
        if offset + size > it.granted or len(it.unreported) >= MAX_KEPT:
            raise FaultError(ResetCode.CREDIT)
        it.received += size
        it.unreported.append(it.received)
        return [Data(it.id, payload)]

    def _receive_credit(self, it: Stream, offset: int, payload: bytes) -> list[Event]:
        if offset or len(payload) != _CREDIT.size:
            raise FaultError(ResetCode.PROTOCOL)
        acked, window = _CREDIT.unpack(payload)
        if not it.acked <= acked <= it.sent or window > MAX_WINDOW:
            raise FaultError(ResetCode.PROTOCOL)
        if not window:
            if not it.eof_sent or acked != it.sent or it.eof_acked:
                raise FaultError(ResetCode.PROTOCOL)
            it.acked = acked
            it.used(acked + 1)
            it.eof_acked = True
            self._forget_if_over(it)
            return [Acknowledged(it.id)]
        if it.eof_acked or acked + window < it.limit:  # credit once given is not taken back
            raise FaultError(ResetCode.PROTOCOL)
        it.acked = acked
        it.limit = acked + window
        it.used(acked)
        it.unnoted += 1
        if it.unnoted >= _NOTE_FRAMES:
            it.note_due = True
            self._want_control(it)
        if it.queue or it.ending:
            self._want_data(it)
        return [] if it.ending else [Credited(it.id)]

    def _receive_eof(self, it: Stream, offset: int, payload: bytes) -> list[Event]:
        if payload or offset != it.received:
            raise FaultError(ResetCode.PROTOCOL)
        it.state = State.DRAINED
        self._consider_credit(it)
        return [Ended(it.id)]

    def _receive_accept(self, it: Stream, offset: int, payload: bytes) -> list[Event]:
        if offset or len(payload) != _ACCEPT.size:
            raise FaultError(ResetCode.PROTOCOL)
        (window,) = _ACCEPT.unpack(payload)
        if not 1 <= window <= MAX_WINDOW:
            raise FaultError(ResetCode.PROTOCOL)
        it.state = State.RUNNING
        it.limit = window
        it.has_arrived(1)
        if it.ending:
            self._want_data(it)
        return [Accepted(it.id)]

    def _receive_resume(self, it: Stream, header: Header, payload: bytes) -> list[Event]:
        if header.offset or len(payload) != _RESUME.size:
            raise FaultError(ResetCode.PROTOCOL)
        kind, expected, to = _RESUME.unpack(payload)
        if expected > it.number or kind > max(ResumeKind):
            raise FaultError(ResetCode.PROTOCOL)
        it.heard = header.number
        if kind == ResumeKind.NOTE or (kind == ResumeKind.ANSWER and to != it.asked):
            it.has_arrived(expected)  # an answer to an older question tells no more than that
            return []
        if kind == ResumeKind.ASK:
            it.answer_to = header.number
        it.asked = 0  # an ASK says what an answer would, and ours may have been lost
        it.rewind(expected)
        self._revive(it)
        return []

    def _receive_past(self, past: Past, header: Header) -> list[Event]:
        """The peer lacks the end of a stream that is over here."""
        if header.number <= past.heard:
            raise MuxError(ResetCode.REPLAY, f"frame {header.number} was received before")
        past.heard = header.number
        if len(self._repeats) <= MAX_PAST:
            self._repeats.extend(past.frames)
        return []

    def _receive_reset(self, it: Stream, payload: bytes) -> list[Event]:
        if len(payload) != _RESET.size:
            raise FaultError(ResetCode.PROTOCOL)
        self._forget(it)
        (number,) = _RESET.unpack(payload)
        try:
            code = ResetCode(number)
        except ValueError:  # a code of a later version
            code = ResetCode.INTERNAL
        return [Reset(it.id, code, by_peer=True)]

    # --- frames out -------------------------------------------------------------------------------

    def next_frame(self) -> bytes | None:
        """The next frame for the pipe, or None when there is nothing to send now."""
        for line in (self._resets, self._repeats):
            if line:
                return line.popleft()
        while self._control:
            it = self._control.popleft()
            it.waiting = False
            if (frame := self._control_frame(it)) is not None:
                return frame
        if self.hold_data:
            return None
        if (frame := self._turn(self._interactive)) is not None:
            return frame
        return None if self.hold_bulk else self._turn(self._bulk)

    def _control_frame(self, it: Stream) -> bytes | None:
        if it.resuming:
            frame = self._resume_frame(it)
            self._want_control(it)  # for what else is due
            return frame
        if it.halted or it.again:  # `_revive` and `_turn` put it back in line
            return None
        if it.control is not None:
            opener = self._seal.role is Role.CLIENT
            payload, it.control = it.control, None
            if it.credit_due:
                self._want_control(it)
            return self._kept(it, FrameType.OPEN if opener else FrameType.ACCEPT, payload)
        if not it.credit_due:
            return None
        it.credit_due = False
        it.reported = it.consumed
        while it.unreported and it.unreported[0] <= it.consumed:
            it.unreported.popleft()
        it.final_sent = self._is_drained(it)
        window = 0 if it.final_sent else self._window
        it.granted = it.consumed + window
        frame = self._kept(it, FrameType.CREDIT, _CREDIT.pack(it.consumed, window))
        self._forget_if_over(it)
        return frame

    def _resume_frame(self, it: Stream) -> bytes:
        """What is due first: the peer waits for an answer; a question may bring frames; a note can
        wait and is as good as said by the others."""
        if it.answer_to:
            kind, to, it.answer_to = ResumeKind.ANSWER, it.answer_to, 0
        elif it.offer_due:
            it.offer_due = False
            return it.kept_control[0][1]
        elif it.ask_due:
            kind, to, it.ask_due, it.asked = ResumeKind.ASK, 0, False, it.resumes
        else:
            kind, to = ResumeKind.NOTE, 0
        it.note_due, it.unnoted = False, 0
        header = Header(FrameType.RESUME, self._seal.session, it.id, it.resumes, 0)
        it.resumes += 1
        return self._seal.close(header, _RESUME.pack(kind, it.expected, to))

    def _turn(self, line: deque[Stream]) -> bytes | None:
        while line:
            it = line.popleft()
            it.ready = False
            if it.halted:  # the answer puts it back in line
                continue
            if it.again:
                frame = it.again.popleft()
                self._revive(it)
                return frame
            if it.queue:
                if len(it.kept) >= MAX_KEPT:  # CREDIT puts it back in line
                    continue
                return self._data_frame(it)
            if it.ending and not it.eof_sent:
                it.eof_sent = True
                frame = self._sealed(it, FrameType.EOF, b"", it.sent)
                it.kept.append((it.number - 1, it.sent + 1, frame))
                return frame
        return None

    def _data_frame(self, it: Stream) -> bytes:
        chunk: bytes | bytearray | memoryview = it.queue[0]
        whole = len(chunk)
        size = min(whole - it.head, self.max_frame)
        if size < whole:
            chunk = memoryview(chunk)[it.head : it.head + size]
        frame = self._sealed(it, FrameType.DATA, chunk, it.sent)
        it.head += size
        if it.head == whole:
            it.queue.popleft()
            it.head = 0
        it.queued -= size
        it.sent += size
        it.kept.append((it.number - 1, it.sent, frame))
        if it.queue or it.ending:
            self._want_data(it)
        return frame

    def _sealed(
        self,
        it: Stream,
        kind: FrameType,
        payload: bytes | bytearray | memoryview,
        offset: int = 0,
    ) -> bytes:
        header = Header(kind, self._seal.session, it.id, it.number, offset)
        it.number += 1
        return self._seal.close(header, payload)

    def _kept(self, it: Stream, kind: FrameType, payload: bytes) -> bytes:
        frame = self._sealed(it, kind, payload)
        it.keep_control(it.number - 1, frame)
        return frame

    # --- bookkeeping ------------------------------------------------------------------------------

    def _full(self) -> bool:
        return len(self._streams) + len(self._resets) >= self._max_streams

    def _is_drained(self, it: Stream) -> bool:
        return it.state is State.DRAINED and it.consumed == it.received

    def _consider_credit(self, it: Stream) -> None:
        """Ask for a CREDIT when it is worth a frame: enough was used, or everything to the end."""
        used = it.consumed - it.reported
        if (
            (self._is_drained(it) and not it.final_sent)
            or 4 * used >= self._window
            or (used and len(it.unreported) >= _CREDIT_FRAMES)
        ):
            it.credit_due = True
            self._want_control(it)

    def _want_control(self, it: Stream) -> None:
        if not it.waiting:
            it.waiting = True
            self._control.append(it)

    def _want_data(self, it: Stream) -> None:
        if not it.ready:
            it.ready = True
            (self._bulk if it.bulk else self._interactive).append(it)

    def _refuse(self, stream: int, number: int, code: ResetCode, heard: int) -> None:
        header = Header(FrameType.RESET, self._seal.session, stream, number, 0)
        frame = self._seal.close(header, _RESET.pack(code))
        self._resets.append(frame)
        self._past.bury(stream, (frame,), heard)

    def _ask(self, it: Stream) -> None:
        it.ask_due = True
        it.offer_due = it.state is State.OFFERED and bool(it.kept_control)
        it.asked = 0
        self._want_control(it)

    def _revive(self, it: Stream) -> None:
        """Frames of this stream may leave again, or more of them."""
        if it.again or it.queue or it.ending:
            self._want_data(it)
        if it.resuming or (not it.again and (it.control is not None or it.credit_due)):
            self._want_control(it)

    def _forget_if_over(self, it: Stream) -> None:
        if it.over():
            self._forget(it)
            # All of ours was used, so that only a CREDIT may be missing there.
            frames = tuple(frame for _number, frame in it.kept_control)
            self._past.bury(it.id, frames, it.heard)

    def _forget(self, it: Stream) -> None:
        del self._streams[it.id]
        if it.waiting:
            self._control.remove(it)
        if it.ready:
            (self._bulk if it.bulk else self._interactive).remove(it)
        it.queue.clear()
        it.kept.clear()
        it.again.clear()
