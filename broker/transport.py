"""Between the portal and whatever carries messages: one interface, adapters behind it.

The portal publishes, consumes and kicks; it does not know whether the gate is in this process
(`LocalTransport`), behind another broker or behind a RabbitMQ cluster. Brokers are pipes: a message
is acknowledged when its handler has returned, that is when it is committed or refused for good.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from agent.wire import topics
from broker.errors import Reason
from broker.lanes import ConnectionInfo, Delivery
from broker.server import Gate

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Inbound:
    """One message on its way up."""

    topic: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Health:
    up: bool
    devices: int
    detail: str


MessageHandler = Callable[[Inbound], Awaitable[None]]


class Transport(Protocol):
    """What the portal asks of a carrier."""

    async def publish(self, topic: str, payload: bytes) -> bool:
        """Send down at QoS 0. False when the carrier knows that nobody was there."""

    async def consume(self, filter: str, group: str, handler: MessageHandler) -> None:
        """Handle what goes up and matches `filter`, until cancelled.

        Consumers of one group share the messages; each group gets them all. A message is
        acknowledged when the handler of every group that matches has returned.
        """

    async def kick(self, device: str) -> None:
        """Cut the device's connection, if it has one."""

    async def health(self) -> Health: ...


def matches(topic_filter: str, topic: str) -> bool:
    """Whether an MQTT filter matches a topic name (section 4.7)."""
    wanted, given = topic_filter.split("/"), topic.split("/")
    for index, level in enumerate(wanted):
        if level == "#":
            return index == len(wanted) - 1
        if index >= len(given) or level not in ("+", given[index]):
            return False
    return len(wanted) == len(given)


class _Parcel:
    """A delivery and how many groups still have to handle it."""

    __slots__ = ("delivery", "inbound", "left")

    def __init__(self, delivery: Delivery, groups: int) -> None:
        self.delivery = delivery
        self.inbound = Inbound(
            topics.up(delivery.device, delivery.type, delivery.version), delivery.payload
        )
        self.left = groups

    def done(self) -> None:
        self.left -= 1
        if not self.left:
            self.delivery.ack()


@dataclass(slots=True)
class _Group:
    filter: str
    queue: asyncio.Queue[_Parcel]
    consumers: int = 0


class LocalTransport:
    """The gate in this process. Give it to the Gate as its handler, then `attach` the gate.

    `frames` takes what comes on the stream lane; `presence` hears of devices that come and go.
    """

    def __init__(
        self,
        *,
        depth: int = 1000,
        frames: Callable[[str, bytes], None] | None = None,
        presence: Callable[[str, bool], None] | None = None,
    ) -> None:
        self._depth = depth
        self._frames = frames
        self._presence = presence
        self._groups: dict[tuple[str, str], _Group] = {}
        self._gate: Gate | None = None

    def attach(self, gate: Gate) -> None:
        self._gate = gate

    # --- Transport -----------------------------------------------------------------------------

    async def publish(self, topic: str, payload: bytes) -> bool:
        return self._gate is not None and self._gate.publish(topic, payload)

    async def consume(self, filter: str, group: str, handler: MessageHandler) -> None:
        key = (group, filter)
        entry = self._groups.setdefault(key, _Group(filter, asyncio.Queue(self._depth)))
        entry.consumers += 1
        self._resume()
        try:
            while True:
                parcel = await entry.queue.get()
                await self._handle(parcel, handler)
                self._resume()
        finally:
            entry.consumers -= 1
            if not entry.consumers:
                self._groups.pop(key, None)
                self._abandon(entry)

    async def kick(self, device: str) -> None:
        if self._gate is not None:
            self._gate.kick(device)

    async def health(self) -> Health:
        if self._gate is None or not self._gate.port:
            return Health(up=False, devices=0, detail="the gate has not started")
        return Health(up=True, devices=len(self._gate.connections), detail="")

    async def _handle(self, parcel: _Parcel, handler: MessageHandler) -> None:
        try:
            await handler(parcel.inbound)
        except Exception:
            # Not acknowledged; cutting the connection makes the device send it again.
            log.exception("a consumer of %s failed", parcel.inbound.topic)
            await self.kick(parcel.delivery.device)
            return
        parcel.done()

    def _abandon(self, entry: _Group) -> None:
        """Nobody will handle what is queued: have the devices send it again, later."""
        while not entry.queue.empty():
            delivery = entry.queue.get_nowait().delivery
            if delivery.qos and self._gate is not None:
                self._gate.kick(delivery.device)

    def _resume(self) -> None:
        if self._gate is not None:
            self._gate.resume()

    # --- the gate's handler --------------------------------------------------------------------

    def connected(self, device: str, info: ConnectionInfo) -> None:
        if self._presence is not None:
            self._presence(device, True)

    def disconnected(self, device: str, reason: Reason) -> None:
        if self._presence is not None:
            self._presence(device, False)

    def up(self, delivery: Delivery) -> bool:
        name = topics.up(delivery.device, delivery.type, delivery.version)
        groups = [group for group in self._groups.values() if matches(group.filter, name)]
        if not groups or any(group.queue.full() for group in groups):
            return False  # nobody to decide on it yet: it waits at the gate
        parcel = _Parcel(delivery, len(groups))
        for group in groups:
            group.queue.put_nowait(parcel)
        return True

    def stream(self, device: str, frame: bytes) -> None:
        if self._frames is not None:
            self._frames(device, frame)

    def refused(self, peer: str, device: str | None, reason: Reason) -> None:
        log.warning("refused %s (%s): %s", peer, device or "unknown", reason)
