"""What comes to a multiplexer: each frame opened, judged, and told as events.

`agent.wire.mux` has the theory of operation for this too. A frame that its sender may not send
raises FaultError inside, and ends its stream; what cannot be attributed raises MuxError.
"""

import re
import struct

from agent.wire.frames import FrameError, FrameType, Header, parse
from agent.wire.mux_events import (
    Accepted,
    Acknowledged,
    Credited,
    Data,
    Ended,
    Event,
    MuxError,
    Opened,
    Reset,
    ResetCode,
)
from agent.wire.mux_out import CREDIT, RESET, RESUME, Outgoing
from agent.wire.mux_stream import (
    FIRST_RESUME,
    LEGAL,
    MAX_KEPT,
    MAX_PAST,
    FaultError,
    Numbers,
    Past,
    ResumeKind,
    State,
    Stream,
)
from agent.wire.seal import Role, Seal, SealError

MAX_WINDOW = 16 * 1024 * 1024  # bytes; what a peer may grant
OPEN = struct.Struct(">BI")  # flags (bit 0: bulk), window; the service's name follows
ACCEPT = struct.Struct(">I")  # window
SERVICE = re.compile(rb"[a-z][a-z0-9-]{0,31}")
_NOTE_FRAMES = 64  # CREDITs taken before the peer is told so; far below MAX_CONTROL
# Looking a member up in its enum costs more than what is done with it.
_DATA, _CREDIT, _RESUME = FrameType.DATA, FrameType.CREDIT, FrameType.RESUME
_RUNNING = State.RUNNING


class Incoming(Outgoing):
    """Takes frames; what they make due goes out in its turn."""

    def __init__(self, seal: Seal, *, window: int, max_streams: int, max_frame: int) -> None:
        super().__init__(seal, window=window, max_streams=max_streams, max_frame=max_frame)
        self._numbers = Numbers()

    def receive(self, frame: bytes | memoryview) -> list[Event]:
        """Take a frame from the pipe. Raises MuxError, and changes nothing, when it must not be.

        Frames of streams that are over, and of another client process's streams, give no events.
        """
        try:
            header = parse(frame)
            if header.session != self._seal.session:
                raise MuxError(ResetCode.SEAL, "the frame belongs to another session")
            it = self._streams.get(header.stream)
            if it is None:
                return self._receive_unknown(header, frame)
            payload = self._seal.unseal(header, frame)
        except FrameError as error:
            raise MuxError(ResetCode.PROTOCOL, str(error)) from error
        except SealError as error:
            raise MuxError(ResetCode.SEAL, str(error)) from error
        kind, number = header.type, header.number
        try:
            if kind is _DATA and number == it.expected and it.state is _RUNNING:
                it.expected += 1  # nearly all of them
                return self._receive_data(it, header.offset, payload)
            _check_number(header)
            if number < (it.heard + 1 if kind is _RESUME else it.expected):
                raise MuxError(ResetCode.REPLAY, f"frame {number} was received before")
            return self._receive_on(it, header, payload)
        except FaultError as fault:
            self.reset(it.id, fault.code)
            return [Reset(it.id, fault.code, by_peer=False)]

    def _receive_unknown(self, header: Header, frame: bytes | memoryview) -> list[Event]:
        """A frame of a stream that is not there: of one that is over, or the first of one."""
        stream = header.stream
        past = self._past.get(stream) if header.type is _RESUME else None
        if past is None and self._is_late(header):
            return []
        payload = self._seal.unseal(header, frame)
        _check_number(header)
        return self._receive_past(past, header) if past else self._receive_open(header, payload)

    def _is_late(self, header: Header) -> bool:
        """Whether a frame of an unknown stream is to be dropped without a word."""
        if self._seal.role is Role.CLIENT:
            return True
        return header.type is not FrameType.OPEN and self._numbers.is_used(header.stream)

    def _receive_open(self, header: Header, payload: bytes) -> list[Event]:
        stream = header.stream
        if header.type is FrameType.RESET and stream:
            self._numbers.use(stream)  # its OPEN was lost, and it is over before it began
            return []
        if header.type is not FrameType.OPEN:
            raise MuxError(ResetCode.PROTOCOL, f"stream {stream} was never opened")
        if not stream or self._numbers.is_used(stream):
            raise MuxError(ResetCode.REPLAY, f"stream {stream} was opened before")
        if header.number or header.offset or len(payload) < OPEN.size:
            raise MuxError(ResetCode.PROTOCOL, "a bad OPEN")
        flags, window = OPEN.unpack_from(payload)
        service = payload[OPEN.size :]
        if flags > 1 or not 1 <= window <= MAX_WINDOW or not SERVICE.fullmatch(service):
            raise MuxError(ResetCode.PROTOCOL, "a bad OPEN")
        if self._full():
            if len(self._resets) >= 2 * self._max_streams:  # it does not even read our refusals
                raise MuxError(ResetCode.BUSY, "too many streams")
            self._numbers.use(stream)
            self._refuse(stream, 0, ResetCode.BUSY, FIRST_RESUME - 1)
            return []
        self._numbers.use(stream)
        it = Stream(stream, State.ASKED, bool(flags))
        it.expected = 1
        it.limit = window
        self._streams[stream] = it
        return [Opened(stream, service.decode(), it.bulk)]

    def _receive_on(self, it: Stream, header: Header, payload: bytes) -> list[Event]:
        kind = header.type
        if kind is FrameType.RESET:
            return self._receive_reset(it, payload)
        if kind is _RESUME:
            return self._receive_resume(it, header, payload)
        if header.number != it.expected:
            if not it.halted:
                self._ask(it)
            return []
        if kind not in LEGAL[it.state]:
            raise FaultError(ResetCode.PROTOCOL)
        it.expected += 1
        if kind is _CREDIT:
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
        if offset or len(payload) != CREDIT.size:
            raise FaultError(ResetCode.PROTOCOL)
        acked, window = CREDIT.unpack(payload)
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
        if offset or len(payload) != ACCEPT.size:
            raise FaultError(ResetCode.PROTOCOL)
        (window,) = ACCEPT.unpack(payload)
        if not 1 <= window <= MAX_WINDOW:
            raise FaultError(ResetCode.PROTOCOL)
        it.state = State.RUNNING
        it.limit = window
        it.has_arrived(1)
        if it.ending:
            self._want_data(it)
        return [Accepted(it.id)]

    def _receive_resume(self, it: Stream, header: Header, payload: bytes) -> list[Event]:
        if header.offset or len(payload) != RESUME.size:
            raise FaultError(ResetCode.PROTOCOL)
        kind, expected, to = RESUME.unpack(payload)
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
        if len(payload) != RESET.size:
            raise FaultError(ResetCode.PROTOCOL)
        self._forget(it)
        (number,) = RESET.unpack(payload)
        try:
            code = ResetCode(number)
        except ValueError:  # a code of a later version
            code = ResetCode.INTERNAL
        return [Reset(it.id, code, by_peer=True)]

    def _full(self) -> bool:
        return len(self._streams) + len(self._resets) >= self._max_streams


def _check_number(header: Header) -> None:
    if (header.number >= FIRST_RESUME) is not (header.type is _RESUME):
        raise MuxError(ResetCode.PROTOCOL, "a number that this type does not have")
