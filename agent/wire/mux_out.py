"""What leaves a multiplexer: whose frame is next, and how it is made.

Nothing is received here; `agent.wire.mux` has the theory of operation for this too.
"""

import struct
from collections import deque

from agent.wire.frames import FrameType, Header
from agent.wire.mux_events import ResetCode
from agent.wire.mux_stream import MAX_KEPT, Graveyard, ResumeKind, State, Stream
from agent.wire.seal import Role, Seal

CREDIT = struct.Struct(">QI")  # bytes used, window beyond them
RESET = struct.Struct(">H")  # ResetCode
RESUME = struct.Struct(">BQQ")  # ResumeKind, number taken next, number of the ASK answered or 0
_CREDIT_FRAMES = 64  # acknowledge at least this often; far below MAX_KEPT, so that it never blocks
_DATA, _DRAINED = FrameType.DATA, State.DRAINED


class Outgoing:
    """The streams of one end, in the lines in which they wait to send."""

    def __init__(self, seal: Seal, *, window: int, max_streams: int, max_frame: int) -> None:
        self.max_frame = max_frame
        self.hold_bulk = False  # true: next_frame sends no data of bulk streams
        self.hold_data = False  # true: of no stream; control goes on
        self._seal = seal
        self._window = window
        self._max_streams = max_streams
        self._streams: dict[int, Stream] = {}
        self._resets: deque[bytes] = deque()  # sealed
        self._repeats: deque[bytes] = deque()  # last frames of streams that are over
        self._past = Graveyard()
        self._control: deque[Stream] = deque()
        self._interactive: deque[Stream] = deque()
        self._bulk: deque[Stream] = deque()

    def reset(self, stream: int, code: ResetCode = ResetCode.CANCELLED) -> None:
        """Cut both directions and drop what is queued. No effect on a stream that is gone."""
        it = self._streams.get(stream)
        if it is None:
            return
        self._forget(it)
        if it.number or self._seal.role is Role.DEVICE:  # else the peer never heard of it
            self._refuse(stream, it.number, code, it.heard)

    # --- whose turn it is -------------------------------------------------------------------------

    def next_frame(self) -> bytes | None:
        """The next frame for the pipe, or None when there is nothing to send now."""
        if self._resets:
            return self._resets.popleft()
        if self._repeats:
            return self._repeats.popleft()
        while self._control:
            it = self._control.popleft()
            it.waiting = False
            if (frame := self._control_frame(it)) is not None:
                return frame
        if self.hold_data:
            return None
        if self._interactive and (frame := self._turn(self._interactive)) is not None:
            return frame
        if self._bulk and not self.hold_bulk:
            return self._turn(self._bulk)
        return None

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
        return self._credit_frame(it) if it.credit_due else None

    def _credit_frame(self, it: Stream) -> bytes:
        it.credit_due = False
        it.reported = it.consumed
        while it.unreported and it.unreported[0] <= it.consumed:
            it.unreported.popleft()
        it.final_sent = it.state is _DRAINED and it.consumed == it.received
        window = 0 if it.final_sent else self._window
        it.granted = it.consumed + window
        frame = self._kept(it, FrameType.CREDIT, CREDIT.pack(it.consumed, window))
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
        return self._seal.close(header, RESUME.pack(kind, it.expected, to))

    def _turn(self, line: deque[Stream]) -> bytes | None:
        while line:
            it = line.popleft()
            it.ready = False
            if it.asked or it.ask_due:  # halted: the answer puts it back in line
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

    # --- frames -----------------------------------------------------------------------------------

    def _data_frame(self, it: Stream) -> bytes:
        chunk: bytes | bytearray | memoryview = it.queue[0]
        whole, head, number = len(chunk), it.head, it.number
        size = whole - head
        if size > self.max_frame:
            size = self.max_frame
        if size < whole:
            chunk = memoryview(chunk)[head : head + size]
        seal = self._seal
        frame = seal.close(Header(_DATA, seal.session, it.id, number, it.sent), chunk)
        it.number = number + 1
        it.sent += size
        it.queued -= size
        it.kept.append((number, it.sent, frame))
        if head + size == whole:
            it.queue.popleft()
            it.head = 0
        else:
            it.head = head + size
        if it.queued or it.ending:
            self._want_data(it)
        return frame

    def _sealed(self, it: Stream, kind: FrameType, payload: bytes, offset: int = 0) -> bytes:
        header = Header(kind, self._seal.session, it.id, it.number, offset)
        it.number += 1
        return self._seal.close(header, payload)

    def _kept(self, it: Stream, kind: FrameType, payload: bytes) -> bytes:
        frame = self._sealed(it, kind, payload)
        it.keep_control(it.number - 1, frame)
        return frame

    # --- getting in line, and out -----------------------------------------------------------------

    def _want_control(self, it: Stream) -> None:
        if not it.waiting:
            it.waiting = True
            self._control.append(it)

    def _want_data(self, it: Stream) -> None:
        if not it.ready:
            it.ready = True
            (self._bulk if it.bulk else self._interactive).append(it)

    def _consider_credit(self, it: Stream) -> None:
        """Ask for a CREDIT when it is worth a frame: enough was used, or everything to the end."""
        used = it.consumed - it.reported
        if (
            4 * used >= self._window
            or (used and len(it.unreported) >= _CREDIT_FRAMES)
            or (it.state is _DRAINED and it.consumed == it.received and not it.final_sent)
        ):
            it.credit_due = True
            self._want_control(it)

    def _refuse(self, stream: int, number: int, code: ResetCode, heard: int) -> None:
        header = Header(FrameType.RESET, self._seal.session, stream, number, 0)
        frame = self._seal.close(header, RESET.pack(code))
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
