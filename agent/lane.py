"""The frames' own way through the link, beside paho: what paho takes for its socket is a `Lane`.

Theory of operation. Reading: bytes come from TLS in large pieces, and `Inflow` says what is next in
them: a stream frame (PUBLISH at QoS 0 on exactly our `dn/s`) and PINGRESP are for the link, every
other packet is for paho, which gets it through `recv`. Order is kept: `next` names the one thing
that stands first, and nothing behind a packet is given out before paho has taken the whole of it.
So a frame never overtakes a message that came before it, nor a message a frame.

Writing: what goes to TLS goes in pieces, and a piece is made of whole packets. A piece that the
socket did not take to its end must be offered again unchanged (OpenSSL insists), and goes first;
meanwhile `pending` is true and paho's next packet is not taken. So no packet gets into the middle
of another. Frames and pings that are put in between two flushes leave together: a TLS record and a
call of the kernel for each would cost more than the frame.

A packet longer than any that we expect is refused at its header (`TooLarge`): a server cannot make
the agent hold 256 MB.
"""

import contextlib
import ssl
import struct
from enum import Enum, auto

from agent.network.journey import Ready
from agent.wire import topics
from agent.wire.messages import MAX_PAYLOAD

MAX_PACKET = MAX_PAYLOAD + 1024
BUFFER = 128 * 1024
RECORD = 16 * 1024  # bytes that a TLS record may hold
LONGEST = 64 * 1024  # bytes of a frame that goes this way; a whole one must fit the buffer
_PUBLISH, _PINGRESP = 0x30, 0xD0  # QoS 0, not retained
_PINGREQ = b"\xc0\x00"
_MOST_LENGTH = 5  # bytes of a fixed header


class TooLarge(ValueError):
    """The server sent a packet that is too large."""


class Next(Enum):
    """What stands first, when it is no frame."""

    PONG = auto()
    OTHER = auto()  # paho's: call its loop_read


class Inflow:
    """Bytes that came, divided into packets. No IO."""

    def __init__(self, topic: str) -> None:
        self._topic = _text(topic)
        self._most = len(self._topic) + LONGEST
        self._buffer = bytearray(BUFFER)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0
        self._other = 0  # bytes of the packet that stands first and is paho's

    @property
    def room(self) -> memoryview:
        """Where the next bytes go; empty when there is no place for a record."""
        start, end = self._start, self._end
        if start == end:
            self._start = self._end = 0
        elif BUFFER - end < RECORD:
            self._view[: end - start] = self._buffer[start:end]
            self._start, self._end = 0, end - start
        if BUFFER - self._end < RECORD:
            return self._view[:0]
        return self._view[self._end :]

    def came(self, size: int) -> None:
        """So many bytes were put where `room` said."""
        self._end += size

    def next(self) -> bytes | Next | None:
        """The frame that stands first, or what else does; None: it is not whole.

        Raises TooLarge."""
        if self._other:
            return Next.OTHER if self._start < self._end else None
        buffer, start = self._buffer, self._start
        have = self._end - start
        if have < 2:
            return None
        size, at = buffer[start + 1], start + 2
        if size >= 0x80:
            found = self._length(at, size & 0x7F)
            if found is None:
                return None
            size, at = found
        kind, end = buffer[start], at + size
        if kind == _PUBLISH and len(self._topic) <= size <= self._most:
            body = at + len(self._topic)
            if body > self._end:
                return None
            if buffer.startswith(self._topic, at):
                if end > self._end:
                    return None
                self._start = end
                return self._view[body:end].tobytes()
        elif kind == _PINGRESP and not size:
            self._start = end
            return Next.PONG
        if size > MAX_PACKET:
            raise TooLarge(f"{size} bytes")
        self._other = end - start
        return Next.OTHER

    def _length(self, at: int, size: int) -> tuple[int, int] | None:
        """Of a fixed header whose second byte says that more follow: length, and where it ends."""
        for shift in (7, 14, 21):
            if at >= self._end:
                return None
            byte = self._buffer[at]
            size |= (byte & 0x7F) << shift
            at += 1
            if byte < 0x80:
                return size, at
        raise TooLarge("a length of more than four bytes")

    def take(self, size: int) -> bytes:
        """At most so many bytes of the packet that stands first and is paho's."""
        size = min(size, self._other, self._end - self._start)
        start = self._start
        self._start += size
        self._other -= size
        return self._view[start : start + size].tobytes()


class Lane:
    """The face of a socket for paho, and a way for frames and pings beside it. Non-blocking."""

    def __init__(self, ready: Ready, device: str) -> None:
        self.socket = ready
        self._inflow = Inflow(topics.down_stream(device))
        self._topic = _text(topics.up_stream(device))
        self._over = False  # the server has said all it will
        self._more = False  # there may be more to read, and no selector would say so
        self._parts: list[bytes] = []  # whole packets, behind the piece
        self._piece = b""  # what must be offered to the socket again

    # --- the face of a socket --------------------------------------------------------------------

    def fileno(self) -> int:
        return self.socket.fileno()

    def setblocking(self, flag: bool) -> None:
        self.socket.setblocking(flag)

    def recv(self, size: int) -> bytes:
        """Raises BlockingIOError when nothing of paho's stands first."""
        chunk = self._inflow.take(size)
        if not chunk and not self._over:
            raise BlockingIOError
        return chunk

    def send(self, data: bytes | bytearray) -> int:
        """All of it; BlockingIOError when the socket is full. Raises OSError."""
        if not self.flush():
            raise BlockingIOError
        self._parts.append(bytes(data))
        self.flush()
        return len(data)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.flush()
        self.socket.close()

    # --- in --------------------------------------------------------------------------------------

    def fill(self) -> None:
        """Read what there is, a record or more. Raises OSError."""
        room = self._inflow.room
        self._more = False
        if not room:
            return
        try:
            size = self.socket.recv_into(room, len(room))
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        if size:
            self._inflow.came(size)
            self._more = size >= RECORD or self.socket.pending() > 0
        else:
            self._over = True

    @property
    def over(self) -> bool:
        """Whether the other side has ended the connection."""
        return self._over

    def next(self) -> bytes | Next | None:
        """What stands first in what came: a frame, or whose it is; None: nothing that is whole.

        Raises OSError, TooLarge."""
        while (found := self._inflow.next()) is None:
            if self._over:
                return Next.OTHER  # paho finds the end
            if not self._more:
                return None
            self.fill()
        return found

    # --- out -------------------------------------------------------------------------------------

    @property
    def pending(self) -> bool:
        """Something waits for the socket, or for `flush`."""
        return bool(self._piece or self._parts)

    def put(self, frame: bytes) -> None:
        """A stream frame leaves with the next flush."""
        size = len(self._topic) + len(frame)
        if size < 0x80:
            head = bytes((_PUBLISH, size))
        elif size < 0x4000:
            head = bytes((_PUBLISH, size & 0x7F | 0x80, size >> 7))
        else:
            head = bytes((_PUBLISH, size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14))
        self._parts += (head, self._topic, frame)

    def ping(self) -> None:
        """PINGREQ leaves with the next flush."""
        self._parts.append(_PINGREQ)

    def flush(self) -> bool:
        """Whether the socket took everything. Raises OSError."""
        while True:
            if not self._piece:
                if not self._parts:
                    return True
                self._piece = b"".join(self._parts)
                self._parts.clear()
            try:
                sent = self.socket.send(self._piece)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return False
            self._piece = self._piece[sent:]


def _text(text: str) -> bytes:
    """A string as MQTT writes it (1.5.3)."""
    data = text.encode()
    return struct.pack(">H", len(data)) + data
