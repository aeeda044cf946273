"""Which access servers this injector connects to, in order, and how that changes (R-CON-5).

servers.json          the list that has worked: the portal has answered at one of its servers
servers-offered.json  a newer list from the portal that has not; absent when there is none

Without a `servers.json` that can be read, the list is the host that the provisioning bundle names,
until the portal has sent its own.

The portal sends its list when a connection begins and when it changes. A list that nobody answers
at must not cut an injector off for good, so a new one is tried first and the old one stays behind
it, until the portal has answered at a server of the new one. A list moves nobody: it counts from
the next failure on. Every server must show a certificate of the authority in the provisioning
bundle, so a list can send an injector nowhere but to the vendor.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from agent import posix
from agent.identity import Server
from agent.wire.messages import Servers

if TYPE_CHECKING:
    from agent.runtime import Agent

ADOPTED = "servers.json"
OFFERED = "servers-offered.json"

log = logging.getLogger(__name__)


class ServerList:
    """Pure: what to dial, in order."""

    def __init__(self, adopted: Sequence[Server], offered: Sequence[Server] = ()) -> None:
        self.adopted = tuple(adopted)
        self.offered = tuple(offered)

    @property
    def dial(self) -> tuple[Server, ...]:
        return tuple(dict.fromkeys((*self.offered, *self.adopted)))

    def offer(self, servers: Sequence[Server]) -> bool:
        """A list from the portal. False when it is no news."""
        if tuple(servers) == (self.offered or self.adopted):
            return False
        self.offered = tuple(servers) if tuple(servers) != self.adopted else ()
        return True

    def worked(self, server: Server) -> bool:
        """The portal has answered there. True when the offered list is the only one from now on."""
        if server not in self.offered:
            return False
        self.adopted, self.offered = self.offered, ()
        return True


class Keeper:
    """The list of one agent, on its disk. `here` gives the server at which the portal answers now;
    `changed` is called when what to dial has changed."""

    def __init__(
        self, agent: "Agent", here: Callable[[], Server | None], changed: Callable[[], None]
    ) -> None:
        self._state = agent.state_dir
        self._here = here
        self._changed = changed
        self._writing = asyncio.Lock()
        self._spawn = agent.spawn
        self.lost = agent.identity.servers_lost
        self.list = ServerList(agent.identity.servers, load_offered(agent.state_dir))
        agent.handle(Servers, self._offered)

    async def _offered(self, message: Servers, _payload: bytes) -> None:
        servers = [Server(host=each.host, port=each.port) for each in message.servers]
        if self.list.offer(servers) or self.lost:
            here = self._here()
            if here is not None:
                self.list.worked(here)
            await self._save()
            log.info("the portal names other access servers: %s", ", ".join(map(str, servers)))
            self._changed()

    def worked(self, server: Server) -> None:
        """The portal has answered at this server."""
        if self.list.worked(server):
            self._changed()
            self._spawn(self._save(), name="servers")

    async def _save(self) -> None:
        """What counts now; in a thread, one after another."""
        async with self._writing:
            try:
                await asyncio.to_thread(save, self._state, self.list.adopted, self.list.offered)
                self.lost = False
            except OSError as error:
                log.error("the list of access servers cannot be kept: %s", error)


def load_offered(state: Path) -> tuple[Server, ...]:
    """A list that was offered and has not worked yet. One that cannot be read is forgotten: the
    portal sends it again."""
    try:
        found = msgspec.json.decode((state / OFFERED).read_bytes(), type=list[Server])
    except FileNotFoundError:
        return ()
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        log.warning("%s is forgotten: %s", OFFERED, error)
        return ()
    return tuple(found)


def save(state: Path, adopted: Sequence[Server], offered: Sequence[Server]) -> None:
    """The adopted list first: whatever a crash leaves between the two lists still works.

    Raises: OSError."""
    posix.write_private(state / ADOPTED, msgspec.json.encode(list(adopted)))
    if offered:
        posix.write_private(state / OFFERED, msgspec.json.encode(list(offered)))
    else:
        (state / OFFERED).unlink(missing_ok=True)
