"""The portal's side of the link: a gate in another process, as a Transport.

    remote = RemoteGate(options, exchange.entrance("east"))
    exchange.add("east", remote)
    await remote.run()      # connects, and again, until cancelled

While there is no link, its devices are gone for the portal: nothing can be sent to them. When it is
back, the snapshot says who is there. See `broker.link` for the theory.
"""

import asyncio
import logging
import random
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from agent.wire import topics
from agent.wire.messages import MAX_PAYLOAD
from agent.wire.topics import STREAM, Direction, Topic
from broker import packets, tls
from broker.denied import DenyList
from broker.errors import PeerError, Reason
from broker.lanes import Delivery, Handler
from broker.link import wire
from broker.link.line import Line, LinkLimits
from broker.link.wire import Trouble
from broker.transport import Health

log = logging.getLogger(__name__)

_KEEPALIVE_S = 15
_LASTING_S = 10.0  # a link that lasted so long begins the back-off anew
_CACHED_TOPICS = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteOptions:
    """`name` is what the gate's certificate must say; `authority` the PEM of the link authority."""

    name: str
    host: str
    port: int
    certificate: Path
    key: Path
    authority: Path
    limits: LinkLimits = field(default_factory=LinkLimits)


class RemoteGate:
    """A Transport. `changed` is called when the link comes up or goes."""

    def __init__(
        self,
        options: RemoteOptions,
        handler: Handler,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.options = options
        self._limits = options.limits
        self._handler = handler
        self._changed = changed
        self._line: Line | None = None
        self._complete = False  # the snapshot is in
        self._ended: asyncio.Future[None] | None = None
        self._frames: dict[str, int] = {}  # connected device -> frame bytes not given back
        self._waiting: deque[tuple[int, Delivery]] = deque()
        self._undecided: dict[int, int] = {}  # packet id -> bytes
        self._undecided_bytes = 0
        self._denied = DenyList()
        self._topics: dict[bytes, Topic] = {}
        self._jitter = random.SystemRandom()
        self.trouble: Trouble | None = Trouble.NOT_YET
        self.links = 0  # that came up, since the start
        self.failures: dict[Trouble, int] = {}  # attempts and links that ended so
        self._ends: float | None = None  # the first of its certificates to end, seconds since 1970

    # --- life ----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Hold a link, with full jitter between attempts, until cancelled."""
        loop, failures = asyncio.get_running_loop(), 0
        try:
            while True:
                began = loop.time()
                await self._once()
                failures = 0 if loop.time() - began >= _LASTING_S else failures + 1
                ceiling = self._limits.again_s * 2.0 ** min(failures, 10)
                pause_s = self._jitter.uniform(0, min(ceiling, self._limits.again_most_s))
                await asyncio.sleep(pause_s)
        finally:
            if self._line is not None:
                self._line.write(packets.DISCONNECT_PACKET)
                self._line.close(goodbye=True)

    async def _once(self) -> None:
        """One attempt, and the link until it ends."""
        options, loop = self.options, asyncio.get_running_loop()
        self._ended = loop.create_future()
        try:
            async with asyncio.timeout(2 * self._limits.connect_s):
                await loop.create_connection(
                    lambda: Line(self, self._limits, wire.FROM_GATE, pings=True),
                    options.host,
                    options.port,
                    ssl=remote_context(options),
                    ssl_handshake_timeout=self._limits.connect_s,
                    ssl_shutdown_timeout=1,
                )
        except (ssl.SSLError, ssl.CertificateError):
            self._failed(Trouble.TLS)
        except (OSError, TimeoutError, EOFError):
            self._failed(Trouble.UNREACHABLE)
        else:
            await self._ended

    def _failed(self, trouble: Trouble) -> None:
        self.failures[trouble] = self.failures.get(trouble, 0) + 1
        self._note(trouble)

    def _note(self, trouble: Trouble | None) -> None:
        if trouble is not self.trouble:
            log.warning("access server %s: %s", self.options.name, trouble or "linked")
            self.trouble = trouble
            self._changed()

    # --- the line ------------------------------------------------------------------------------

    def made(self, line: Line) -> None:
        self._line = line
        if not wire.names(line.certificate, wire.SERVER_URI + self.options.name):
            line.close(Trouble.NAME)
            return
        # As long as the gate does not say more: what it shows to us was made with the rest.
        self._ends = ssl.cert_time_to_seconds(line.certificate["notAfter"])
        line.write(packets.client_packet(wire.PORTAL, _KEEPALIVE_S))

    def closed(self, line: Line, trouble: Trouble) -> None:
        if line is not self._line:
            return
        self._line, self._complete = None, False
        self._waiting.clear()
        self._undecided.clear()
        self._undecided_bytes = 0
        gone, self._frames = list(self._frames), {}
        # A refusal of our certificate comes after the handshake in TLS 1.3, if it comes at all.
        early = trouble is Trouble.LOST and not line.ready
        self._failed(Trouble.TLS if early else trouble)
        for device in gone:
            self._handler.disconnected(device, Reason.LINK_LOST)
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)

    def packet(self, line: Line, first: int, body: memoryview) -> None:
        if first & 0xF0 == packets.PUBLISH:
            self._publish(line, first, body)
        elif first == packets.CONNACK:
            if len(body) != 2 or body[1]:
                line.close(Trouble.REFUSED)
                return
            line.write(packets.subscribe_packet(1, (wire.DEVICES, wire.OWN), qos=1))
        elif first == packets.SUBACK:
            if any(code & packets.SUBSCRIPTION_REFUSED for code in body[2:]):
                line.close(Trouble.REFUSED)
                return
            line.ready = True
            self._send_denied()

    def _publish(self, line: Line, first: int, body: memoryview) -> None:
        at = 2 + (body[0] << 8 | body[1]) if len(body) >= 2 else len(body) + 1
        if at > len(body):
            raise PeerError(Reason.MALFORMED)
        topic = self._topics.get(bytes(body[2:at]))
        if topic is None:
            name, at = wire.topic(body)
            topic = topics.parse(name)
            if topic is None or topic.direction is not Direction.UP:
                self._own(name, body[at:])
                return
            if len(self._topics) >= _CACHED_TOPICS:
                self._topics.clear()
            self._topics[name.encode()] = topic
        number = None
        if first != packets.PUBLISH:
            number = packets.packet_id(body, at)
            at += 2
        self._up(line, topic, bytes(body[at:]), number)

    def _own(self, name: str, payload: memoryview) -> None:
        now = asyncio.get_running_loop().time()
        match name:
            case wire.SNAPSHOT:
                part = wire.decode(wire.Snapshot, payload)
                for presence in part.devices:
                    self._came(presence, now)
                if part.last:
                    self._complete = True
                    self.links += 1
                    self._note(None)
            case wire.CERTIFICATES:
                ends = wire.decode(wire.Certificates, payload)
                self._ends = min(ends.server, ends.link)
            case wire.CONNECTED:
                self._came(wire.decode(wire.Presence, payload), now)
            case wire.DISCONNECTED:
                gone = wire.decode(wire.Gone, payload)
                if self._frames.pop(gone.device, None) is not None:
                    self._handler.disconnected(gone.device, wire.reason(gone.reason))
            case wire.REFUSED:
                refusal = wire.decode(wire.Refusal, payload)
                reason = wire.reason(refusal.reason)
                self._handler.refused(refusal.peer, refusal.device, reason)
            case wire.TAKEN:
                taken = wire.decode(wire.Taken, payload)
                left = self._frames.get(taken.device)
                if left is not None:
                    self._frames[taken.device] = max(0, left - taken.bytes)

    def _came(self, presence: wire.Presence, now: float) -> None:
        if not topics.is_device_id(presence.device):
            raise PeerError(Reason.NO_IDENTITY)
        if presence.device in self._frames:
            raise PeerError(Reason.UNEXPECTED)
        self._frames[presence.device] = 0
        self._handler.connected(presence.device, presence.info(now))

    # --- up ------------------------------------------------------------------------------------

    def _up(self, line: Line, topic: Topic, payload: bytes, number: int | None) -> None:
        known = topic.device in self._frames
        if topic.type == STREAM:
            if known:
                self._handler.stream(topic.device, payload)
            return
        if number is None:
            delivery = Delivery(topic.device, topic.type, topic.version, payload, 0)
            if known and not self._waiting:
                self._handler.up(delivery)
            return
        if not known:
            # An access server speaks for the devices that it has, and they are told first.
            raise PeerError(Reason.UNEXPECTED)
        self._count(number, len(payload))
        ack = partial(self._ack, line, number)
        delivery = Delivery(topic.device, topic.type, topic.version, payload, 1, ack)
        if self._waiting or self._handler.up(delivery) is False:
            self._waiting.append((number, delivery))

    def _count(self, number: int, size: int) -> None:
        """The gate keeps its window; twice that is a fault of the other side."""
        if number in self._undecided:
            raise PeerError(Reason.PACKET_ID)
        self._undecided[number] = size
        self._undecided_bytes += size
        if (
            len(self._undecided) > 2 * self._limits.window
            or self._undecided_bytes > 2 * self._limits.window_bytes + MAX_PAYLOAD
        ):
            raise PeerError(Reason.TOO_LARGE)

    def _ack(self, line: Line, number: int) -> None:
        if line is not self._line:
            return
        size = self._undecided.pop(number, None)
        if size is not None:
            self._undecided_bytes -= size
            line.acknowledge(number)

    # --- Transport -----------------------------------------------------------------------------

    def publish(self, topic: str, payload: bytes | memoryview) -> bool:
        if len(payload) > MAX_PAYLOAD:
            raise ValueError(f"{len(payload)} bytes; the most is {MAX_PAYLOAD}")
        levels = topic.split("/", 4)
        line = self._line
        if line is None or len(levels) != 5 or levels[2] not in self._frames:
            return False
        if levels[4] != STREAM:
            return line.say(topic, payload)
        if not line.frame(topic, payload):
            return False
        self._frames[levels[2]] += len(payload)
        return True

    def frame(self, device: str, frame: bytes) -> bool:
        return not self.congested(device) and self.publish(topics.down_stream(device), frame)

    def congested(self, device: str) -> bool:
        """Whether the link, or the device's share of it, is full."""
        line = self._line
        if line is None:
            return False
        return line.lane.congested or self._frames.get(device, 0) >= self._limits.frame_bytes

    def kick(self, device: str, reason: Reason = Reason.KICKED) -> bool:
        if self._line is None or device not in self._frames:
            return False
        return self._line.say(wire.KICK, wire.encode(wire.Kick(device=device, reason=reason)))

    def deny(self, denied: DenyList) -> None:
        self._denied = denied
        self._send_denied()

    def _send_denied(self) -> None:
        if self._line is None or not self._line.ready:
            return
        for part in wire.denied(self._denied):
            if not self._line.say(wire.DENY, wire.encode(part)):
                # Half a list is none: the next link begins with all of it.
                self._line.close()
                return

    def resume(self) -> None:
        waiting = self._waiting
        while waiting:
            if self._handler.up(waiting[0][1]) is False:
                return
            waiting.popleft()

    @property
    def undecided(self) -> int:
        """Messages that came and await the portal's decision."""
        return len(self._undecided)

    def health(self) -> Health:
        detail = self.trouble.value if self.trouble is not None else ""
        return Health(
            up=self._complete, devices=len(self._frames), detail=detail, certificates_end=self._ends
        )


def remote_context(options: RemoteOptions) -> ssl.SSLContext:
    """Believes the link authority alone. Which server it is, the certificate's name says, whatever
    address it has today."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.set_ciphers(tls.CIPHERS)
    context.set_alpn_protocols(["mqtt"])
    context.load_verify_locations(cafile=options.authority)
    context.load_cert_chain(options.certificate, options.key)
    return context
