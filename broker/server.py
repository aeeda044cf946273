"""The gate as a whole: listener, arrivals, connections, amqtt.

    gate = Gate(options, handler, web_factory)
    await gate.start()      # listening; gate.port is the port
    gate.publish(topic, payload); gate.kick(device); gate.stats()
    await gate.stop()

All calls belong on the event loop that started the gate.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass, replace
from typing import Any

from agent.wire.messages import MAX_PAYLOAD
from broker.arrivals import Arrivals
from broker.denied import DenyList
from broker.errors import NotStarted, Reason
from broker.gate import Connection
from broker.house import House
from broker.lanes import Counters, Handler
from broker.options import GateOptions
from broker.session import Registry
from broker.transport import Health

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Stats:
    """A look at the gate now; counters are since start."""

    devices: int  # live
    connections: int  # sockets of devices, whatever their state
    handshakes: int  # under way
    sessions: int  # in amqtt
    waiting: int  # QoS 1 messages that the handler has not taken
    buffered_bytes: int  # on their way down and not with the kernel
    counters: dict[str, Any]  # see lanes.Counters


class Gate:
    """The process's front door for devices, and on the same port for the web. A Transport."""

    def __init__(
        self,
        options: GateOptions,
        handler: Handler,
        web_factory: Callable[[], asyncio.Protocol] | None = None,
    ) -> None:
        self._options = options
        self._handler = handler
        self._web_factory = web_factory
        self._house: House | None = None
        self._arrivals: Arrivals | None = None
        self._registry: Registry | None = None
        self._main: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._port = 0
        self._denied = DenyList()

    # --- life ----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen. Raises: NotStarted; OSError when the address is taken; ssl.SSLError."""
        if self._main is not None:
            raise NotStarted("the gate has been started already")
        ready = asyncio.get_running_loop().create_future()
        self._stopping.clear()
        self._main = asyncio.create_task(self._run(ready), name="gate")
        await asyncio.wait((ready, self._main), return_when=asyncio.FIRST_COMPLETED)
        if self._main.done():
            main, self._main = self._main, None
            await main

    async def wait(self) -> None:
        """Return when the gate has stopped; raise what broke it."""
        if self._main is not None:
            await asyncio.shield(self._main)

    async def stop(self) -> None:
        """End every connection, then amqtt. Returns within a few seconds."""
        self._stopping.set()
        if self._main is not None:
            main, self._main = self._main, None
            await main

    async def _run(self, ready: asyncio.Future[None]) -> None:
        options = self._options
        registry = Registry()
        await registry.start()
        try:
            with _listen(options) as listener:
                self._port = listener.getsockname()[1]
                await self._serve(listener, registry, ready)
        finally:
            self._house = self._arrivals = None
            await registry.shutdown()

    async def _serve(
        self, listener: socket.socket, registry: Registry, ready: asyncio.Future[None]
    ) -> None:
        house: House | None = None
        try:
            async with asyncio.TaskGroup() as group:

                def spawn(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
                    return group.create_task(work)

                house = House(self._options, self._handler, registry, spawn)
                house.denied = self._denied
                arrivals = Arrivals(listener, house, self._web_factory)
                self._registry, self._house, self._arrivals = registry, house, arrivals
                accepting = group.create_task(arrivals.run(), name="gate.arrivals")
                ready.set_result(None)
                await self._stopping.wait()
                accepting.cancel()
                await asyncio.wait((accepting,))
                await self._empty(house)
        finally:  # whatever broke: no socket stays open, and every disconnect is told
            for connection in list(house.connections) if house is not None else ():
                connection.end(Reason.STOPPING)

    async def _empty(self, house: House) -> None:
        """End every connection and wait for its last task, within a bound."""
        connections = list(house.connections)
        for connection in connections:
            connection.end(Reason.STOPPING)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._options.limits.broker_s):
                for connection in connections:
                    await connection.gone()

    # --- the portal's side ---------------------------------------------------------------------

    @property
    def port(self) -> int:
        """The port in use, once started."""
        return self._port

    @property
    def connections(self) -> frozenset[str]:
        """Devices that are online."""
        if self._house is None:
            return frozenset()
        return frozenset(device for device, seat in self._house.seats.items() if seat.live)

    def _seat(self, device: str) -> Connection | None:
        return self._house.seats.get(device) if self._house is not None else None

    def publish(self, topic: str, payload: bytes | memoryview) -> bool:
        """Write a message to the one device it is for, at QoS 0, before this returns.

        False when that device is offline, has not subscribed, or has just been cut because it
        does not read. Raises: ValueError for a payload above the bound of the wire.
        """
        if len(payload) > MAX_PAYLOAD:
            raise ValueError(f"{len(payload)} bytes; the most is {MAX_PAYLOAD}")
        levels = topic.split("/", 3)
        seat = self._seat(levels[2]) if len(levels) == 4 else None
        return seat is not None and seat.publish(topic, payload)

    def frame(self, device: str, frame: bytes) -> bool:
        """Write a stream frame to the device before this returns. False when it would wait, or the
        device is offline or has not subscribed. Raises: ValueError as `publish` does.
        """
        if len(frame) > MAX_PAYLOAD:
            raise ValueError(f"{len(frame)} bytes; the most is {MAX_PAYLOAD}")
        house = self._house
        seat = house.seats.get(device) if house is not None else None
        return seat is not None and seat.frame(frame)

    def congested(self, device: str) -> bool:
        """Whether a stream frame given now would wait in memory; a sender does well to pause."""
        seat = self._seat(device)
        return seat is not None and seat.live and seat.down.congested

    def kick(self, device: str, reason: Reason = Reason.KICKED) -> bool:
        """Cut the device's connection now. False when it has none."""
        seat = self._seat(device)
        if seat is None or seat.over:
            return False
        seat.end(reason)
        return True

    def deny(self, denied: DenyList) -> None:
        """Refuse these from now on, when they arrive or resume, and cut the live ones."""
        self._denied = denied
        if self._house is None:
            return
        self._house.denied = denied
        for seat in list(self._house.connections):
            if not seat.over and denied.denies(seat.identity):
                seat.end(Reason.DENIED)

    def resume(self, device: str | None = None) -> None:
        """The handler has room again, for one device or for all: offer what waits."""
        if self._house is None:
            return
        if device is not None:
            seat = self._seat(device)
            if seat is not None:
                seat.resume()
            return
        for seat in list(self._house.seats.values()):
            seat.resume()

    def health(self) -> Health:
        if self._house is None or not self._port:
            return Health(up=False, devices=0, detail="not_started")
        return Health(up=True, devices=len(self.connections))

    def stats(self) -> Stats:
        house = self._house
        if house is None or self._registry is None:
            return Stats(0, 0, 0, 0, 0, 0, asdict(Counters()))
        # Copies first: it may be asked from another thread than the one that counts.
        live = [seat for seat in list(house.seats.values()) if seat.live]
        counted = house.counters
        counters = replace(counted, ended=dict(counted.ended), refused=dict(counted.refused))
        return Stats(
            devices=len(live),
            connections=len(house.connections),
            handshakes=self._arrivals.handshakes if self._arrivals is not None else 0,
            sessions=len(self._registry.sessions),
            waiting=sum(seat.up.waiting for seat in live),
            buffered_bytes=sum(seat.down.buffered for seat in live),
            counters=asdict(counters),
        )


def _listen(options: GateOptions) -> socket.socket:
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    listener = socket.create_server(
        (options.host, options.port), family=family, backlog=options.limits.backlog
    )
    listener.setblocking(False)
    return listener
