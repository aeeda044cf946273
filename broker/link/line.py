"""One link's socket, the same at both ends: bytes to packets, packets to bytes, and time.

A `Line` knows nothing of what the packets mean. It closes once, tells its end, and never waits.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, cast

from agent.wire import topics
from broker import packets
from broker.errors import PeerError
from broker.lanes import Counters, DownLane
from broker.link.wire import Trouble
from broker.options import MIB, Limits

log = logging.getLogger(__name__)

_READ_BUFFER = 256 * 1024
_LOOK_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkLimits:
    """Seconds end in `_s`, bytes in `_bytes`."""

    window: int = 8192  # device messages that await the portal's decision
    window_bytes: int = 32 * MIB
    frame_bytes: int = MIB  # on their way to one device
    waiting_bytes: int = 32 * MIB  # unsent, of a link
    high_bytes: int = 256 * 1024  # in the transport; frames beyond it wait their turn
    ping_s: float = 4.0
    silence_s: float = 12.0
    connect_s: float = 5.0  # TCP, TLS and CONNECT, each
    stalled_s: float = 20.0  # full for so long: the other side has stopped reading
    places: int = 16  # strangers at the door at the same time
    again_s: float = 0.5  # back-off: first ceiling, then doubled
    again_most_s: float = 10.0

    def lane(self) -> Limits:
        return Limits(outgoing_bytes=self.waiting_bytes, outgoing_high_bytes=self.high_bytes)


class End(Protocol):
    """Who uses a line. Nothing here may block."""

    def made(self, line: "Line") -> None:
        """TLS stands. Raises: PeerError for a peer that is somebody else."""

    def packet(self, line: "Line", first: int, body: memoryview) -> None:
        """Raises: PeerError to close."""

    def closed(self, line: "Line", trouble: Trouble) -> None:
        """Once, for every line that was made."""


class Line(asyncio.BufferedProtocol):
    """`ready_by` is the loop time by which `ready` must have been set."""

    lane: DownLane
    _transport: asyncio.Transport

    def __init__(
        self, end: End, limits: LinkLimits, table: tuple[int, ...], *, pings: bool
    ) -> None:
        self._end = end
        self._limits = limits
        self._pings = pings
        self._loop = asyncio.get_running_loop()
        self._buffer = memoryview(bytearray(_READ_BUFFER))
        self.reader = packets.Reader(table)
        self.counters = Counters()
        self.ready = False
        self.over = False
        self._ready_by = self._loop.time() + limits.connect_s
        self._heard = self._loop.time()
        self._pinged = self._heard
        self._acks = bytearray()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def certificate(self) -> Any:
        return self._transport.get_extra_info("ssl_object").getpeercert()

    # --- asyncio -------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast(asyncio.Transport, transport)
        high = self._limits.high_bytes
        transport.set_write_buffer_limits(high=high, low=high // 4)
        self.lane = DownLane(transport, self._limits.lane(), self.counters)
        self._timer = self._loop.call_later(_LOOK_S, self._look)
        self._guard(self._end.made, self)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self.over:
            return
        self._heard = self._loop.time()
        self.reader.feed(self._buffer[:nbytes])
        self._guard(self._advance)
        self.reader.keep()

    def _advance(self) -> None:
        while not self.over and (packet := self.reader.next()) is not None:
            self._end.packet(self, *packet)

    def _guard(self, call: Callable[..., None], *arguments: object) -> None:
        try:
            call(*arguments)
        except PeerError as error:
            log.warning("link: the other side broke a rule: %s", error.reason)
            self.close(Trouble.PROTOCOL)
        except Exception:
            log.exception("link")
            self.close(Trouble.PROTOCOL)

    def eof_received(self) -> None:
        """Half-closed is closed."""

    def connection_lost(self, exc: Exception | None) -> None:
        self.close(Trouble.LOST)

    def pause_writing(self) -> None:
        self.lane.pause(self._loop.time())

    def resume_writing(self) -> None:
        self.lane.resume()

    # --- writing -------------------------------------------------------------------------------

    def write(self, packet: bytes) -> None:
        if not self.over:
            self._transport.write(packet)

    def say(self, topic: str, payload: bytes | memoryview) -> bool:
        """A control message at QoS 0; it passes frames that wait. False when there is no room."""
        if self.over or self.lane.overflowing:
            return False
        self.lane.message(topic, payload)
        return True

    def frame(self, topic: str, payload: bytes | memoryview) -> bool:
        """A stream frame, which may wait its turn. False when there is no room."""
        if self.over or self.lane.overflowing:
            return False
        self.lane.frame(packets.topic_field(topic), payload)
        return True

    def deliver(
        self, device: str, type: str, version: int, payload: bytes, number: int, *, again: bool
    ) -> None:
        """A device's message at QoS 1; the caller's window is the bound."""
        name = topics.up(device, type, version)
        self.write(packets.publish_qos1(name, payload, number, again=again))

    def acknowledge(self, number: int) -> None:
        """Acknowledgements of one turn of the loop leave as one write."""
        if not self._acks:
            self._loop.call_soon(self._flush)
        self._acks += packets.puback(number)

    def _flush(self) -> None:
        self.write(bytes(self._acks))
        self._acks.clear()

    # --- time and the end ----------------------------------------------------------------------

    def _look(self) -> None:
        now = self._loop.time()
        if self._overdue(now):
            self.close(Trouble.SILENT)
        else:
            if self._pings and self.ready and now - self._pinged >= self._limits.ping_s:
                self._pinged = now
                self.write(packets.PINGREQ_PACKET)
            self._timer = self._loop.call_later(_LOOK_S, self._look)

    def _overdue(self, now: float) -> bool:
        stalled = self.lane.stalled_since
        return (
            (not self.ready and now >= self._ready_by)
            or now - self._heard >= self._limits.silence_s
            or (stalled is not None and now - stalled >= self._limits.stalled_s)
        )

    def close(self, trouble: Trouble = Trouble.LOST, *, goodbye: bool = False) -> None:
        """Close, once; `goodbye` sends what is written first."""
        if self.over:
            return
        self.over = True
        if self._timer is not None:
            self._timer.cancel()
        self.lane.close()
        self._end.closed(self, trouble)
        if goodbye:
            self._transport.close()
        else:
            self._transport.abort()
