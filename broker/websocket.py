"""MQTT in a websocket: the layer between TLS and a device's `Connection` (MQTT 3.1.1 section 6).

Theory of operation. TLS has verified the device before the first byte arrives here (ADR 0009), and
`Connection` is made at once: its timers run from the accept, whatever the peer does or leaves out.
Bytes go to websockets' own sans-IO protocol; what its binary frames carry is the MQTT byte stream,
in pieces of any size, and goes to `Connection.received`. The other way, `Framed` stands for the
transport and wraps each write as one binary message. One set of rules serves both carriers.

No message is put together here: a fragment is handed on as it comes. A frame is refused at its
header when it is longer than the largest packet, or before CONNECT than `_BEFORE_CONNECT`. Frames
that carry nothing (pings, empty ones) count against the device's rate.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import cast

from websockets.exceptions import PayloadTooBig
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import Event, State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from agent.wire import carrier
from broker import packets
from broker.errors import Reason
from broker.gate import Connection
from broker.house import House
from broker.wrapped import Wrapped

_BEFORE_CONNECT = 8 * 1024  # bytes in a message; CONNECT and a first SUBSCRIBE are far below
_HEADER = 5  # bytes of the longest fixed header of MQTT
_DATA = (Opcode.BINARY, Opcode.CONT)

_quiet = logging.getLogger("patency.websocket")
_quiet.setLevel(logging.WARNING)  # websockets has a line for each opening and closing


class Framed(Wrapped):
    """The TLS transport as `Connection` sees it: what is written leaves as binary messages."""

    def __init__(self, inner: asyncio.Transport, frames: ServerProtocol) -> None:
        super().__init__(inner)
        self._frames = frames

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._frames.state is State.OPEN:  # else the peer has said Close and reads no more
            self._frames.send_binary(bytes(data))
            self.flush()

    def flush(self) -> None:
        """Write what the websocket layer itself has to say."""
        data = b"".join(self._frames.data_to_send())  # its sign for EOF is empty
        if data:
            self.inner.write(data)

    def close(self) -> None:
        if self._frames.state is State.OPEN:
            self._frames.send_close(CloseCode.NORMAL_CLOSURE)
            self.flush()
        self.inner.close()


class WebSocket(asyncio.BufferedProtocol):
    """See the module's theory of operation."""

    _transport: Framed

    def __init__(self, house: House, address: tuple[str, int], connect_by: float) -> None:
        self._house = house
        self._connection = Connection(house, address, connect_by, alpn=carrier.ALPN_HTTP)
        self._frames = ServerProtocol(
            subprotocols=[Subprotocol(carrier.WEBSOCKET_PROTOCOL)],
            max_size=_BEFORE_CONNECT,
            logger=_quiet,
        )

    # --- the socket ----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transport does not inherit
        self._transport = Framed(cast(asyncio.Transport, transport), self._frames)
        self._connection.connection_made(self._transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._house.buffer

    def buffer_updated(self, nbytes: int) -> None:
        connection, frames = self._connection, self._frames
        if connection.over:
            return
        if connection.introduced:
            limits = self._house.options.limits
            frames.max_size = limits.payload_bytes + packets.PUBLISH_OVERHEAD + _HEADER
        frames.receive_data(bytes(self._house.buffer[:nbytes]))
        events = frames.events_received()
        if events and isinstance(events[0], Request):
            self._open(events[0], early=len(events) > 1 or bool(frames.reader.buffer))
        elif frames.handshake_exc is not None:
            connection.end(Reason.WEBSOCKET)
        else:
            self._carry(events)

    def eof_received(self) -> None:
        """Half-closed is closed."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.connection_lost(exc)
        del self._transport

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()

    # --- HTTP, then frames ---------------------------------------------------------------------

    def _open(self, request: Request, *, early: bool) -> None:
        """Answer the upgrade. Nothing may come before the answer (RFC 6455 section 4.1)."""
        frames = self._frames
        if request.path != carrier.WEBSOCKET_PATH:
            response = frames.reject(404, f"MQTT is spoken at {carrier.WEBSOCKET_PATH}.\n")
        elif early:
            response = frames.reject(400, "Frames before the answer to the upgrade.\n")
        else:
            response = frames.accept(request)
        frames.send_response(response)
        self._transport.flush()
        if frames.state is not State.OPEN:
            self._connection.end(Reason.WEBSOCKET)

    def _carry(self, events: Sequence[Event]) -> None:
        """Hand on what the frames carry, answer what concerns the websocket alone."""
        connection, frames = self._connection, self._frames
        carried = [event for event in events if isinstance(event, Frame)]
        data = b"".join(bytes(frame.data) for frame in carried if frame.opcode in _DATA)
        # At its header a frame has left the buffer and is no event: the next bytes will show it.
        connection.received(data, more=bool(frames.reader.buffer) or not events)
        empty = sum(not frame.data or frame.opcode not in _DATA for frame in carried)
        if empty and not connection.over:
            connection.pace(empty)
        self._transport.flush()
        if any(frame.opcode is Opcode.TEXT for frame in carried):
            frames.fail(CloseCode.UNSUPPORTED_DATA, "MQTT is binary")
            self._transport.flush()
            connection.end(Reason.WEBSOCKET)
        elif isinstance(frames.parser_exc, PayloadTooBig):
            connection.end(Reason.TOO_LARGE)
        elif frames.parser_exc is not None:
            connection.end(Reason.WEBSOCKET)
        elif frames.close_rcvd is not None:
            connection.end(Reason.DISCONNECTED)
        else:
            connection.check_reader()
