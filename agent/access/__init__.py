"""Access at the injector: who asks, who is let in, and when they are out again.

`desk` decides (pure); `conditions`, `answers`, `policy`, `pins` and `signed` are what it goes by;
`shell` carries out what it decides; `commands` is what a person at the injector may do.
"""

from typing import TYPE_CHECKING

from agent.access.commands import Commands
from agent.access.shell import Access
from agent.streams import Streams
from agent.wire.messages import AccessRequest, Answer, End, EntitlementUpdate, RosterUpdate

if TYPE_CHECKING:
    from agent.runtime import Agent


def install(agent: "Agent") -> None:
    """Plug into the agent; `agent.streams` is installed before."""
    access = Access(agent, agent.get(Streams))
    agent.provide(access)
    agent.remote_enabled = access.desk.facts.policy.remote
    agent.roster_version = lambda: access.roster.version
    agent.entitlement_version = lambda: access.entitlement.version
    agent.handle(AccessRequest, access.request)
    agent.handle(Answer, access.answer)
    agent.handle(End, access.end)
    agent.handle(RosterUpdate, access.roster_update)
    agent.handle(EntitlementUpdate, access.entitlement_update)
    agent.on_tick(access.tick)
    agent.on_clinical_state(access.clinical_state)
    agent.on_online(lambda online: access.look_changed())
    agent.status_from(access.status)
    agent.on_stop(access.stop)
    Commands(agent, access).register()
    agent.spawn(access.work(), name="access")
