"""The panel's switch of remote connection, carried out (R-CON-9).

Off: the portal is told, and whatever else waits goes with it, then the agent says goodbye and makes
no connection until a person at the panel switches it on again. That outlives restarts, since the
switch is the site's policy on disk, and nothing from the network writes that. A portal that cannot
be reached, or a full disk, keeps nobody from switching off. The injector itself works on.
"""

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

from agent.errors import StoreError
from agent.wire.messages import Remote

if TYPE_CHECKING:
    from agent.runtime import Agent

GOODBYE_S = 5.0  # for what is queued to leave
_LOOK_S = 0.05

log = logging.getLogger(__name__)


async def switch(agent: "Agent", enabled: bool) -> None:
    """Switch it; nothing happens when it is so already."""
    if enabled is agent.remote_enabled:
        return
    agent.remote_enabled = enabled
    try:
        await agent.emit(Remote, enabled=enabled)
    except StoreError as error:
        log.error("the portal is not told of the switch: %s", error)
    if enabled:
        agent.connect()
        return
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(GOODBYE_S):
            while agent.online and agent.outbox.depth:  # noqa: ASYNC110  (PUBACKs ring no bell)
                await asyncio.sleep(_LOOK_S)
    if not agent.remote_enabled:  # nobody has switched it on meanwhile
        await agent.disconnect()
