"""amqtt behind the gate: sessions and subscriptions.

The gate hands amqtt a CONNECT of its own making, through the external listener and over a pipe in
memory; so amqtt reads it, asks the plugin who that is, and answers. From then on there is nothing
to read (ADR 0021): the gate has parsed what a device sends, and asks by calling what amqtt itself
calls for a SUBSCRIBE, `add_subscription`, which asks the plugin again. A session that waits is an
entry in amqtt's register and nothing else: no task, no queue, no pipe.

`Registry` is amqtt's Broker, pinned to one release because it replaces these of its methods:

- `_handle_client_session` walks every subscription of the broker at each connect (the retained
  scan), then keeps a reader, five tasks and three queues for each session; and `_delete_session`
  forgets a session at a takeover but leaves its socket live;
- `_del_all_subscriptions` walks every filter at each disconnect, and `_session_monitor` does so in
  one go for a mass drop: 9 s at 5,000. Here an index holds each session's filters, and a session is
  forgotten the moment it ends.

So a connect, a subscription and a disconnect cost the same beside 5 devices or 5,000.
"""

import asyncio
import logging
import secrets
import ssl
from collections import OrderedDict
from typing import Any

import amqtt
from amqtt.adapters import ReaderAdapter, WriterAdapter
from amqtt.broker import Broker, Server
from amqtt.contexts import BrokerConfig, ListenerConfig, ListenerType
from amqtt.mqtt.protocol.broker_handler import BrokerProtocolHandler
from amqtt.session import Session

from broker import packets, plugin
from broker.errors import GateError, NotStarted

log = logging.getLogger(__name__)

PINNED = "0.12.1"
LISTENER = "default"
REFUSED = 0x80


# A line for each step of each session at INFO, from amqtt and from the state machine under it.
for _name in ("amqtt", "transitions"):
    logging.getLogger(_name).setLevel(logging.WARNING)


class Inlet(ReaderAdapter):
    """What the gate sends to amqtt: one CONNECT, whole."""

    def __init__(self, packet: bytes) -> None:
        self._left = packet

    async def read(self, n: int = -1) -> bytes:
        """Up to `n` bytes; amqtt sees an end in fewer."""
        size = len(self._left) if n < 0 else n
        data, self._left = self._left[:size], self._left[size:]
        return data

    def feed_eof(self) -> None:
        """There never is more than the packet."""


class Outlet(WriterAdapter):
    """What amqtt answers: CONNACK, whose code is kept."""

    def __init__(self, peer: tuple[str, int]) -> None:
        self._peer = peer
        self.answer = b""

    def write(self, data: bytes) -> None:
        self.answer += data

    @property
    def accepted(self) -> bool:
        return self.answer == packets.connack(0)

    async def drain(self) -> None:
        """Nothing to wait for."""

    def get_peer_info(self) -> tuple[str, int]:
        return self._peer

    def get_ssl_info(self) -> ssl.SSLObject | None:
        return None

    async def close(self) -> None:
        """There is no socket."""


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
        """Have amqtt read a CONNECT and answer it; a session that it takes stays until `forget`."""
        await self.external_connected(inlet, outlet, LISTENER)

    def filters(self, client_id: str) -> frozenset[str]:
        return frozenset(self._filters.get(client_id, ()))

    async def subscribe(self, client_id: str, filters: list[str]) -> list[int]:
        """Return codes, in order: 0 granted, 0x80 refused. Raises: GateError without a session."""
        session = self._session(client_id)
        return [await self.add_subscription((text, 0), session) for text in filters]

    def unsubscribe(self, client_id: str, filters: list[str]) -> None:
        """Raises: GateError without a session."""
        session = self._session(client_id)
        for text in filters:
            self._del_subscription(text, session)

    def forget(self, client_id: str) -> None:
        """End a session."""
        entry: tuple[Session, Any] | None = self._sessions.pop(client_id, None)
        if entry is None:
            return
        for a_filter in self._filters.pop(client_id, set()):
            self._del_subscription(a_filter, entry[0])

    def _session(self, client_id: str) -> Session:
        if client_id not in self._sessions:
            raise GateError("amqtt has no such session")
        return self._sessions[client_id][0]

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
        if allowed:
            _slim(client_session)
            # Without a handler: nothing of this session is read or written by amqtt.
            self._sessions[client_id] = (client_session, None)  # type: ignore[assignment]
        handler.attach(client_session, reader, writer)
        await handler.mqtt_connack_authorize(allowed)

    async def _delete_session(self, client_id: str) -> None:
        """At a clean CONNECT. The gate has ended the old session; amqtt would leave it running."""
        if client_id in self._sessions:
            raise GateError("amqtt was given a session that is still live")

    async def add_subscription(self, subscription: tuple[str, int], session: Session) -> int:
        code: int = await super().add_subscription(subscription, session)
        client_id = session.client_id or ""
        if code == REFUSED:
            return code
        if self._sessions.get(client_id, (None,))[0] is not session:
            self._del_subscription(subscription[0], session)  # it ended while the plugin was asked
            return REFUSED
        self._filters.setdefault(client_id, set()).add(subscription[0])
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


class _Connected:
    """What amqtt asks of a session's state machine, one for all instead of 16 KB a device."""

    state = "connected"

    def is_connected(self) -> bool:
        return True


_CONNECTED = _Connected()
_NO_MESSAGES: asyncio.Queue[Any] = asyncio.Queue(1)  # of every session; nothing is put in
_NOTHING_IN_FLIGHT: OrderedDict[int, Any] = OrderedDict()


def _slim(session: Session) -> None:
    """Free what a session never uses here: messages do not pass through it."""
    session.transitions = _CONNECTED  # type: ignore[assignment]
    session.retained_messages = session.delivered_message_queue = _NO_MESSAGES
    session.inflight_in = session.inflight_out = _NOTHING_IN_FLIGHT
    session.username = None  # the proof has done its work


class Link:
    """One device's session in amqtt, as the gate drives it."""

    __slots__ = ("_closed", "_device", "_open", "_peer", "_registry")

    def __init__(self, registry: Registry, device: str, peer: tuple[str, int]) -> None:
        self._registry = registry
        self._device = device
        self._peer = peer
        self._open = False
        self._closed = False

    async def connect(self) -> bool:
        """Open the session. True when amqtt and its plugin accept it.

        Raises: GateError when it was closed meanwhile, or another session of the device is live.
        """
        outlet = Outlet(self._peer)
        packet = packets.connect_packet(self._device, self._registry.proof)
        try:
            await self._registry.serve(Inlet(packet), outlet)
        finally:
            self._open = outlet.accepted
            if self._closed:
                self._end()
        if self._closed:
            raise GateError("amqtt's session ended")
        return self._open

    async def subscribe(self, filters: list[str]) -> list[int]:
        """Return codes of the filters, in order: 0 granted, 0x80 refused. Raises: GateError."""
        return await self._registry.subscribe(self._device, filters)

    def unsubscribe(self, filters: list[str]) -> None:
        """Raises: GateError."""
        self._registry.unsubscribe(self._device, filters)

    def close(self) -> None:
        """End the session, or keep it from being opened."""
        self._closed = True
        self._end()

    def _end(self) -> None:
        if self._open:
            self._open = False
            self._registry.forget(self._device)
