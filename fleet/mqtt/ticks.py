"""What is done again and again: each tick is idempotent and runs in the writer thread.

The ticker only submits; a tick that has not run yet is replaced by the next, so a slow database
makes ticks fewer, not longer.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial

from agent.wire.messages import ServerHead
from fleet.access import notices
from fleet.access import services as access
from fleet.accounts import sign_ins
from fleet.audit import services as audit
from fleet.core import clock, ports
from fleet.core.sqlite.checkpoint import checkpoint
from fleet.enrolment import credentials
from fleet.enrolment.endings import Endings
from fleet.inventory import services as inventory
from fleet.inventory.models import Device
from fleet.jobs import services as jobs
from fleet.mqtt import services
from fleet.mqtt.lanes import PortalLanes
from fleet.mqtt.queue import IngestQueue
from fleet.servers.outbound import Told
from fleet.telemetry import services as telemetry

# An agent sends a heartbeat every 10 s; the gate cuts a silent socket after 15. What is left for
# this sweep is an agent whose TLS session answers pings while nothing else of it works.
SILENT_S = 35.0


@dataclass(slots=True)
class Heads:
    """Newest audit heads, told to devices on line when they have changed."""

    _told: dict[str, int] = field(default_factory=dict)

    def tell(self, now: datetime) -> None:
        online: dict[str, list[str]] = {}
        for device, organisation in Device.objects.filter(online=True).values_list(
            "pk", "organisation_id"
        ):
            online.setdefault(organisation, []).append(device)
        for organisation, devices in online.items():
            head = audit.server_head(organisation, now=now)
            if head is None or self._told.get(organisation) == head.index:
                continue
            self._told[organisation] = head.index
            for device in devices:
                ports.send_down(device, ServerHead(head=head))


@dataclass(frozen=True, slots=True)
class Tick:
    name: str
    every: timedelta
    run: Callable[[datetime], object]


def forget(now: datetime) -> None:
    telemetry.forget_old_samples(now)
    services.forget_old_decisions(now)
    sign_ins.forget(now)


def standard() -> tuple[Tick, ...]:
    return (
        Tick("access", timedelta(seconds=1), access.tick),
        Tick("notices", timedelta(seconds=1), notices.tick),
        Tick("jobs", timedelta(seconds=1), jobs.tick),
        Tick("credentials", timedelta(seconds=1), credentials.tick),
        Tick("expiring", timedelta(minutes=1), credentials.count_expiring),
        Tick("endings", timedelta(minutes=1), Endings().look),
        Tick("checkpoint", timedelta(seconds=15), checkpoint),
        Tick("heads", timedelta(seconds=5), Heads().tell),
        Tick("servers", timedelta(seconds=2), Told().tell),
        Tick("forget", timedelta(minutes=1), forget),
    )


def submit(queue: IngestQueue, tick: Tick) -> None:
    """Have the writer run the tick. It opens transactions where it writes: one around all of it
    would hold the write lock while it only looks."""
    queue.submit(f"tick {tick.name}", lambda: tick.run(clock.now()))


async def run(
    queue: IngestQueue, lanes: PortalLanes, kick: Callable[[str], object], ticks: tuple[Tick, ...]
) -> None:
    """Submit ticks and presence sweeps until cancelled."""
    loop = asyncio.get_running_loop()
    due = {tick.name: loop.time() for tick in ticks}
    count = 0
    while True:
        for tick in ticks:
            if loop.time() >= due[tick.name]:
                due[tick.name] = loop.time() + tick.every.total_seconds()
                submit(queue, tick)
        for device in lanes.silent_for(SILENT_S):
            kick(device)
        if count % 5 == 0:
            connected = lanes.snapshot()
            queue.submit("presence", partial(inventory.reconcile, connected))
        count += 1
        await asyncio.sleep(1)
