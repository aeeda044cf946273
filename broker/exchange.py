"""Many transports as one: which device is where, and what is said of it to the portal.

Theory of operation. Each transport gets a handler of its own (`entrance(name)`), so that the
exchange knows where a word comes from. A device has one seat. When a second transport reports it,
the older of the two connections is a socket that has not noticed its death yet (or a copy of the
credential): it is ended in the books and kicked, whichever report came first. So the portal hears
exactly one `disconnected` for each `connected`, in turn, whatever order the words arrive in.

Messages and frames go straight to the portal's handler, whatever transport they come by: who sent
them is the certificate's to say, and the same event by two ways has the same key.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from broker.denied import DenyList
from broker.errors import Reason
from broker.lanes import ConnectionInfo, Delivery, Handler
from broker.transport import Health, Transport


@dataclass(slots=True)
class _Seat:
    server: str
    since: float


class _Entrance:
    """The handler of one transport."""

    def __init__(self, exchange: "Exchange", server: str, handler: Handler) -> None:
        self._exchange = exchange
        self._server = server
        # The lanes have no call in between.
        self.up: Callable[[Delivery], bool | None] = handler.up
        self.stream: Callable[[str, bytes], None] = handler.stream
        self.refused: Callable[[str, str | None, Reason], None] = handler.refused

    def connected(self, device: str, info: ConnectionInfo) -> None:
        self._exchange.connected(self._server, device, info)

    def disconnected(self, device: str, reason: Reason) -> None:
        self._exchange.disconnected(self._server, device, reason)


class Exchange:
    """A Transport. `handler` is the portal's."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._transports: dict[str, Transport] = {}
        self._seats: dict[str, _Seat] = {}
        self._denied = DenyList()

    # --- the transports ------------------------------------------------------------------------

    def entrance(self, server: str) -> Handler:
        """What the transport of this name is given as its handler."""
        return _Entrance(self, server, self._handler)

    def add(self, server: str, transport: Transport) -> None:
        """Raises: ValueError when the name is taken."""
        if server in self._transports:
            raise ValueError(f"there is a transport {server} already")
        self._transports[server] = transport
        transport.deny(self._denied)

    def remove(self, server: str) -> None:
        """Forget a transport; its devices are gone with it."""
        self._transports.pop(server, None)
        for device in [name for name, seat in self._seats.items() if seat.server == server]:
            self.disconnected(server, device, Reason.LINK_LOST)

    @property
    def transports(self) -> Mapping[str, Transport]:
        return self._transports

    def server_of(self, device: str) -> str | None:
        """The name of the transport that the device is connected to."""
        seat = self._seats.get(device)
        return seat.server if seat is not None else None

    # --- what they say -------------------------------------------------------------------------

    def connected(self, server: str, device: str, info: ConnectionInfo) -> None:
        seat = self._seats.get(device)
        if seat is not None:
            older = server if info.since < seat.since else seat.server
            if older != seat.server:
                self._end(older, device)
                return
            self._handler.disconnected(device, Reason.TAKEN_OVER)
            if older != server:
                self._end(older, device)
        self._seats[device] = _Seat(server, info.since)
        self._handler.connected(device, replace(info, server=server))

    def _end(self, server: str, device: str) -> None:
        transport = self._transports.get(server)
        if transport is not None:
            transport.kick(device, Reason.TAKEN_OVER)

    def disconnected(self, server: str, device: str, reason: Reason) -> None:
        seat = self._seats.get(device)
        if seat is not None and seat.server == server:
            del self._seats[device]
            self._handler.disconnected(device, reason)

    # --- Transport -----------------------------------------------------------------------------

    def _of(self, device: str) -> Transport | None:
        seat = self._seats.get(device)
        return self._transports.get(seat.server) if seat is not None else None

    def publish(self, topic: str, payload: bytes | memoryview) -> bool:
        levels = topic.split("/", 3)
        transport = self._of(levels[2]) if len(levels) == 4 else None
        return transport is not None and transport.publish(topic, payload)

    def frame(self, device: str, frame: bytes) -> bool:
        transport = self._of(device)
        return transport is not None and transport.frame(device, frame)

    def kick(self, device: str, reason: Reason = Reason.KICKED) -> bool:
        transport = self._of(device)
        return transport is not None and transport.kick(device, reason)

    def deny(self, denied: DenyList) -> None:
        self._denied = denied
        for transport in self._transports.values():
            transport.deny(denied)

    def resume(self) -> None:
        for transport in list(self._transports.values()):
            transport.resume()

    def health(self) -> Health:
        """Up when one of them is."""
        found = [transport.health() for transport in self._transports.values()]
        return Health(up=any(each.up for each in found), devices=len(self._seats))
