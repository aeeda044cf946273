"""MQTT's bytes in websocket messages (MQTT 3.1.1 section 6), behind the face of a TLS socket.

`opening` is the upgrade, blocking and under a deadline, for the thread that dials. `WebSocket` is
what paho reads and writes afterwards, non-blocking: the frames themselves are those of the
websockets package, whose sans-IO half does no more than turn bytes into frames and back.

`send` takes a piece wholly or not at all, as OpenSSL does: a piece whose frame could not be written
to its end raises BlockingIOError, and the next call must bring the same piece.
"""

import logging
import ssl
from collections import deque
from typing import Any

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.typing import Subprotocol
from websockets.uri import WebSocketURI

from agent.wire import carrier
from agent.wire.messages import MAX_PAYLOAD

MAX_MESSAGE = MAX_PAYLOAD + 8 * 1024  # bytes; a server cannot make the agent hold more
MAX_OPENING = 16 * 1024  # bytes of the answer to the upgrade
MAX_OUT = 2 * MAX_MESSAGE
READ = 64 * 1024

# It has a line for each frame, and what they hold is nobody's business.
_quiet = logging.getLogger("agent.network.frames")
_quiet.setLevel(logging.WARNING)
_quiet.propagate = False


class UpgradeRefused(Exception):
    """The server does not take a websocket; `status` is HTTP's, 0 when it was no HTTP."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


def protocol(host: str, port: int) -> ClientProtocol:
    """A websocket that is about to open at this server."""
    uri = WebSocketURI(True, host, port, carrier.WEBSOCKET_PATH, "")
    return ClientProtocol(
        uri,
        subprotocols=[Subprotocol(carrier.WEBSOCKET_PROTOCOL)],
        max_size=MAX_MESSAGE,
        logger=_quiet,
    )


def opening(tls: ssl.SSLSocket, host: str, port: int) -> "WebSocket":
    """Upgrade; the socket's timeout holds for each read. Raises UpgradeRefused, OSError."""
    frames = protocol(host, port)
    frames.send_request(frames.connect())
    tls.sendall(b"".join(frames.data_to_send()))
    came = 0
    while frames.state is State.CONNECTING:
        chunk = tls.recv(READ)
        came += len(chunk)
        if not chunk or came > MAX_OPENING:
            frames.receive_eof()
            raise UpgradeRefused(0)
        frames.receive_data(chunk)
        if frames.handshake_exc is not None:
            raise UpgradeRefused(_status(frames.handshake_exc))
    answer, *early = frames.events_received()
    if not isinstance(answer, Response) or frames.subprotocol != carrier.WEBSOCKET_PROTOCOL:
        raise UpgradeRefused(0)
    return WebSocket(tls, frames, early)


def _status(error: Exception) -> int:
    return error.response.status_code if isinstance(error, InvalidStatus) else 0


class WebSocket:
    """The face of a socket. Non-blocking once `setblocking(False)` was called."""

    def __init__(
        self, tls: ssl.SSLSocket, frames: ClientProtocol, early: list[Any] | None = None
    ) -> None:
        self._tls = tls
        self._frames = frames
        self._in: deque[bytes] = deque()
        self._unread = 0
        self._out = b""  # the rest of what must be written before anything else
        self._piece = 0  # length of the piece whose frame is in `_out`
        self._over = False
        self._take(early or [])

    # --- the face of a socket --------------------------------------------------------------------

    def fileno(self) -> int:
        return self._tls.fileno()

    def setblocking(self, flag: bool) -> None:
        self._tls.setblocking(flag)

    def settimeout(self, seconds: float) -> None:
        self._tls.settimeout(seconds)

    def pending(self) -> int:
        """What can be read without the kernel; the end can be."""
        return self._unread + self._tls.pending() + self._over

    def recv(self, size: int) -> bytes:
        """Raises BlockingIOError and ssl.SSLWantReadError when there is nothing, OSError."""
        while not self._unread:
            if self._over:
                return b""
            self._receive()
        chunk = self._in.popleft()
        if len(chunk) > size:
            self._in.appendleft(chunk[size:])
            chunk = chunk[:size]
        self._unread -= len(chunk)
        return chunk

    def recv_into(self, buffer: memoryview, size: int) -> int:
        """The same, into a buffer of at least so many bytes."""
        chunk = self.recv(size)
        buffer[: len(chunk)] = chunk
        return len(chunk)

    def send(self, data: bytes | bytearray) -> int:
        """All of `data`, or BlockingIOError: then the same again. Raises OSError."""
        if not self._piece:
            if self._frames.state is not State.OPEN:
                raise ConnectionResetError("the websocket is closed")
            self._frames.send_binary(bytes(data))
            self._gather()
            self._piece = len(data)
        self._flush()
        if self._out:
            raise BlockingIOError
        taken, self._piece = self._piece, 0
        return taken

    def close(self) -> None:
        """Say so if that can be done at once, then close."""
        try:
            if self._frames.state is State.OPEN and not self._out:
                self._frames.send_close(1000)
                self._gather()
                self._flush()
        except (OSError, WebSocketException):
            _quiet.debug("closed without a word")
        finally:
            self._tls.close()

    # --- inside ----------------------------------------------------------------------------------

    def _receive(self) -> None:
        try:
            chunk = self._tls.recv(READ)
        except ssl.SSLEOFError:
            chunk = b""
        if not chunk:
            self._over = True
            return
        self._frames.receive_data(chunk)
        self._take(self._frames.events_received())
        self._gather()  # a pong, or the answer to Close
        self._flush()
        if len(self._out) > MAX_OUT:
            raise ConnectionResetError("pings come faster than their answers leave")

    def _take(self, events: list[Any]) -> None:
        for frame in events:
            if not isinstance(frame, Frame):
                continue
            if frame.opcode in (Opcode.BINARY, Opcode.CONT):
                if frame.data:
                    self._in.append(bytes(frame.data))
                    self._unread += len(frame.data)
            elif frame.opcode is Opcode.TEXT:
                self._frames.fail(1003, "MQTT comes in binary frames")  # MQTT-6.0.0-1
        if self._frames.state is not State.OPEN:
            self._over = True

    def _gather(self) -> None:
        self._out += b"".join(self._frames.data_to_send())

    def _flush(self) -> None:
        """Write what the socket takes. Raises OSError."""
        while self._out:
            try:
                written = self._tls.send(self._out)
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                return
            self._out = self._out[written:]
