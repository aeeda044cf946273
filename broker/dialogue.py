"""The dialogue with amqtt on behalf of one connection: session, subscriptions.

One question at a time: the connection is held (reads nothing more) until the answer is in, so what
a device sends behind a SUBSCRIBE is handled after it, and nothing queues in amqtt.
"""

import asyncio
from typing import TYPE_CHECKING

from agent.wire import topics
from broker import acl, packets
from broker.errors import GateError, Reason
from broker.house import House
from broker.session import Link

if TYPE_CHECKING:
    from broker.gate import Connection


class Dialogue:
    """Opens, asks and closes; `connection` is told through `announce`, `answer` and `end`."""

    __slots__ = ("_connection", "_everything", "_granted", "_house", "_link", "_whole")

    def __init__(self, connection: "Connection", house: House) -> None:
        self._connection = connection
        self._house = house
        self._everything = topics.down_filter(connection.identity.device)
        self._granted: set[str] = set()
        self._whole = False  # subscribed to all of its dn/
        self._link: Link | None = None

    def subscribed(self, topic: str) -> bool:
        """Whether the device has asked for this topic of its own `dn/`."""
        return self._whole or topic in self._granted

    async def open(self, predecessor: "Connection | None") -> None:
        """Wait until the predecessor is gone, open amqtt's session, announce the device.

        Raises: TimeoutError; GateError when amqtt refuses.
        """
        connection = self._connection
        async with asyncio.timeout(self._house.options.limits.broker_s):
            if predecessor is not None:
                await predecessor.gone()
            if connection.over:
                return
            self._link = Link(self._house.registry, connection.identity.device, connection.address)
            if not await self._link.connect():
                raise GateError("amqtt refused a device that the gate vouches for")
        if not connection.over:
            connection.announce()

    def subscribe(self, number: int, wanted: list[tuple[str, int]]) -> None:
        """Answer SUBSCRIBE: refused at once, or after amqtt and its plugin have been asked."""
        connection, house = self._connection, self._house
        device = connection.identity.device
        names = [text for text, _ in wanted]
        connection.pace(len(names) - 1)  # the packet has been counted; each filter is work
        allowed = [text for text in dict.fromkeys(names) if acl.may_subscribe(device, text)]
        refused = any(text not in allowed for text in names)
        if len(self._granted.union(allowed)) > house.options.limits.filters:
            refused, allowed = True, []
        if refused:  # told once for a packet, or one packet would fill the audit
            house.refuse(connection.peer, device, Reason.FILTER)
        if not allowed:
            connection.write(packets.suback(number, [packets.SUBSCRIPTION_REFUSED] * len(names)))
        else:
            connection.ask(self._subscribe(number, names, allowed))

    async def _subscribe(self, number: int, names: list[str], allowed: list[str]) -> None:
        assert self._link is not None  # noqa: S101  a live connection has one
        async with asyncio.timeout(self._house.options.limits.broker_s):
            answers = await self._link.subscribe(allowed)
        codes = dict(zip(allowed, answers, strict=True))
        self._granted.update(text for text, code in codes.items() if code == 0)
        self._whole = self._everything in self._granted
        refused = packets.SUBSCRIPTION_REFUSED
        self._connection.answer(
            packets.suback(number, [codes.get(text, refused) for text in names])
        )

    def unsubscribe(self, number: int, names: list[str]) -> None:
        """Answer UNSUBSCRIBE; amqtt is told of what it knows."""
        known = [text for text in dict.fromkeys(names) if text in self._granted]
        self._granted.difference_update(known)
        self._whole = self._everything in self._granted
        if known and self._link is not None:
            self._link.unsubscribe(known)
        self._connection.write(packets.unsuback(number))

    def close(self) -> None:
        """End amqtt's session."""
        if self._link is not None:
            self._link.close()
