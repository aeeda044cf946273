"""The server process: web, gate, ingest and ticker on one event loop, in one TaskGroup.

    thread main     event loop: uvicorn on PATENCY_HTTP, the gate on PATENCY_MQTT (devices by ALPN
                    `mqtt`, everything else is handed to uvicorn's protocol), the hub, live pages
    thread ingest   the one writer of what devices send; presence; ticks
    other threads   Django's views, which uvicorn's requests run in

Services in any thread give messages to fleet.core.ports; what is installed here carries them to the
loop with call_soon_threadsafe, so that a commit and the write to the socket are two steps apart.
"""

import asyncio
import contextlib
import gc
import logging
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass

import uvicorn

from agent.wire import messages, topics
from agent.wire.messages import Message
from broker.exchange import Exchange
from broker.server import Gate
from broker.transport import Transport
from fleet.access import delivery
from fleet.access import endings as rosters
from fleet.access.hub import hub
from fleet.core import clock, ports, readiness
from fleet.core.websocket import WebSocket
from fleet.enrolment import endings
from fleet.enrolment.denylist import denied
from fleet.inventory import services as inventory
from fleet.inventory.services import ACCESS_SERVER
from fleet.jobs.receiver import Receiver
from fleet.mqtt import ticks
from fleet.mqtt.greeting import greet
from fleet.mqtt.handlers import HANDLERS
from fleet.mqtt.ingest import Ack, Writer
from fleet.mqtt.lanes import PortalLanes
from fleet.mqtt.links import Links
from fleet.mqtt.measures import measured
from fleet.mqtt.options import ServeOptions, gate_options
from fleet.mqtt.queue import IngestQueue
from fleet.servers import services as servers

log = logging.getLogger(__name__)

# Seconds a thread may keep the interpreter when another wants it. The default, 5 ms, is what a
# frame or a request would wait on the loop whenever a view or the writer computes.
SWITCH_INTERVAL_S = 0.0002


@dataclass(slots=True)
class Running:
    """The parts of a process that serves; `stop` ends it."""

    exchange: Exchange  # to devices, by whatever gate they are connected to
    gate: Gate | None  # the one in this process
    links: Links
    lanes: PortalLanes
    queue: IngestQueue
    writer: Writer
    web: "Web"
    stop: asyncio.Event


# What runs beside the server until it is cancelled, such as the demo; ends the process on error.
Companion = Callable[[Running], Awaitable[None]]


class Web(uvicorn.Server):
    """uvicorn without its signal handlers: the process has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    @classmethod
    def make(cls, options: ServeOptions) -> "Web":
        config = uvicorn.Config(
            "fleet.asgi:application",
            host=options.http.host,
            port=options.http.port,
            http="httptools",
            ws=WebSocket,
            ws_per_message_deflate=False,  # frames are sealed: nothing to gain, a CPU to lose
            ws_max_size=1024 * 1024,
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=1,
            limit_concurrency=2000,
        )
        config.load()
        return cls(config)

    def protocol(self) -> asyncio.Protocol:
        """A protocol for a connection that was accepted elsewhere: by the gate."""
        make: Callable[..., asyncio.Protocol] = self.config.http_protocol_class
        return make(config=self.config, server_state=self.server_state, app_state={})


async def serve(options: ServeOptions, *, companion: Companion | None = None) -> None:
    """Serve until SIGINT, SIGTERM or the failure of a part, then end within `shutdown_s`.

    Raises Conflict, OSError (an address is taken), NotStarted, or an ExceptionGroup of faults.
    """
    loop = asyncio.get_running_loop()
    _tune()
    await asyncio.to_thread(_forget_connections)
    running = _assemble(options, loop)
    async with measured(running.gate, running.links, options.metrics):
        await _serve(options, running, loop, companion)


async def _serve(
    options: ServeOptions,
    running: Running,
    loop: asyncio.AbstractEventLoop,
    companion: Companion | None,
) -> None:
    with (
        # Bound here, so that an address in use is an error and not uvicorn's sys.exit().
        socket.create_server((options.http.host, options.http.port), backlog=1024) as listener,
        _ports(running.exchange, loop),
        _signals(loop, running.stop),
        _readiness(running),
    ):
        running.writer.start()
        await asyncio.to_thread(denied.refresh, clock.now())  # before the first device knocks
        denied.tell()
        if running.gate is not None:
            await running.gate.start()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(running.web.serve([listener]), name="web")
                if running.gate is not None:
                    group.create_task(_end(running.gate.wait(), running.stop), name="gate")
                beside = [
                    group.create_task(
                        ticks.run(
                            running.queue, running.lanes, running.exchange.kick, ticks.standard()
                        ),
                        name="ticker",
                    ),
                    group.create_task(running.links.run(), name="links"),
                    group.create_task(Receiver(hub).run(), name="bundles"),
                    group.create_task(delivery.run(), name="notices"),
                ]
                if companion is not None:
                    beside.append(group.create_task(_ended(companion(running)), name="beside"))
                await running.stop.wait()
                for task in beside:
                    task.cancel()
                running.web.should_exit = True
                await _stop(running.gate)
        finally:
            await _stop(running.gate)
            await asyncio.to_thread(running.writer.stop, options.shutdown_s)


def _assemble(options: ServeOptions, loop: asyncio.AbstractEventLoop) -> Running:
    queue = IngestQueue()
    lanes = PortalLanes(queue, hub.from_device)
    web = Web.make(options)
    exchange = Exchange(lanes)
    gate: Gate | None = None
    if options.gate:
        gate = Gate(gate_options(options), exchange.entrance(ACCESS_SERVER), web.protocol)
        exchange.add(ACCESS_SERVER, gate)

    def acked(acks: Sequence[Ack]) -> None:
        _soon(loop, _call_all, acks)

    def room() -> None:
        _soon(loop, exchange.resume)

    writer = Writer(queue, HANDLERS, greet=greet, acked=acked, room=room)
    return Running(
        exchange=exchange,
        gate=gate,
        links=Links(exchange, queue),
        lanes=lanes,
        queue=queue,
        writer=writer,
        web=web,
        stop=asyncio.Event(),
    )


def _tune() -> None:
    """Short turns for threads, and a collector that leaves what is loaded at start alone: a full
    collection over all of Django would stop every thread for tens of milliseconds. It collects
    little at a time, for the same reason: the first generation takes 0.3 µs an object."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.collect()
    gc.freeze()
    gc.set_threshold(2_000, 5, 100)


def _forget_connections() -> None:
    """Those of an earlier process are gone."""
    inventory.all_offline()
    servers.all_unlinked()


async def _stop(gate: Gate | None) -> None:
    if gate is not None:
        await gate.stop()


async def _end(work: Awaitable[None], stop: asyncio.Event) -> None:
    """Wait for a part that must not end on its own."""
    await work
    if not stop.is_set():
        raise RuntimeError("the gate ended")


async def _ended(work: Awaitable[None]) -> None:
    await work


def _call_all(calls: Sequence[Callable[[], None]]) -> None:
    for call in calls:
        call()


def _soon(loop: asyncio.AbstractEventLoop, call: Callable[..., object], *arguments: object) -> None:
    """Run on the loop. A loop that has closed has no connections left either."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(call, *arguments)


# --- what services reach from any thread --------------------------------------------------------


@contextlib.contextmanager
def _ports(transport: Transport, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    def send(device: str, message: Message) -> None:
        topic = topics.down(device, message.TYPE, message.VERSION)
        _soon(loop, transport.publish, topic, messages.encode(message))

    ports.set_sender(send)
    ports.set_kicker(lambda device: _soon(loop, transport.kick, device))
    ports.set_denier(lambda listed: _soon(loop, transport.deny, listed))
    ports.set_frame_sender(transport.frame)
    try:
        yield
    finally:
        ports.set_sender(None)
        ports.set_kicker(None)
        ports.set_denier(None)
        ports.set_frame_sender(None)


@contextlib.contextmanager
def _signals(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> Iterator[None]:
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


@contextlib.contextmanager
def _readiness(running: Running) -> Iterator[None]:
    gate = running.gate
    if gate is not None:
        readiness.register("gate", lambda: gate.port != 0)
    readiness.register("ingest", lambda: running.writer.alive and running.writer.healthy)
    readiness.register_warnings("certificates", endings.warnings)
    readiness.register_warnings("roster", rosters.warnings)
    try:
        yield
    finally:
        readiness.unregister("gate")
        readiness.unregister("ingest")
        readiness.unregister_warnings("certificates")
