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

The two halves stand in `mux_in` (frames opened and judged) and `mux_out` (frames made, and their
turns); the books of a stream, which both keep, in `mux_stream`. Here is what the owner calls.
"""

from collections import deque

from agent.wire.frames import MAX_DATA
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
from agent.wire.mux_in import ACCEPT, MAX_WINDOW, OPEN, SERVICE, Incoming
from agent.wire.mux_stream import SENDING, State, Stream
from agent.wire.seal import Role, Seal

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
MIN_FRAME = 1024  # bytes of data in a frame, at least
_SMALL = 16 * 1024  # bytes; smaller writes are gathered while they wait
_MAX_STREAM = 2**32 - 1


class Mux(Incoming):
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
        super().__init__(seal, window=window, max_streams=max_streams, max_frame=max_frame)

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
        if not SERVICE.fullmatch(name):
            raise LocalError("a service's name is lower-case letters, digits and hyphens")
        if not 1 <= stream <= _MAX_STREAM or stream <= self._numbers.highest(stream):
            raise LocalError(f"stream number {stream} is out of range or was used before")
        if self._full():
            raise LocalError(f"{self._max_streams} streams are open, which is the limit")
        self._numbers.make(stream)
        it = Stream(stream, State.OFFERED, bulk)
        it.granted = self._window
        it.control = OPEN.pack(int(bulk), self._window) + name
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
        it.control = ACCEPT.pack(self._window)
        self._want_control(it)
        if it.ending:
            self._want_data(it)

    def writable(self, stream: int) -> int:
        """Bytes that send() takes now; 0 when the stream is unknown, ended or not accepted."""
        it = self._streams.get(stream)
        return it.room() if it is not None else 0

    def send(self, stream: int, data: bytes | bytearray | memoryview) -> None:
        """Queue at most writable() bytes, large `bytes` uncopied. Raises LocalError for more."""
        size, it = len(data), self._streams.get(stream)
        room = it.room() if it is not None else 0
        if size > room:
            raise LocalError(f"stream {stream} takes {room} bytes, not {size}")
        if it is None or not size:
            return
        last = it.queue[-1] if it.queue else None
        if type(last) is bytearray and len(last) + size <= self.max_frame:
            last += data
        else:
            it.queue.append(bytearray(data) if size < _SMALL else bytes(data))
        it.queued += size
        if not it.ready:
            self._want_data(it)

    def end(self, stream: int) -> None:
        """Send EOF after what is queued. No effect on a stream that is gone or ended."""
        it = self._streams.get(stream)
        if it is None or it.ending:
            return
        it.ending = True
        if it.state in SENDING:
            self._want_data(it)

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
