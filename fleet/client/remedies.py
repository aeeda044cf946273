"""What to type next, when a session is refused, over, missing or too narrow: whole commands."""

from collections.abc import Mapping
from typing import Any

from agent.wire.catalogue import Level, RequestReason, SessionReason, SessionState
from fleet.client import advice
from fleet.client.errors import ClientError, NotFound, Unreachable
from fleet.client.i18n import _
from fleet.client.portal import JSON, Portal
from fleet.client.profile import Asked, Profile

_USUAL = "console"  # what to ask for when nobody said
_ANEW = {
    SessionReason.IN_USE, SessionReason.REPLAYED, SessionReason.LATE, SessionReason.WRONG_DEVICE,
    SessionReason.UNKNOWN_SESSION, SessionReason.BUSY, SessionReason.NO_APPROVAL,
    SessionReason.NO_ANSWER, SessionReason.UNREACHABLE, SessionReason.LIFE_OVER,
    SessionReason.IDLE, SessionReason.AGENT_RESTARTED,
}  # fmt: skip


class Remedies:
    def __init__(self, portal: Portal, profile: Profile) -> None:
        self._portal = portal
        self._profile = profile

    def ask(self, target: str, service: str | None = None) -> str:
        """A request for `service` (by default what the injector has first) of this injector."""
        offered = self._offered(target)
        if service is None:
            service = next(iter(sorted(offered, key=lambda name: name != _USUAL)), _USUAL)
        level = offered.get(service, Level.OS)
        return advice.request(
            target, [service], level=level.value, reason=RequestReason.REPAIR.value
        )

    def again(self, asked: Asked, *, service: str | None = None) -> str:
        """The same request, or one that covers `service` as well. Raises NotFound when the injector
        is known to have no such service."""
        offered = self._offered(asked.device)
        services = [*asked.services, *([service] if service else [])]
        if service and offered and service not in offered:
            raise NotFound(
                _("{serial} has no service {service}. It has: {offered}.").format(
                    serial=asked.serial, service=service, offered=", ".join(sorted(offered))
                )
            )
        level = Level(asked.level)
        for name in services:
            level = level if level.covers(offered.get(name, level)) else offered[name]
        return advice.request(
            asked.serial,
            services,
            level=level.value,
            reason=asked.reason,
            ticket=asked.ticket,
            life_s=asked.life_s,
        )

    def wider(self, session: str, asked: Asked, service: str) -> str:
        """End this session and ask for one that covers `service` too: an injector takes one."""
        return f"{advice.command('end', session)} && {self.again(asked, service=service)}"

    def refused(self, asked: Asked, code: str | None = None) -> str:
        """What to type after a refusal or an end for this reason (None: the portal refused, and
        said why in words), or nothing."""
        try:
            mine = self._open(asked) if code in (None, SessionReason.BUSY.value) else None
            if mine is not None:
                return _("End your own session first: {command}").format(
                    command=advice.command("end", str(mine["session"]))
                )
            higher = code in (None, SessionReason.LEVEL_TOO_LOW.value) and self._too_low(asked)
            if higher or code in {reason.value for reason in _ANEW}:
                return _("Ask again with: {command}").format(command=self.again(asked))
        except Unreachable:  # then the portal's words stand alone
            pass
        return ""

    def _too_low(self, asked: Asked) -> bool:
        """Whether a service needs a higher level, and nothing else is wrong with them."""
        offered, level = self._offered(asked.device), Level(asked.level)
        known = all(name in offered for name in asked.services)
        return known and not all(level.covers(offered[name]) for name in asked.services)

    def _open(self, asked: Asked) -> JSON | None:
        """A session of ours with the injector that is not over."""
        for it in self._portal.sessions():
            mine = it["device"] == asked.device and it["specialist"] == self._profile.specialist
            if mine and not SessionState(it["state"]).over:
                return it
        return None

    def _offered(self, target: str) -> Mapping[str, Level]:
        """The injector's services and the level of each, as far as the portal tells."""
        try:
            shown = self._portal.details(target).get("services")
        except ClientError:
            return {}
        return _levels(shown) if isinstance(shown, dict) else {}


def _levels(shown: dict[str, Any]) -> dict[str, Level]:
    known = {level.value: level for level in Level}
    return {str(name): known[level] for name, level in shown.items() if level in known}
