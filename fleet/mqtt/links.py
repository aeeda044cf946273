"""The portal's links: one to every access server that is enabled.

Looks at the rows every second. While the database cannot be read, everything stays as it is.
"""

import asyncio
import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

from django.db import DatabaseError

from broker.exchange import Exchange
from broker.link.remote import RemoteGate, RemoteOptions
from fleet.core import clock
from fleet.core.addresses import parse_address
from fleet.core.errors import PortalError
from fleet.core.threads import in_thread
from fleet.enrolment import ca, links
from fleet.mqtt.queue import IngestQueue
from fleet.servers import selectors, services

LOOK_S = 1.0
HEALTH = timedelta(seconds=10)  # how often health is written when nothing happens
CERTIFICATES = timedelta(hours=1)  # how often ours is looked at

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Held:
    remote: RemoteGate
    task: asyncio.Task[None]
    noted_at: datetime | None = None
    devices: int = 0  # as noted


class Links:
    """Runs beside the server; `exchange` gets a transport for each link."""

    def __init__(self, exchange: Exchange, queue: IngestQueue) -> None:
        self._exchange = exchange
        self._queue = queue
        self._held: dict[str, _Held] = {}
        self._certificates_at: datetime | None = None

    async def run(self) -> None:
        """Until cancelled; then every link is closed."""
        async with asyncio.TaskGroup() as group:
            while True:
                try:
                    wanted = await in_thread(self._look)
                except (DatabaseError, OSError, PortalError) as error:
                    log.warning("the access servers cannot be read: %s", error)
                else:
                    await self._hold(wanted, group)
                self._note_health()
                await asyncio.sleep(LOOK_S)

    def _look(self) -> dict[str, RemoteOptions]:
        """In a thread: what the rows ask for."""
        now = clock.now()
        rows = selectors.linked()
        if rows and (self._certificates_at is None or now - self._certificates_at > CERTIFICATES):
            links.ensure(now)
            self._certificates_at = now
        folder = ca.folder()
        wanted = {}
        for row in rows:
            where = parse_address(row.link)
            wanted[row.name] = RemoteOptions(
                name=row.name,
                host=where.host,
                port=where.port,
                certificate=folder / "link.pem",
                key=folder / "link.key",
                authority=folder / "link-ca.pem",
            )
        return wanted

    async def _hold(self, wanted: dict[str, RemoteOptions], group: asyncio.TaskGroup) -> None:
        for name, held in list(self._held.items()):
            if held.remote.options != wanted.get(name):
                del self._held[name]
                held.task.cancel()
                await asyncio.wait((held.task,))
                self._exchange.remove(name)
                self._note(name, held.remote, up=False)
        for name, options in wanted.items():
            if name not in self._held:
                entrance = self._exchange.entrance(name)
                remote = RemoteGate(options, entrance, partial(self._changed, name))
                self._exchange.add(name, remote)
                task = group.create_task(remote.run(), name=f"link {name}")
                self._held[name] = _Held(remote, task)

    @property
    def remotes(self) -> dict[str, RemoteGate]:
        """The links as they are, by the name of the access server."""
        return {name: held.remote for name, held in list(self._held.items())}

    # --- health --------------------------------------------------------------------------------

    def _changed(self, name: str) -> None:
        held = self._held.get(name)
        if held is not None:
            held.noted_at, held.devices = clock.now(), held.remote.health().devices
            self._note(name, held.remote, up=held.remote.health().up)

    def _note_health(self) -> None:
        now = clock.now()
        for name, held in self._held.items():
            news = held.remote.health().devices != held.devices
            if news or held.noted_at is None or now - held.noted_at >= HEALTH:
                self._changed(name)

    def _note(self, name: str, remote: RemoteGate, *, up: bool) -> None:
        health, ends = remote.health(), remote.health().certificates_end
        work = partial(
            services.note_health,
            name,
            linked=up,
            trouble="" if up else health.detail,
            devices=health.devices if up else 0,
            now=clock.now(),
            certificates_end_at=datetime.fromtimestamp(ends, UTC) if ends is not None else None,
        )
        self._queue.submit(f"server {name}", work)
