"""amqtt behind the gate: sessions and subscriptions, over pipes in memory.

The gate hands amqtt a CONNECT of its own making, then SUBSCRIBE and UNSUBSCRIBE one at a time, then
DISCONNECT; PUBLISH and PINGREQ never get here. `Registry` is amqtt's Broker, pinned to one release
because it replaces these of its methods:

- `_handle_client_session` walks every subscription of the broker at each connect (the retained
  scan), and `_delete_session` forgets a session at a takeover but leaves its socket live;
- `_client_message_loop` builds `repr` of every subscription at each SUBSCRIBE: 13 ms at 5,000;
- `_del_all_subscriptions` walks every filter at each disconnect, and `_session_monitor` does so in
  one go for a mass drop: 9 s at 5,000. Here an index holds each session's filters, and a session is
  forgotten the moment it ends.

So a connect, a subscription and a disconnect cost the same beside 5 devices or 5,000.
"""

import asyncio
import logging
import secrets
import ssl
from collections.abc import Callable
from typing import Any

import amqtt
from amqtt.adapters import ReaderAdapter, WriterAdapter
from amqtt.broker import Broker, Server
from amqtt.contexts import BrokerConfig, ListenerConfig, ListenerType
from amqtt.mqtt.protocol.broker_handler import BrokerProtocolHandler
from amqtt.session import Session

from broker import packets, plugin
from broker.errors import GateError, NotStarted, PeerError

log = logging.getLogger(__name__)

PINNED = "0.12.1"
LISTENER = "default"
REFUSED = 0x80


# A line for each step of each session at INFO, from amqtt and from the state machine under it.
for _name in ("amqtt", "transitions"):
    logging.getLogger(_name).setLevel(logging.WARNING)


_NO_MESSAGES: asyncio.Queue[Any] = asyncio.Queue(1)  # of every session; nothing is put in


class Inlet(ReaderAdapter):
    """What the gate sends to amqtt. Bounded by the gate, which sends one packet at a time."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._ended = False
        self._more: asyncio.Future[None] | None = None

    def feed(self, data: bytes) -> None:
        self._data += data
        self._wake()

    def feed_eof(self) -> None:
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        if self._more is not None and not self._more.done():
            self._more.set_result(None)

    async def read(self, n: int = -1) -> bytes:
        """Exactly `n` bytes, or fewer at the end (amqtt then sees that the connection is gone)."""
        while not self._ended and (n < 0 or len(self._data) < n):
            self._more = asyncio.get_running_loop().create_future()
            await self._more
        size = len(self._data) if n < 0 else n
        data = bytes(self._data[:size])
        del self._data[:size]
        return data


class Outlet(WriterAdapter):
    """What amqtt answers: CONNACK, SUBACK, UNSUBACK. Anything else is not for the device."""

    def __init__(self, peer: tuple[str, int], answer: Callable[[int, memoryview], None]) -> None:
        self._peer = peer
        self._answer = answer
        self._reader = packets.Reader(packets.FROM_BROKER)
        self._closed = False

    def write(self, data: bytes) -> None:
        if self._closed:
            return
        self._reader.feed(data)
        try:
            while (packet := self._reader.next()) is not None:
                self._answer(*packet)
        except PeerError:
            # A PUBLISH here means that something used amqtt's broadcast: dn/ does not go that way.
            log.error("amqtt wrote a packet that is not an answer; it was dropped")
            self._reader = packets.Reader(packets.FROM_BROKER)
            return
        self._reader.keep()

    async def drain(self) -> None:
        """Nothing to wait for: the gate has taken the answer."""

    def get_peer_info(self) -> tuple[str, int]:
        return self._peer

    def get_ssl_info(self) -> ssl.SSLObject | None:
        return None

    async def close(self) -> None:
        self._closed = True


class Registry(Broker):
    """amqtt's broker as a register of sessions and subscriptions."""

    def __init__(self) -> None:
        self.proof = secrets.token_urlsafe(32)
        self._filters: dict[str, set[str]] = {}  # client id -> its filters
        super().__init__(self.configuration())

    def configuration(self) -> BrokerConfig:
        """External listener only, our plugin only."""
        return BrokerConfig(
            listeners={LISTENER: ListenerConfig(type=ListenerType.EXTERNAL, bind="gate")},
            plugins={plugin.PATH: {"proof": self.proof}},
        )

    async def start(self) -> None:
        """Raises: NotStarted unless everything this class relies on holds."""
        if amqtt.__version__ != PINNED:
            raise NotStarted(f"amqtt {amqtt.__version__}; the gate relies on {PINNED}")
        loaded = self.plugins_manager.plugins
        if len(loaded) != 1 or type(loaded[0]) is not plugin.GatePlugin:
            raise NotStarted(f"amqtt must run with {plugin.PATH} and no other plugin")
        if not self.plugins_manager.is_topic_filtering_enabled():
            raise NotStarted("amqtt would not ask its plugin about topics")
        if any(
            listener.type != ListenerType.EXTERNAL for listener in self.listeners_config.values()
        ):
            raise NotStarted("amqtt may only have an external listener; the gate owns the sockets")
        await super().start()

    async def serve(self, inlet: Inlet, outlet: Outlet) -> None:
        """Run one session until the gate ends it."""
        await self.external_connected(inlet, outlet, LISTENER)

    def filters(self, client_id: str) -> frozenset[str]:
        return frozenset(self._filters.get(client_id, ()))

    # --- replaced ------------------------------------------------------------------------------

    async def _handle_client_session(
        self,
        reader: ReaderAdapter,
        writer: WriterAdapter,
        client_session: Session,
        handler: BrokerProtocolHandler,
        server: Server,
        listener_name: str,
    ) -> None:
        client_id = client_session.client_id
        if not client_id:
            raise GateError("amqtt was given a session without a name")
        allowed = await self._authenticate(client_session, self.listeners_config[listener_name])
        _slim(client_session)
        handler.attach(client_session, reader, writer)
        if not allowed:
            await handler.mqtt_connack_authorize(False)
            return
        client_session.transitions.connect()
        self._sessions[client_id] = (client_session, handler)
        try:
            await handler.mqtt_connack_authorize(True)
            await handler.start()
            # `BrokerProtocolHandler.start` makes the future that tells of the end only after its
            # reader task has run: a goodbye that was there already would be waited for for ever.
            if not handler._reader_stopped.is_set():
                await self._client_message_loop(client_session, handler)
        finally:
            self._forget(client_id)

    async def _client_message_loop(
        self, client_session: Session, handler: BrokerProtocolHandler
    ) -> None:
        ended = asyncio.ensure_future(handler.wait_disconnect())
        subscription = asyncio.ensure_future(handler.get_next_pending_subscription())
        unsubscription = asyncio.ensure_future(handler.get_next_pending_unsubscription())
        try:
            while True:
                done, _ = await asyncio.wait(
                    (ended, subscription, unsubscription), return_when=asyncio.FIRST_COMPLETED
                )
                if ended in done:
                    return
                if subscription in done:
                    await self._handle_subscription(client_session, handler, subscription)
                    subscription = asyncio.ensure_future(handler.get_next_pending_subscription())
                if unsubscription in done:
                    await self._handle_unsubscription(client_session, handler, unsubscription)
                    unsubscription = asyncio.ensure_future(
                        handler.get_next_pending_unsubscription()
                    )
        finally:
            for waiter in (ended, subscription, unsubscription):
                waiter.cancel()
            await self._stop_handler(handler)
            client_session.transitions.disconnect()

    async def _delete_session(self, client_id: str) -> None:
        """At a clean CONNECT. The gate has ended the old session; amqtt would leave it running."""
        if client_id in self._sessions:
            raise GateError("amqtt was given a session that is still live")

    async def add_subscription(self, subscription: tuple[str, int], session: Session) -> int:
        code: int = await super().add_subscription(subscription, session)
        if code != REFUSED and session.client_id:
            self._filters.setdefault(session.client_id, set()).add(subscription[0])
        return code

    def _del_subscription(self, a_filter: str, session: Session) -> int:
        deleted: int = super()._del_subscription(a_filter, session)
        if not self._subscriptions.get(a_filter, True):
            del self._subscriptions[a_filter]
        if session.client_id in self._filters:
            self._filters[session.client_id].discard(a_filter)
        return deleted

    async def _del_all_subscriptions(self, session: Session) -> None:
        for a_filter in self._filters.pop(session.client_id or "", ()):
            self._del_subscription(a_filter, session)

    async def _publish_retained_messages_for_subscription(
        self, subscription: tuple[str, int], session: Session
    ) -> None:
        """There are no retained messages."""

    async def _session_monitor(self) -> None:
        """A session is forgotten when it ends; nothing is left to be found later."""

    async def _broadcast_loop(self) -> None:
        """Nothing is broadcast: the lanes carry every message."""

    async def _broadcast_message(self, *arguments: Any, **options: Any) -> None:
        raise GateError("messages go through the gate's lanes, not through amqtt's broadcast")

    def _forget(self, client_id: str) -> None:
        entry: tuple[Session, Any] | None = self._sessions.pop(client_id, None)
        if entry is None:
            return
        for a_filter in self._filters.pop(client_id, set()):
            self._del_subscription(a_filter, entry[0])
        entry[0].clear_queues()


class _Phase:
    """What amqtt asks of a session's state machine, in 50 bytes instead of 16 KB a device."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        self.state = "new"

    def connect(self) -> None:
        self.state = "connected"

    def disconnect(self) -> None:
        self.state = "disconnected"

    def is_connected(self) -> bool:
        return self.state == "connected"


def _slim(session: Session) -> None:
    """Free what a session never uses here: messages do not pass through it."""
    session.transitions = _Phase()  # type: ignore[assignment]
    session.retained_messages = session.delivered_message_queue = _NO_MESSAGES


class Link:
    """One device's session in amqtt, as the gate drives it."""

    def __init__(self, registry: Registry, device: str, peer: tuple[str, int]) -> None:
        self._registry = registry
        self._device = device
        self._inlet = Inlet()
        self._outlet = Outlet(peer, self._answered)
        self._waiting: asyncio.Future[tuple[int, bytes]] | None = None
        self._closed = False

    async def run(self) -> None:
        """amqtt's side, until `close`."""
        if self._closed:
            return
        try:
            await self._registry.serve(self._inlet, self._outlet)
        finally:
            self._give_up()

    def _give_up(self) -> None:
        self._closed = True
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(GateError("amqtt's session ended"))

    def _answered(self, first: int, body: memoryview) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result((first, bytes(body)))

    async def _ask(self, packet: bytes, expected: int) -> bytes:
        if self._closed:
            raise GateError("amqtt's session ended")
        self._waiting = asyncio.get_running_loop().create_future()
        self._inlet.feed(packet)
        first, body = await self._waiting
        if first != expected:
            raise GateError(f"amqtt answered {first:#04x} where {expected:#04x} was due")
        return body

    async def connect(self) -> bool:
        """Open the session. True when amqtt and its plugin accept it."""
        packet = packets.connect_packet(self._device, self._registry.proof)
        body = await self._ask(packet, packets.CONNACK)
        return body[1] == 0

    async def subscribe(self, number: int, filters: list[str]) -> list[int]:
        """Return codes of the filters, in order: 0 granted, 0x80 refused."""
        body = await self._ask(packets.subscribe_packet(number, filters), packets.SUBACK)
        return list(body[2:])

    async def unsubscribe(self, number: int, filters: list[str]) -> None:
        await self._ask(packets.unsubscribe_packet(number, filters), packets.UNSUBACK)

    def close(self) -> None:
        """Say goodbye; `run` returns soon after."""
        self._give_up()
        self._inlet.feed(packets.DISCONNECT_PACKET)
        self._inlet.feed_eof()
