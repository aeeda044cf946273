"""One device's connection: the socket side of the gate.

Theory of operation. TLS has verified the chain before `connection_made`, which reads the identity
off the certificate. Then:

    NEW ──CONNECT within limits──▶ OPENING ──amqtt accepts──▶ LIVE ──▶ OVER
     └────────────refused──────────────┴──────────────────────────────▶┘

Every packet is handled in order. Reading stops while a hold is set: BROKER while amqtt is asked
(so a message behind a SUBSCRIBE is handled after it), WINDOW while the device has too much
un-acknowledged, RATE while it has sent too fast. `end` is the one way out: it is called once, tells
the handler, closes amqtt's session and the socket. A connection is *gone* when its socket is closed
and its last task has ended; its successor waits for that.

The read buffer is one for the whole gate: asyncio fills it and calls `buffer_updated` in one step,
so it is free again when that returns, and an idle connection holds no buffer at all.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from enum import Enum, IntFlag
from typing import Any, cast

from agent.wire import topics
from broker import acl, packets
from broker.errors import GateError, PeerError, Reason
from broker.lanes import ConnectionInfo, Counters, DownLane, Handler, UpLane
from broker.options import GateOptions, Limits
from broker.session import Link, Registry

log = logging.getLogger(__name__)

ALPN = "mqtt"
READ_BUFFER = 256 * 1024
_CACHED_TOPICS = 64
_WATCH_S = 5.0  # how often a connection is looked at when nothing is due sooner
_LEAST_PAUSE_S = 0.05  # of a device that sends too fast

# What CONNACK says to a refused CONNECT (section 3.2.2.3); any other reason closes without one.
_CONNACK = {
    Reason.PROTOCOL_LEVEL: 1,
    Reason.CLIENT_ID: 2,
    Reason.BROKER: 3,
    Reason.USER_NAME: 4,
    Reason.WILL: 5,
    Reason.KEEPALIVE: 5,
}
# Ends that are part of life; all others are refusals, told to the handler for the audit.
_ORDINARY = frozenset(
    {
        Reason.DISCONNECTED,
        Reason.LOST,
        Reason.SILENT,
        Reason.TAKEN_OVER,
        Reason.KICKED,
        Reason.STOPPING,
        Reason.BROKER,
        Reason.INTERNAL,
    }
)


class State(Enum):
    NEW = "new"
    OPENING = "opening"
    LIVE = "live"
    OVER = "over"


class Hold(IntFlag):
    BROKER = 1
    WINDOW = 2
    RATE = 4


@dataclass(slots=True)
class House:
    """What the connections of one gate share."""

    options: GateOptions
    handler: Handler
    registry: Registry
    spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
    counters: Counters = field(default_factory=Counters)
    seats: dict[str, "Connection"] = field(default_factory=dict)  # by device
    connections: set["Connection"] = field(default_factory=set)
    buffer: memoryview = field(default_factory=lambda: memoryview(bytearray(READ_BUFFER)))
    packets: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        self.packets = packets.from_device(self.options.limits.payload_bytes)

    def tell(self, call: Callable[..., object], *arguments: object) -> None:
        """Call the handler; what it raises is logged and goes no further."""
        try:
            call(*arguments)
        except Exception:
            log.exception("the gate's handler failed")

    def refuse(self, peer: str, device: str | None, reason: Reason) -> None:
        self.counters.refused[reason] = self.counters.refused.get(reason, 0) + 1
        self.tell(self.handler.refused, peer, device, reason)


class Connection(asyncio.BufferedProtocol):
    """See the module's theory of operation."""

    __slots__ = (
        "_acks",
        "_connect_by",
        "_down_prefix",
        "_frames_topic",
        "_gone",
        "_granted",
        "_heard",
        "_held_since",
        "_holds",
        "_house",
        "_idle_s",
        "_limits",
        "_link",
        "_loop",
        "_reader",
        "_session_task",
        "_socket_open",
        "_state",
        "_tasks",
        "_tokens",
        "_tokens_at",
        "_topics",
        "_transport",
        "_watch",
        "_whole",
        "down",
        "identity",
        "peer",
        "up",
    )

    identity: acl.Identity
    up: UpLane
    down: DownLane
    _transport: asyncio.Transport

    def __init__(self, house: House, connect_by: float) -> None:
        self._house = house
        self._loop = asyncio.get_running_loop()
        self._limits: Limits = house.options.limits
        self._connect_by = connect_by
        self._reader = packets.Reader(packets.BEFORE_CONNECT)
        self._state = State.NEW
        self._holds = Hold(0)
        self._granted: set[str] = set()
        self._whole = False  # subscribed to all of its dn/
        self._topics: dict[bytes, topics.Topic] = {}
        self._acks = bytearray()
        self._heard = self._loop.time()
        self._held_since: float | None = None
        self._idle_s = 0.0
        self._tokens = float(self._limits.messages_burst)
        self._tokens_at = self._heard
        self._link: Link | None = None
        self._session_task: asyncio.Task[None] | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._tasks = 0
        self._socket_open = False
        self._gone: asyncio.Future[None] | None = None
        self._frames_topic = ""
        self._down_prefix = ""
        self.peer = ""

    @property
    def live(self) -> bool:
        return self._state is State.LIVE

    @property
    def over(self) -> bool:
        return self._state is State.OVER

    # --- the socket ----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop's does not inherit
        self._transport = transport
        self._socket_open = True
        host, port = transport.get_extra_info("peername")[:2]
        self.peer = f"{host}:{port}"
        self._house.connections.add(self)
        high = self._limits.outgoing_high_bytes
        transport.set_write_buffer_limits(high=high, low=high // 4)
        try:
            self._identify(transport.get_extra_info("ssl_object"))
        except PeerError as error:
            self._state = State.OVER
            self._house.refuse(self.peer, None, error.reason)
            transport.abort()
            return
        self.down = DownLane(transport, self._limits, self._house.counters)
        self._watch = self._loop.call_at(self._connect_by, self._look)

    def _identify(self, tls: Any) -> None:
        """Who is it? The chain is verified; here the names, the time and the deny-list."""
        if tls.selected_alpn_protocol() != ALPN:
            raise PeerError(Reason.HANDSHAKE)
        identity = acl.identity(tls.getpeercert())
        if self._house.options.wall_clock() >= identity.not_after:
            # OpenSSL has looked already, but not when a session is resumed.
            raise PeerError(Reason.CERTIFICATE_EXPIRED)
        if not self._house.options.admit(identity):
            raise PeerError(Reason.DENIED)
        device = identity.device
        self.identity = identity
        self._frames_topic = topics.down_stream(device)
        self._down_prefix = topics.down_filter(device).removesuffix("#")
        self.up = UpLane(
            device, self._house.handler, self._limits, self._house.counters, self._puback
        )

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._house.buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._state is State.OVER:
            return
        self._heard = self._loop.time()
        self._reader.feed(self._house.buffer[:nbytes])
        self._advance()

    def eof_received(self) -> None:
        """Half-closed is closed."""

    def connection_lost(self, exc: Exception | None) -> None:
        self.end(Reason.LOST)
        self._socket_open = False
        self._house.connections.discard(self)
        self._check_gone()

    def pause_writing(self) -> None:
        if self._state is not State.OVER:
            self.down.pause(self._loop.time())

    def resume_writing(self) -> None:
        if self._state is not State.OVER:
            self.down.resume()

    # --- packets -------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Handle what has been read, packet by packet, until a hold or the end of it."""
        reader = self._reader
        try:
            while not self._holds and self._state is not State.OVER:
                packet = reader.next()
                if packet is None:
                    break
                if packet[0] & 0xF0 == packets.PUBLISH:
                    self._publish(*packet)
                else:
                    self._control(*packet)
        except PeerError as error:
            self.end(error.reason)
        except Exception:
            log.exception("connection of %s", self.identity.device)
            self.end(Reason.INTERNAL)
        reader.keep()
        if not reader.held:
            self._held_since = None
        elif self._held_since is None:
            self._held_since = self._heard

    def _publish(self, first: int, body: memoryview) -> None:
        if len(body) < 2:
            raise PeerError(Reason.MALFORMED)
        at = 2 + (body[0] << 8 | body[1])
        name = bytes(body[2:at])
        topic = self._topics.get(name)
        if topic is None:
            topic = self._grant(name, at - 2)
        number = None
        if first != packets.PUBLISH:
            number = packets.packet_id(body, at)
            at += 2
            if self.up.in_flight(number):
                raise PeerError(Reason.PACKET_ID)
        payload = bytes(body[at:])
        if len(payload) > self._limits.payload_bytes:
            raise PeerError(Reason.TOO_LARGE)
        self.up.offer(topic, payload, number)
        if number is not None and self.up.full:
            self._hold(Hold.WINDOW)
        if topic.version:  # stream frames have none, and no rate
            self._tokens -= 1
            if self._tokens < 0:
                self._slow()

    def _grant(self, name: bytes, announced: int) -> topics.Topic:
        """Ask the access rule about a topic not seen on this connection."""
        if len(name) != announced:
            raise PeerError(Reason.MALFORMED)
        topic = acl.publication(self.identity.device, name)
        if topic is None:
            raise PeerError(Reason.TOPIC)
        if len(self._topics) < _CACHED_TOPICS:
            self._topics[name] = topic
        return topic

    def _slow(self) -> None:
        """More than the rate: refill, and when nothing is left stop reading for a moment."""
        now = self._loop.time()
        rate = self._limits.messages_per_s
        refilled = self._tokens + (now - self._tokens_at) * rate
        self._tokens = min(refilled, float(self._limits.messages_burst))
        self._tokens_at = now
        if self._tokens < 0:
            pause = max(-self._tokens / rate, _LEAST_PAUSE_S)
            self._hold(Hold.RATE)
            self._loop.call_later(pause, self._release, Hold.RATE)

    def _control(self, first: int, body: memoryview) -> None:
        if first == packets.PINGREQ:
            self._transport.write(packets.PINGRESP_PACKET)
        elif first == packets.CONNECT:
            self._connect(packets.connect(body))
        elif first == packets.SUBSCRIBE:
            self._subscribe(*packets.subscribe(body))
        elif first == packets.UNSUBSCRIBE:
            self._unsubscribe(*packets.unsubscribe(body))
        else:
            self.end(Reason.DISCONNECTED)

    def _connect(self, connect: packets.Connect) -> None:
        device = self.identity.device
        if connect.client_id != device:
            raise PeerError(Reason.CLIENT_ID)
        if not 0 < connect.keepalive_s <= self._limits.keepalive_most_s:
            raise PeerError(Reason.KEEPALIVE)
        self._state = State.OPENING
        self._reader.limits = self._house.packets
        self._idle_s = connect.keepalive_s * self._limits.keepalive_factor
        self._hold(Hold.BROKER)
        predecessor = self._house.seats.get(device)
        self._house.seats[device] = self
        if predecessor is not None:
            predecessor.end(Reason.TAKEN_OVER)
        self._start(self._open(connect.keepalive_s, predecessor))
        self._look()

    async def _open(self, keepalive_s: int, predecessor: "Connection | None") -> None:
        """Wait until the predecessor is gone, open amqtt's session, announce the device."""
        async with asyncio.timeout(self._limits.broker_s):
            if predecessor is not None:
                await predecessor.gone()
            if self._state is State.OVER:
                return
            host, _, port = self.peer.rpartition(":")
            self._link = Link(self._house.registry, self.identity.device, (host, int(port)))
            self._session_task = self._start(self._session(self._link))
            if not await self._link.connect():
                raise GateError("amqtt refused a device that the gate vouches for")
        if self.over:
            return
        self._state = State.LIVE
        self._house.counters.connects += 1
        self._house.tell(
            self._house.handler.connected, self.identity.device, self._info(keepalive_s)
        )
        self._transport.write(packets.connack(0))
        self._release(Hold.BROKER)

    def _info(self, keepalive_s: int) -> ConnectionInfo:
        tls = self._transport.get_extra_info("ssl_object")
        return ConnectionInfo(
            peer=self.peer,
            tls=tls.version(),
            cipher=tls.cipher()[0],
            certificate=self.identity.serial,
            not_after=self.identity.not_after,
            keepalive_s=keepalive_s,
        )

    async def _session(self, link: Link) -> None:
        """amqtt's session beside this connection; neither outlives the other."""
        try:
            await link.run()
        finally:
            self.end(Reason.BROKER)

    def _subscribe(self, number: int, wanted: list[tuple[str, int]]) -> None:
        device = self.identity.device
        granted: list[str] = []
        for text, _ in wanted:
            allowed = acl.may_subscribe(device, text)
            if not allowed:
                self._house.refuse(self.peer, device, Reason.FILTER)
            elif text not in granted and len(self._granted) + len(granted) < self._limits.filters:
                granted.append(text)
        names = [text for text, _ in wanted]
        if not granted:
            refused = [packets.SUBSCRIPTION_REFUSED] * len(names)
            self._transport.write(packets.suback(number, refused))
            return
        self._hold(Hold.BROKER)
        self._start(self._ask_subscribe(number, names, granted))

    async def _ask_subscribe(self, number: int, names: list[str], granted: list[str]) -> None:
        assert self._link is not None  # noqa: S101  LIVE has one
        async with asyncio.timeout(self._limits.broker_s):
            answers = await self._link.subscribe(number, granted)
        if self._state is State.OVER:
            return
        codes = dict(zip(granted, answers, strict=True))
        self._granted.update(text for text, code in codes.items() if code == 0)
        self._whole = self._down_prefix + "#" in self._granted
        refused = packets.SUBSCRIPTION_REFUSED
        self._transport.write(packets.suback(number, [codes.get(text, refused) for text in names]))
        self._release(Hold.BROKER)

    def _unsubscribe(self, number: int, names: list[str]) -> None:
        known = [text for text in dict.fromkeys(names) if text in self._granted]
        self._granted.difference_update(known)
        self._whole = self._down_prefix + "#" in self._granted
        if not known:
            self._transport.write(packets.unsuback(number))
            return
        self._hold(Hold.BROKER)
        self._start(self._ask_unsubscribe(number, known))

    async def _ask_unsubscribe(self, number: int, known: list[str]) -> None:
        assert self._link is not None  # noqa: S101  LIVE has one
        async with asyncio.timeout(self._limits.broker_s):
            await self._link.unsubscribe(number, known)
        if self._state is not State.OVER:
            self._transport.write(packets.unsuback(number))
            self._release(Hold.BROKER)

    # --- the portal's side ---------------------------------------------------------------------

    def publish(self, topic: str, payload: bytes | memoryview) -> bool:
        """Write to the device now; False when it is not subscribed or is cut for not reading."""
        if self._state is not State.LIVE or not topic.startswith(self._down_prefix):
            return False
        if not self._whole and topic not in self._granted:
            return False
        if topic == self._frames_topic:
            self.down.frame(topic, payload)
        else:
            self.down.message(topic, payload)
        if self.down.overflowing:
            self.end(Reason.NOT_READING)
            return False
        return True

    def resume(self) -> None:
        """The handler has room again."""
        if self._state is State.LIVE:
            self.up.resume()

    def _puback(self, number: int) -> None:
        """Acknowledgements of one turn of the loop leave as one write."""
        if not self._acks:
            self._loop.call_soon(self._flush_acks)
        self._acks += packets.puback(number)

    def _flush_acks(self) -> None:
        if self._state is State.OVER:
            return
        self._transport.write(bytes(self._acks))
        self._acks.clear()
        if not self.up.full:
            self._release(Hold.WINDOW)

    # --- holds, time, the end ------------------------------------------------------------------

    def _hold(self, hold: Hold) -> None:
        if not self._holds:
            self._transport.pause_reading()
        self._holds |= hold

    def _release(self, hold: Hold) -> None:
        if not self._holds & hold:
            return
        self._holds &= ~hold
        if not self._holds:
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        if self._holds or self._state is State.OVER:
            return
        self._heard = self._loop.time()  # not silent: it was we who did not read
        self._reader.feed(b"")
        self._advance()
        if not self._holds and not self.over:
            self._transport.resume_reading()

    def _look(self) -> None:
        """The one timer: no CONNECT, silence, the certificate, a packet or a reader stuck."""
        now = self._loop.time()
        if self._watch is not None:
            self._watch.cancel()
        if self._state is State.NEW:
            self.end(Reason.CONNECT_LATE)
            return
        if not self._holds and now - self._heard >= self._idle_s:
            self.end(Reason.SILENT)
            return
        left_s = self.identity.not_after - self._house.options.wall_clock()
        if left_s <= 0:
            self.end(Reason.CERTIFICATE_EXPIRED)
            return
        if self.down.stalled_since is not None and (
            now - self.down.stalled_since >= self._limits.stalled_s
        ):
            self.end(Reason.NOT_READING)
            return
        if self._held_since is not None and now - self._held_since >= self._limits.packet_s:
            self.end(Reason.STUCK)
            return
        silent_in = self._idle_s - (now - self._heard)
        if self._holds:
            silent_in = self._idle_s
        self.resume()  # in case the handler has room and has not said so
        self._watch = self._loop.call_later(min(silent_in, left_s, _WATCH_S), self._look)

    def end(self, reason: Reason) -> None:
        """Close, once, for this reason."""
        if self._state is State.OVER:
            return
        before, self._state = self._state, State.OVER
        house = self._house
        house.counters.ended[reason] = house.counters.ended.get(reason, 0) + 1
        if self._watch is not None:
            self._watch.cancel()
        self.up.close()
        self.down.close()
        if self._link is not None:
            self._link.close()
        if self._session_task is not None:  # it ends by itself; this is for the day it does not
            self._loop.call_later(self._limits.broker_s, self._session_task.cancel)
        if before is State.LIVE:
            house.tell(house.handler.disconnected, self.identity.device, reason)
        if reason not in _ORDINARY:
            house.refuse(self.peer, self.identity.device, reason)
        if before is not State.LIVE and reason in _CONNACK:
            self._transport.write(packets.connack(_CONNACK[reason]))
            self._transport.close()
        elif reason is Reason.DISCONNECTED:
            self._transport.close()
        else:
            self._transport.abort()

    # --- tasks ---------------------------------------------------------------------------------

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        self._tasks += 1
        return self._house.spawn(self._guard(work))

    async def _guard(self, work: Coroutine[Any, Any, None]) -> None:
        """A task of this connection ends this connection when it fails, and no other."""
        try:
            await work
        except (GateError, TimeoutError):
            self.end(Reason.BROKER)
        except Exception:
            log.exception("connection of %s", self.identity.device)
            self.end(Reason.INTERNAL)
        finally:
            self._tasks -= 1
            self._check_gone()

    async def gone(self) -> None:
        """Wait until the socket is closed and the last task has ended."""
        if self._gone is None:
            self._gone = self._loop.create_future()
            self._check_gone()
        await asyncio.shield(self._gone)

    def _check_gone(self) -> None:
        if self._socket_open or self._tasks:
            return
        if self._state is State.OVER and hasattr(self, "identity"):
            seats = self._house.seats
            if seats.get(self.identity.device) is self:
                del seats[self.identity.device]
        if self._gone is not None and not self._gone.done():
            self._gone.set_result(None)
