"""The lanes between a device's connection and the portal; neither goes through amqtt's broadcast.

Up: every message is offered to the handler, which takes it or says that it is full. A QoS 1
message counts as un-acknowledged from its arrival until the handler calls `ack`; only then does
PUBACK go out, in whatever order acknowledgements come. While the handler is full, QoS 1 messages
wait here in order, within the same bound, and QoS 0 messages are dropped (live samples, by design).
The socket is still read, so that PINGREQ is answered: a slow database must not look like a dead
link. Only a device that ignores its own window is no longer read.

Down: QoS 0, written at once to the one connection. Stream frames stand back when the transport is
full, or when the line already has as much of them as it takes in a fifth of a second
(broker.congestion), so that a control message passes them; what waits is bounded, and a reader that
lets it reach the bound is cut.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import msgspec

from agent.wire.topics import STREAM, Topic
from broker import packets
from broker.congestion import line
from broker.errors import Reason
from broker.options import Limits

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ConnectionInfo:
    """What is known of a connection when it is announced."""

    peer: str  # "address:port"
    tls: str  # "TLSv1.3"
    cipher: str
    certificate: str  # serial number, hexadecimal
    not_after: float  # of the certificate, seconds since 1970
    keepalive_s: int
    since: float = 0.0  # loop time when it was announced
    server: str = "local"  # the access server, as the portal names it


def _nothing() -> None:
    """QoS 0 has no acknowledgement."""


class Delivery(msgspec.Struct, frozen=True):  # made in C, for every message
    """One message from a device. `ack()` on the event loop, once it is decided; idempotent."""

    device: str
    type: str
    version: int
    payload: bytes
    qos: int
    ack: Callable[[], None] = _nothing


class Handler(Protocol):
    """The portal's side of the gate. Every call is on the event loop and must not block."""

    def connected(self, device: str, info: ConnectionInfo) -> None:
        """The device is online. Exactly one `disconnected` follows."""

    def disconnected(self, device: str, reason: Reason) -> None: ...

    def up(self, delivery: Delivery) -> bool | None:
        """Take a message. False: full, it was not taken; it is offered again after Gate.resume."""

    def stream(self, device: str, frame: bytes) -> None:
        """Take a frame of the stream lane."""

    def refused(self, peer: str, device: str | None, reason: Reason) -> None:
        """A connection, a subscription or a publish was refused; for the audit."""


@dataclass(slots=True)
class Counters:
    """Since start, of one gate."""

    accepted: int = 0
    handshakes: int = 0
    connects: int = 0
    messages_up: int = 0
    bytes_up: int = 0
    messages_dropped: int = 0  # QoS 0 while the handler was full
    frames_up: int = 0
    frame_bytes_up: int = 0
    messages_down: int = 0
    bytes_down: int = 0
    frames_down: int = 0
    frame_bytes_down: int = 0
    acknowledged: int = 0
    ended: dict[Reason, int] = field(default_factory=dict)
    refused: dict[Reason, int] = field(default_factory=dict)


LOOK_S = 0.005  # until a line that was full is looked at again
_LEAST_PAUSE_S = 0.05  # of a device that sends too fast


class Pace:
    """A token bucket: how fast one device may send messages."""

    __slots__ = ("_at", "_limits", "_tokens")

    def __init__(self, limits: Limits, now: float) -> None:
        self._limits = limits
        self._tokens = float(limits.messages_burst)
        self._at = now

    def spend(self, now: float, messages: int = 1) -> float:
        """Count messages. Returns the seconds to stop reading for: 0 within the rate."""
        self._tokens -= messages
        if self._tokens >= 0:
            return 0.0
        rate = self._limits.messages_per_s
        refilled = self._tokens + (now - self._at) * rate
        self._tokens = min(refilled, float(self._limits.messages_burst))
        self._at = now
        return max(-self._tokens / rate, _LEAST_PAUSE_S) if self._tokens < 0 else 0.0


class UpLane:
    """Messages of one connection on their way to the handler."""

    __slots__ = (
        "_bytes",
        "_closed",
        "_counters",
        "_deliveries",
        "_handler",
        "_limits",
        "_puback",
        "_unacked",
        "_waiting",
        "device",
    )

    def __init__(
        self,
        device: str,
        handler: Handler,
        limits: Limits,
        counters: Counters,
        puback: Callable[[int], None],
    ) -> None:
        self.device = device
        self._handler = handler
        self._limits = limits
        self._counters = counters
        self._puback = puback
        self._unacked: dict[int, tuple[int, int]] = {}  # packet id -> (delivery, bytes)
        self._deliveries = 0
        self._bytes = 0
        self._waiting: deque[Delivery] = deque()
        self._closed = False

    @property
    def full(self) -> bool:
        """The device has used up its window: stop reading from it."""
        return (
            len(self._unacked) >= self._limits.unacked or self._bytes >= self._limits.unacked_bytes
        )

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def in_flight(self, number: int) -> bool:
        return number in self._unacked

    def offer(self, topic: Topic, payload: bytes, number: int | None) -> None:
        """Hand on one message; `number` is its packet id at QoS 1 and None at QoS 0."""
        size = len(payload)
        if topic.type == STREAM:
            self._counters.frames_up += 1
            self._counters.frame_bytes_up += size
            self._handler.stream(self.device, payload)
            if number is not None:
                self._puback(number)
            return
        self._counters.messages_up += 1
        self._counters.bytes_up += size
        if number is None:
            delivery = Delivery(self.device, topic.type, topic.version, payload, 0)
            if self._waiting or self._handler.up(delivery) is False:
                self._counters.messages_dropped += 1
            return
        # A device may use a packet id again once it has its PUBACK; a late second ack() of the
        # first delivery must not acknowledge the second.
        self._deliveries += 1
        self._unacked[number] = (self._deliveries, size)
        self._bytes += size
        ack = partial(self._ack, number, self._deliveries)
        delivery = Delivery(self.device, topic.type, topic.version, payload, 1, ack)
        if self._waiting or self._handler.up(delivery) is False:
            self._waiting.append(delivery)

    def resume(self) -> None:
        """The handler may have room again: offer what waits, in order."""
        waiting = self._waiting
        while waiting and not self._closed:
            if self._handler.up(waiting[0]) is False:
                return
            waiting.popleft()

    def _ack(self, number: int, delivery: int) -> None:
        entry = self._unacked.get(number)
        if entry is None or entry[0] != delivery:
            return
        del self._unacked[number]
        self._bytes -= entry[1]
        self._counters.acknowledged += 1
        self._puback(number)

    def close(self) -> None:
        """Nothing more is acknowledged: the device sends it again on its next connection."""
        self._closed = True
        self._waiting.clear()
        self._unacked.clear()
        self._bytes = 0


class DownLane:
    """Packets of one connection on their way to the device."""

    __slots__ = (
        "_backlog",
        "_backlog_bytes",
        "_counters",
        "_limits",
        "_line",
        "_look",
        "_loop",
        "_paused",
        "_written",
        "drained",
        "stalled_since",
        "transport",
    )

    def __init__(self, transport: asyncio.Transport, limits: Limits, counters: Counters) -> None:
        self.transport = transport
        self._limits = limits
        self._counters = counters
        self._backlog: deque[bytes] = deque()
        self._backlog_bytes = 0
        self._paused = False
        self._loop = asyncio.get_running_loop()
        self._look: asyncio.TimerHandle | None = None
        sock = transport.get_extra_info("socket")
        self._line = None if sock is None else line(sock.fileno())
        self._written = 0
        self.drained: Callable[[], None] = _nothing  # called when it is congested no longer
        self.stalled_since: float | None = None  # loop time since when nothing has left

    @property
    def buffered(self) -> int:
        """Bytes accepted and not yet with the kernel."""
        return self._backlog_bytes + self.transport.get_write_buffer_size()

    @property
    def congested(self) -> bool:
        """A stream frame given now would wait."""
        return self._paused or bool(self._backlog)

    @property
    def overflowing(self) -> bool:
        return self.congested and self.buffered > self._limits.outgoing_bytes

    def message(self, topic: str, payload: bytes | memoryview) -> None:
        """Write a control message; it passes stream frames that wait."""
        self._counters.messages_down += 1
        self._counters.bytes_down += len(payload)
        self._write(packets.publish(topic, payload))

    def frame(self, topic: bytes, payload: bytes | memoryview) -> None:
        """Write a stream frame, or let it wait its turn. `topic` is a `packets.topic_field`."""
        self._counters.frames_down += 1
        self._counters.frame_bytes_down += len(payload)
        packet = packets.publish_to(topic, payload)
        now = self._loop.time()
        if not self._paused and not self._backlog and self._has_room(now):
            self._write(packet)
            return
        self._backlog.append(packet)
        self._backlog_bytes += len(packet)
        if self.stalled_since is None:
            self.stalled_since = now
        if not self._paused:
            self._look_later()

    def pause(self, now: float) -> None:
        """The transport is full."""
        self._paused = True
        self.stalled_since = now

    def resume(self) -> None:
        """The transport has room: write what waits until it, or the line, is full again."""
        self._paused = False
        self.stalled_since = None
        self._write_backlog()

    def close(self) -> None:
        self._backlog.clear()
        self._backlog_bytes = 0
        self._line = None
        if self._look is not None:
            self._look.cancel()

    def _has_room(self, now: float) -> bool:
        line = self._line
        return line is None or line.has_room(
            now, self._written, self.transport.get_write_buffer_size()
        )

    def _write(self, packet: bytes) -> None:
        self._written += len(packet)
        self.transport.write(packet)

    def _write_backlog(self) -> None:
        backlog, now = self._backlog, self._loop.time()
        while backlog and not self._paused:  # write() may call pause()
            if not self._has_room(now):
                self._look_later()
                return
            packet = backlog.popleft()
            self._backlog_bytes -= len(packet)
            self.stalled_since = now if backlog else None
            self._write(packet)
        if not self.congested:
            self.drained()

    def _look_later(self) -> None:
        """The kernel does not say when the line has taken something: look again soon."""
        if self._look is None:
            if self.stalled_since is None:
                self.stalled_since = self._loop.time()
            self._look = self._loop.call_later(LOOK_S, self._looked)

    def _looked(self) -> None:
        self._look = None
        if not self._paused:
            self._write_backlog()
