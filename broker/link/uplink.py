"""The gate's side of the link: a listener for the portal, and the gate's handler.

    uplink = Uplink(options)
    gate = Gate(replace(gate_options, drained=uplink.drained), uplink)
    uplink.attach(gate)
    await uplink.start()      # uplink.port; then gate.start()

One portal at a time: a newer link takes the place of an older one, which may not know yet that it
is dead. See `broker.link` for the theory.
"""

import asyncio
import logging
import socket
import ssl
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from agent.wire import topics
from broker import packets, tls
from broker.denied import DenyList
from broker.errors import NotStarted, PeerError, Reason
from broker.lanes import ConnectionInfo, Delivery
from broker.link import store, wire
from broker.link.line import Line, LinkLimits
from broker.link.window import Window
from broker.link.wire import Trouble
from broker.server import Gate

log = logging.getLogger(__name__)

_AGAIN_S = 0.2  # after running out of file descriptors


@dataclass(frozen=True, slots=True, kw_only=True)
class UplinkOptions:
    """`authority` is the PEM of the link authority; `state` the folder that keeps the deny-list."""

    host: str
    port: int  # 0 takes a free one; see Uplink.port
    certificate: Path
    key: Path
    authority: Path
    state: Path
    certificates: wire.Certificates | None = None  # when they end, to be told to the portal
    limits: LinkLimits = field(default_factory=LinkLimits)


class Uplink:
    """A broker.lanes.Handler; everything is on the event loop."""

    def __init__(self, options: UplinkOptions) -> None:
        """Raises: NotStarted when the deny-list on disk cannot be read."""
        self._options = options
        self._limits = options.limits
        self._context = link_context(options)
        self._gate: Gate | None = None
        self._line: Line | None = None
        self._lines: set[Line] = set()
        self._window = Window(messages=self._limits.window, most_bytes=self._limits.window_bytes)
        self._online: dict[str, ConnectionInfo] = {}
        self._owed: dict[str, int] = {}  # frame bytes not yet given back to the portal
        self._starved = False
        self._arriving = DenyList()
        self._denied = store.load(options.state)
        self._saving: asyncio.Task[None] | None = None
        self._accepting: asyncio.Task[None] | None = None
        self.port = 0
        self.frames_dropped = 0
        self.links = 0  # that came up, since the start
        self.strangers = 0  # that knocked and got no link

    @property
    def linked(self) -> bool:
        return self._line is not None

    @property
    def waiting(self) -> int:
        """Messages that the portal has not decided on."""
        return len(self._window)

    @property
    def waiting_bytes(self) -> int:
        return self._window.bytes

    # --- life ----------------------------------------------------------------------------------

    def attach(self, gate: Gate) -> None:
        self._gate = gate
        gate.deny(self._denied)

    async def start(self) -> None:
        """Listen. Raises: NotStarted; OSError when the address is taken."""
        if self._gate is None or self._accepting is not None:
            raise NotStarted("attach a gate, and start once")
        options = self._options
        family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
        listener = socket.create_server((options.host, options.port), family=family, backlog=16)
        listener.setblocking(False)
        self.port = listener.getsockname()[1]
        self._accepting = asyncio.create_task(self._accept(listener), name="link")

    async def stop(self) -> None:
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.wait((self._accepting,))
        for line in list(self._lines):
            line.close()
        if self._saving is not None:
            await asyncio.wait((self._saving,))

    async def _accept(self, listener: socket.socket) -> None:
        loop, places = asyncio.get_running_loop(), asyncio.Semaphore(self._limits.places)
        with listener:
            async with asyncio.TaskGroup() as group:
                while True:
                    await places.acquire()
                    try:
                        sock, address = await loop.sock_accept(listener)
                    except OSError as error:
                        places.release()
                        log.error("the link cannot accept a connection: %s", error)
                        await asyncio.sleep(_AGAIN_S)
                        continue
                    group.create_task(self._arrive(sock, str(address[0]), places))

    async def _arrive(self, sock: socket.socket, peer: str, places: asyncio.Semaphore) -> None:
        loop = asyncio.get_running_loop()
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.connect_accepted_socket(
                lambda: Line(self, self._limits, wire.BEFORE_LINK, pings=False),
                sock,
                ssl=self._context,
                ssl_handshake_timeout=self._limits.connect_s,
                ssl_shutdown_timeout=1,
            )
        except (OSError, ssl.CertificateError, EOFError) as error:
            sock.close()
            self.strangers += 1
            log.warning("link: refused %s: %s", peer, error)
        except asyncio.CancelledError:
            sock.close()
            raise
        finally:
            places.release()

    # --- the line ------------------------------------------------------------------------------

    def made(self, line: Line) -> None:
        self._lines.add(line)
        if not wire.names(line.certificate, wire.PORTAL_URI):
            raise PeerError(Reason.NO_IDENTITY)

    def packet(self, line: Line, first: int, body: memoryview) -> None:
        if first == packets.PUBLISH:
            self._down(line, body)
        elif first == packets.PUBACK:
            self._decided(packets.packet_id(body))
        elif first == packets.PINGREQ:
            line.write(packets.PINGRESP_PACKET)
        elif first == packets.CONNECT:
            if packets.connect(body).client_id != wire.PORTAL:
                raise PeerError(Reason.CLIENT_ID)
            line.reader.limits = wire.FROM_PORTAL
            line.write(packets.connack(0))
        elif first == packets.SUBSCRIBE:
            self._subscribe(line, *packets.subscribe(body))
        else:
            line.close()

    def _subscribe(self, line: Line, number: int, wanted: list[tuple[str, int]]) -> None:
        """The portal is ready: what is held and what has happened goes out."""
        granted = {wire.DEVICES, wire.OWN}
        refused = packets.SUBSCRIPTION_REFUSED
        codes = [min(qos, 1) if text in granted else refused for text, qos in wanted]
        line.write(packets.suback(number, codes))
        if refused in codes or line.ready:
            return
        if self._line is not None:
            self._line.close()
        line.ready, self._line = True, line
        self.links += 1
        log.warning("link: the portal is connected")
        now = asyncio.get_running_loop().time()
        if self._options.certificates is not None:
            self._tell(wire.CERTIFICATES, self._options.certificates)
        for part in wire.snapshot(self._online, now):
            self._tell(wire.SNAPSHOT, part)
        for packet_id, delivery, again in self._window.send():
            line.deliver(
                delivery.device, delivery.type, delivery.version, delivery.payload,
                packet_id, again=again,
            )  # fmt: skip
        self._offer()

    def closed(self, line: Line, trouble: Trouble) -> None:
        self._lines.discard(line)
        if not line.ready:
            self.strangers += 1
        if line is not self._line:
            return
        self._line = None
        self._owed.clear()
        self._window.broken()
        log.warning("link: the portal is gone (%s); devices wait", trouble)

    # --- down ----------------------------------------------------------------------------------

    def _down(self, line: Line, body: memoryview) -> None:
        if line is not self._line or self._gate is None:
            raise PeerError(Reason.UNEXPECTED)
        topic, at = wire.topic(body)
        payload = bytes(body[at:])
        if topic == wire.KICK:
            kick = wire.decode(wire.Kick, payload)
            self._gate.kick(kick.device, wire.reason(kick.reason))
        elif topic == wire.DENY:
            self._deny(wire.decode(wire.Denied, payload))
        elif topic.endswith("/dn/s"):
            self._frame(self._gate, topic, payload)
        else:
            self._gate.publish(topic, payload)  # only to a device, and only under its own dn/

    def _frame(self, gate: Gate, topic: str, payload: bytes) -> None:
        device = topic.split("/", 3)[2]
        owed = self._owed.get(device, 0) + len(payload)
        if not gate.publish(topic, payload) or (
            owed >= self._limits.frame_bytes // 4 and not gate.congested(device)
        ):
            self._give_back(device, owed)
        else:
            self._owed[device] = owed

    def drained(self, device: str) -> None:
        """The device's socket takes frames again."""
        owed = self._owed.get(device)
        if owed is not None:
            self._give_back(device, owed)

    def _give_back(self, device: str, owed: int) -> None:
        self._owed.pop(device, None)
        self._tell(wire.TAKEN, wire.Taken(device=device, bytes=owed))

    def _deny(self, part: wire.Denied) -> None:
        before = DenyList() if part.first else self._arriving
        self._arriving = DenyList(
            devices=before.devices.union(part.devices),
            certificates=before.certificates.union(part.certificates),
        )
        if not part.last or self._gate is None:
            return
        self._gate.deny(self._arriving)
        if self._arriving != self._denied:
            self._denied = self._arriving
            if self._saving is None:
                self._saving = asyncio.create_task(self._save(), name="link.denied")

    async def _save(self) -> None:
        """To disk, beside the loop; the newest list last."""
        saved: DenyList | None = None
        try:
            while saved != self._denied:
                saved = self._denied
                await asyncio.to_thread(store.save, self._options.state, saved)
        except OSError:
            log.exception("the deny-list cannot be kept in %s", self._options.state)
        finally:
            self._saving = None

    # --- up: the gate's handler ----------------------------------------------------------------

    def connected(self, device: str, info: ConnectionInfo) -> None:
        self._online[device] = info
        self._owed.pop(device, None)
        now = asyncio.get_running_loop().time()
        self._tell(wire.CONNECTED, wire.Presence.of(device, info, now))

    def disconnected(self, device: str, reason: Reason) -> None:
        self._online.pop(device, None)
        self._owed.pop(device, None)
        self._window.left(device)
        self._tell(wire.DISCONNECTED, wire.Gone(device=device, reason=reason))

    def up(self, delivery: Delivery) -> bool:
        line = self._line
        if not delivery.qos:
            if line is None or line.lane.congested:
                return False  # dropped: at QoS 0 nothing waits
            name = topics.up(delivery.device, delivery.type, delivery.version)
            return line.say(name, delivery.payload)
        number = self._window.add(delivery, sent=line is not None)
        if number is None:
            self._starved = True
            return False
        if line is not None:
            line.deliver(
                delivery.device, delivery.type, delivery.version, delivery.payload,
                number, again=False,
            )  # fmt: skip
        return True

    def _decided(self, number: int) -> None:
        delivery = self._window.decided(number)
        if delivery is None:
            return
        delivery.ack()
        if self._starved and self._window.roomy:
            asyncio.get_running_loop().call_soon(self._offer)

    def _offer(self) -> None:
        self._starved = False
        if self._gate is not None:
            self._gate.resume()

    def stream(self, device: str, frame: bytes) -> None:
        line = self._line
        if line is None or not line.frame(topics.up_stream(device), frame):
            self.frames_dropped += 1  # the stream's ends notice the gap

    def refused(self, peer: str, device: str | None, reason: Reason) -> None:
        log.warning("refused %s (%s): %s", peer, device or "unknown", reason.value)
        if self._line is not None and not self._line.lane.congested:
            self._tell(wire.REFUSED, wire.Refusal(peer=peer, device=device, reason=reason))

    def _tell(self, topic: str, what: msgspec.Struct) -> None:
        """Say it, if there is a portal to hear. One that misses a word begins anew: its next link
        has a snapshot."""
        line = self._line
        if line is not None and not line.say(topic, wire.encode(what)):
            line.close(Trouble.SILENT)


def link_context(options: UplinkOptions) -> ssl.SSLContext:
    """A certificate of the link authority is required; a device's is a stranger's."""
    context = tls.server_context(options.certificate, options.key)
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["mqtt"])
    context.load_verify_locations(cafile=options.authority)
    return context
