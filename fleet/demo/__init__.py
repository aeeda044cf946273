"""The demo: `manage.py up --demo`. Two hospitals, three product lines, twelve injectors."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fleet.mqtt.options import ServeOptions
    from fleet.mqtt.server import Running


def companion(options: "ServeOptions") -> "Callable[[Running], Awaitable[None]]":
    """Prepare the demo; what is returned runs its agents beside the server. Raises Conflict."""
    from fleet.demo import processes, seed

    seeded = seed.seed()

    async def run(running: "Running") -> None:
        # Not before the gate listens: an agent that knocks too early waits before it tries again.
        while running.gate.port == 0:
            await asyncio.sleep(0.02)
        await processes.run(seeded)

    return run
