"""What was set at this injector, and what the hospital signed: on disk, and as it holds now."""

from pathlib import Path

from agent.access import policy
from agent.access import site as sites
from agent.access.policy import Policy
from agent.access.site import Site
from agent.errors import StoreError


class InForce:
    def __init__(self, state: Path) -> None:
        self._state = state
        self.local = policy.load(state)
        self.site = sites.load(state)
        self._known: tuple[int, Policy] | None = None

    def policy(self, wall_ms: int) -> Policy:
        """What holds at this moment; hours change by the minute."""
        minute = wall_ms // 60_000
        if self._known is None or self._known[0] != minute:
            self._known = minute, self.site.in_force(self.local, wall_ms)
        return self._known[1]

    def set_local(self, new: Policy) -> None:
        """Durable when it returns. Raises StoreError."""
        try:
            policy.save(self._state, new)
        except OSError as error:
            raise StoreError(str(error)) from error
        self.local, self._known = new, None

    def set_site(self, new: Site) -> None:
        """Durable when it returns. Raises StoreError."""
        try:
            sites.save(self._state, new)
        except OSError as error:
            raise StoreError(str(error)) from error
        self.site, self._known = new, None
