"""An access server as a process: a gate for devices and a link for the portal, and no database."""

import asyncio
import contextlib
import logging
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, ProcessCollector

from broker import endings
from broker.endings import Reminder, Urgency
from broker.link.uplink import Uplink, UplinkOptions
from broker.link.wire import Certificates
from broker.measures import GateCollector, UplinkCollector
from broker.options import GateOptions
from broker.scrape import listening
from broker.server import Gate

log = logging.getLogger(__name__)

LOOK_S = 3600.0  # how often the ends of the certificates are looked at


async def serve(
    name: str,
    gate_options: GateOptions,
    uplink_options: UplinkOptions,
    metrics: tuple[str, int] | None = None,
) -> None:
    """Serve as the access server `name` until SIGINT or SIGTERM, then end within a few seconds.

    `metrics` is the address where they may be read; None: nowhere.

    Raises: NotStarted; OSError when an address is taken; ssl.SSLError for files that do not fit;
    ValueError for a file that holds no certificate.
    """
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    ends = Certificates(
        server=endings.of_file(gate_options.certificate).timestamp(),
        link=endings.of_file(uplink_options.certificate).timestamp(),
    )
    reminder = Reminder()
    remind(name, ends, reminder, datetime.now(UTC))
    uplink = Uplink(replace(uplink_options, certificates=ends))
    gate = Gate(replace(gate_options, drained=uplink.drained), uplink)
    uplink.attach(gate)
    try:
        await uplink.start()
        await gate.start()
        async with _measured(gate, uplink, ends, metrics), asyncio.TaskGroup() as group:
            broken = group.create_task(_watch(gate, stop), name="gate")
            reminding = group.create_task(_remind(name, ends, reminder), name="endings")
            await stop.wait()
            reminding.cancel()
            await gate.stop()
            await broken
    finally:
        await gate.stop()
        await uplink.stop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


@contextlib.asynccontextmanager
async def _measured(
    gate: Gate, uplink: Uplink, ends: Certificates, address: tuple[str, int] | None
) -> AsyncIterator[None]:
    if address is None:
        yield
        return
    registry = CollectorRegistry()
    registry.register(ProcessCollector(registry=None))
    registry.register(GateCollector(gate))
    registry.register(UplinkCollector(uplink, ends))
    async with listening(*address, registry):
        yield


async def _watch(gate: Gate, stop: asyncio.Event) -> None:
    """The gate must not end by itself."""
    await gate.wait()
    if not stop.is_set():
        raise RuntimeError("the gate ended")


async def _remind(name: str, ends: Certificates, reminder: Reminder) -> None:
    """Into the log, once a day: until cancelled."""
    while True:
        await asyncio.sleep(LOOK_S)
        remind(name, ends, reminder, datetime.now(UTC))


def remind(name: str, ends: Certificates, reminder: Reminder, now: datetime) -> None:
    """Say that the certificates end soon, when it is time to say it, with the remedy."""
    first = datetime.fromtimestamp(min(ends.server, ends.link), UTC)
    how = reminder.due(name, first, now)
    if how is None:
        return
    log.log(
        logging.WARNING if how is Urgency.SOON else logging.ERROR,
        "the certificates of access server %s end on %s (%d days left): without them no injector"
        " connects. At the portal: manage.py access-server bundle %s --out %s; replace the files"
        " here by that folder's, and restart",
        name,
        f"{first:%Y-%m-%d}",
        endings.days_left(first, now),
        name,
        name,
    )
