"""One device's connection: the socket side of the gate.

Theory of operation. TLS has verified the chain before `connection_made`, which reads the identity
off the certificate. Then:

    NEW ──CONNECT within limits──▶ OPENING ──amqtt accepts──▶ LIVE ──▶ OVER
     └────────────refused──────────────┴──────────────────────────────▶┘

Every packet is handled in order. Reading stops while a hold is set: BROKER while amqtt is asked
(so a message behind a SUBSCRIBE is handled after it), WINDOW while the device has too much
un-acknowledged, RATE while it has sent too fast. `end` is the one way out: it is called once, tells
the handler, closes amqtt's session and the socket. When it is *gone*, `broker.life` says.

The read buffer is one for the whole gate: asyncio fills it and calls `buffer_updated` in one step,
so it is free again when that returns, and an idle connection holds no buffer at all.
"""

import asyncio
import logging
from collections.abc import Coroutine
from enum import IntFlag
from typing import Any, cast

from agent.wire import carrier, topics
from broker import acl, packets
from broker.dialogue import Dialogue
from broker.errors import CONNACK, PeerError, Reason
from broker.house import House
from broker.lanes import ConnectionInfo, DownLane, Pace, UpLane
from broker.life import Life, State
from broker.options import Limits

log = logging.getLogger(__name__)

_CACHED_TOPICS = 64
_WATCH_S = 5.0  # how often a connection is looked at when nothing is due sooner


class Hold(IntFlag):
    BROKER = 1
    WINDOW = 2
    RATE = 4


class Connection(Life):
    """See the module's theory of operation."""

    _dialogue: Dialogue
    up: UpLane
    down: DownLane
    _transport: asyncio.Transport

    def __init__(
        self,
        house: House,
        address: tuple[str, int],
        connect_by: float,
        *,
        alpn: str = carrier.ALPN_MQTT,
    ) -> None:
        super().__init__(house)
        self._alpn = alpn
        self.address = address
        self.peer = f"{address[0]}:{address[1]}"
        self._limits: Limits = house.options.limits
        self._connect_by = connect_by
        self._reader = packets.Reader(packets.BEFORE_CONNECT)
        self._holds = Hold(0)
        self._topics: dict[bytes, topics.Topic] = {}
        self._acks = bytearray()
        self._heard = self._loop.time()
        self._held_since: float | None = None
        self._more = False  # the carrier below holds the beginning of a further piece
        self._idle_s = 0.0
        self._keepalive_s = 0
        self._pace = Pace(self._limits, self._heard)
        self._watch: asyncio.TimerHandle | None = None
        self._frames_topic = ""
        self._frames_head = b""
        self._down_prefix = ""

    # --- the socket ----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop's does not inherit
        self._transport = transport
        self._socket_open = True
        self._house.connections.add(self)
        high = self._limits.outgoing_high_bytes
        transport.set_write_buffer_limits(high=high, low=high // 4)
        try:
            self._identify(transport.get_extra_info("ssl_object"))
        except PeerError as error:
            self._state = State.OVER
            self._house.refuse(self.peer, error.device, error.reason)
            transport.abort()
            return
        self._dialogue = Dialogue(self, self._house)
        self.down = DownLane(transport, self._limits, self._house.counters)
        self.down.drained = self._drained
        self._watch = self._loop.call_at(self._connect_by, self._look)

    def _identify(self, tls: Any) -> None:
        """Who is it? The chain is verified; here the names, the time and the deny-list."""
        if tls.selected_alpn_protocol() != self._alpn:
            raise PeerError(Reason.HANDSHAKE)
        identity = acl.identity(tls.getpeercert())
        if self._house.options.wall_clock() >= identity.not_after:
            # OpenSSL has looked already, but not when a session is resumed.
            raise PeerError(Reason.CERTIFICATE_EXPIRED)
        if self._denied(identity):
            raise PeerError(Reason.DENIED, identity.device)  # TLS has verified who it is
        device = identity.device
        self.identity = identity
        self._frames_topic = topics.down_stream(device)
        self._frames_head = packets.topic_field(self._frames_topic)
        self._down_prefix = topics.down_filter(device).removesuffix("#")
        self.up = UpLane(
            device, self._house.handler, self._limits, self._house.counters, self._puback
        )

    def _denied(self, identity: acl.Identity) -> bool:
        return self._house.denied.denies(identity) or not self._house.options.admit(identity)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._house.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.received(self._house.buffer[:nbytes])

    def received(self, chunk: bytes | memoryview, *, more: bool = False) -> None:
        """Take the next bytes of MQTT; `more` when the carrier holds a part of a piece."""
        if self._state is State.OVER:
            return
        self._heard = self._loop.time()
        self._more = more
        self._reader.feed(chunk)
        self._advance()

    def eof_received(self) -> None:
        """Half-closed is closed."""

    def connection_lost(self, exc: Exception | None) -> None:
        self.end(Reason.LOST)
        self._socket_open = False
        self._house.connections.discard(self)
        # What TLS holds, 200 KB where much was read, goes now and not with the next collection:
        # a connection stands in circles with its lanes and its dialogue.
        del self._transport
        if hasattr(self, "down"):
            del self.down.transport
        self._check_gone()

    def pause_writing(self) -> None:
        if self._state is not State.OVER:
            self.down.pause(self._loop.time())

    def resume_writing(self) -> None:
        if self._state is not State.OVER:
            self.down.resume()

    def _drained(self) -> None:
        if self._state is not State.OVER:
            self._house.tell(self._house.options.drained, self.identity.device)

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
        if self._state is State.OVER:
            self._reader = packets.Reader(packets.BEFORE_CONNECT)  # keeps nothing of the rest
            return
        reader.keep()
        if not (reader.held or self._more):
            self._held_since = None
        elif self._held_since is None:
            self._held_since = self._heard

    def _publish(self, first: int, body: memoryview) -> None:
        if len(body) < 2:
            raise PeerError(Reason.MALFORMED)
        at = 2 + (body[0] << 8 | body[1])
        if at > len(body):
            raise PeerError(Reason.MALFORMED)
        name = bytes(body[2:at])
        topic = self._topics.get(name)
        if topic is None:
            topic = self._grant(name)
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
            self.pace()

    def pace(self, messages: int = 1) -> None:
        """Count messages against the device's rate, and stop reading when it is above."""
        pause_s = self._pace.spend(self._heard, messages)
        if pause_s:
            self._hold(Hold.RATE)
            self._loop.call_later(pause_s, self.release, Hold.RATE)

    def _grant(self, name: bytes) -> topics.Topic:
        """Ask the access rule about a topic not seen on this connection."""
        topic = acl.publication(self.identity.device, name)
        if topic is None:
            raise PeerError(Reason.TOPIC)
        if len(self._topics) < _CACHED_TOPICS:
            self._topics[name] = topic
        return topic

    def _control(self, first: int, body: memoryview) -> None:
        self.pace()
        if first == packets.PINGREQ:
            self.write(packets.PINGRESP_PACKET)
        elif first == packets.CONNECT:
            self._connect(packets.connect(body))
        elif first == packets.SUBSCRIBE:
            self._dialogue.subscribe(*packets.subscribe(body))
        elif first == packets.UNSUBSCRIBE:
            self._dialogue.unsubscribe(*packets.unsubscribe(body))
        else:
            self.end(Reason.DISCONNECTED)

    def _connect(self, connect: packets.Connect) -> None:
        device = self.identity.device
        if connect.client_id != device:
            raise PeerError(Reason.CLIENT_ID)
        if self._denied(self.identity):
            raise PeerError(Reason.DENIED)  # since its handshake, when no kick could find it
        if not 0 < connect.keepalive_s <= self._limits.keepalive_most_s:
            raise PeerError(Reason.KEEPALIVE)
        self._state = State.OPENING
        self._reader.limits = self._house.packets
        self._keepalive_s = connect.keepalive_s
        self._idle_s = connect.keepalive_s * self._limits.keepalive_factor
        self._hold(Hold.BROKER)
        predecessor = self._house.seats.get(device)
        self._house.seats[device] = self
        if predecessor is not None:
            predecessor.give_way()
        self.start(self._dialogue.open(predecessor))
        self._look()

    def announce(self) -> None:
        """amqtt has the session: the device is online."""
        self._state = State.LIVE
        self._house.counters.connects += 1
        tls = self._transport.get_extra_info("ssl_object")
        info = ConnectionInfo(
            peer=self.peer,
            tls=tls.version(),
            cipher=tls.cipher()[0],
            certificate=self.identity.serial,
            not_after=self.identity.not_after,
            keepalive_s=self._keepalive_s,
            since=self._loop.time(),
        )
        self._house.tell(self._house.handler.connected, self.identity.device, info)
        self._transport.write(packets.connack(0))
        self.release(Hold.BROKER)

    # --- the portal's side ---------------------------------------------------------------------

    def publish(self, topic: str, payload: bytes | memoryview) -> bool:
        """Write to the device now; False when it is not subscribed or is cut for not reading."""
        if self._state is not State.LIVE or not topic.startswith(self._down_prefix):
            return False
        if not self._dialogue.subscribed(topic):
            return False
        if topic == self._frames_topic:
            self.down.frame(self._frames_head, payload)
        else:
            self.down.message(topic, payload)
        self.check_reader()
        return self.live

    def frame(self, payload: bytes) -> bool:
        """Write a stream frame now; False when it would wait or may not be sent."""
        if (
            self._state is not State.LIVE
            or self.down.congested
            or not self._dialogue.subscribed(self._frames_topic)
        ):
            return False
        self.down.frame(self._frames_head, payload)
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
            self.release(Hold.WINDOW)

    # --- holds, time, the end ------------------------------------------------------------------

    def _hold(self, hold: Hold) -> None:
        if not self._holds:
            self._transport.pause_reading()
        self._holds |= hold

    def release(self, hold: Hold) -> None:
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
        if self._denied(self.identity):
            self.end(Reason.DENIED)
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
        if self.over:
            return
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
        self._dialogue.close()
        if before is State.LIVE:
            house.tell(house.handler.disconnected, self.identity.device, reason)
        if not reason.ordinary:
            house.refuse(self.peer, self.identity.device, reason)
        if before is not State.LIVE and reason in CONNACK:
            self._transport.write(packets.connack(CONNACK[reason]))
            self._transport.close()
        elif reason in (Reason.DISCONNECTED, Reason.WEBSOCKET):
            self._transport.close()
            # asyncio puts a close off while reading is paused and the peer has left; then this
            # sets it going, or the socket would stay for ever.
            self._transport.resume_reading()
        else:
            self._transport.abort()

    def give_way(self) -> None:
        """A newer connection of this device is here: end, and do not wait for a polite close."""
        self.end(Reason.TAKEN_OVER)
        if self._socket_open:
            self._transport.abort()

    # --- for the dialogue with amqtt -----------------------------------------------------------

    def write(self, packet: bytes) -> None:
        """Answer; one that asks and asks and never reads the answers is cut at the bound."""
        self._transport.write(packet)
        self.check_reader()

    def check_reader(self) -> None:
        if self._state is not State.OVER and self.down.overflowing:
            self.end(Reason.NOT_READING)

    def ask(self, question: Coroutine[Any, Any, None]) -> None:
        """Handle nothing more until the question's `answer`."""
        self._hold(Hold.BROKER)
        self.start(question)

    def answer(self, packet: bytes) -> None:
        if not self.over:
            self.write(packet)
            self.release(Hold.BROKER)
