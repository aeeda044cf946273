"""An access server as a process: a gate for devices and a link for the portal, and no database."""

import asyncio
import signal
from dataclasses import replace

from broker.link.uplink import Uplink, UplinkOptions
from broker.options import GateOptions
from broker.server import Gate


async def serve(gate_options: GateOptions, uplink_options: UplinkOptions) -> None:
    """Serve until SIGINT or SIGTERM, then end within a few seconds.

    Raises: NotStarted; OSError when an address is taken; ssl.SSLError for files that do not fit.
    """
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    uplink = Uplink(uplink_options)
    gate = Gate(replace(gate_options, drained=uplink.drained), uplink)
    uplink.attach(gate)
    try:
        await uplink.start()
        await gate.start()
        async with asyncio.TaskGroup() as group:
            broken = group.create_task(_watch(gate, stop), name="gate")
            await stop.wait()
            await gate.stop()
            await broken
    finally:
        await gate.stop()
        await uplink.stop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


async def _watch(gate: Gate, stop: asyncio.Event) -> None:
    """The gate must not end by itself."""
    await gate.wait()
    if not stop.is_set():
        raise RuntimeError("the gate ended")
