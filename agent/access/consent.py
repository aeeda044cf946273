"""The hospital's signed policy at the panel, as local commands (R-ACC-7).

    site-policy          {}              what holds, what waits, and what that would loosen
    site-policy-offer    {document}      a signed policy from a file
    site-policy-accept   {digest, pin}   let the one that waits hold, its key included
    site-policy-decline  {}              drop the one that waits; needs no PIN

`agent.access.site` has the rules. Each change is on the audit chain before it is in force.
"""

import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec

from agent.access import site as sites
from agent.access.in_force import InForce
from agent.access.machine import PANEL
from agent.access.shell import Access
from agent.access.site import Document, Site
from agent.control import Args, Handler
from agent.errors import ControlError
from agent.i18n import _
from agent.wire import site_policy as wire
from agent.wire.catalogue import Outcome
from agent.wire.site_policy import SitePolicyError

if TYPE_CHECKING:
    from agent.runtime import Agent


class Consent:
    """`approver` asks for a PIN and gives its owner's number as an actor."""

    def __init__(
        self, agent: "Agent", access: Access, approver: Callable[[Args], Awaitable[str]]
    ) -> None:
        self._agent = agent
        self._access = access
        self._approver = approver

    def handlers(self) -> dict[str, Handler]:
        return {
            "site-policy": self.show,
            "site-policy-offer": self.offer,
            "site-policy-accept": self.accept,
            "site-policy-decline": self.decline,
        }

    def show(self, _args: Args) -> dict[str, Any]:
        return shown(self._access.in_force)

    async def offer(self, args: Args) -> dict[str, Any]:
        known = self._access.in_force
        try:
            document = sites.read_document(json.dumps(args.get("document")).encode())
            new = known.site.offered(document, known.local, at_panel=True)
        except SitePolicyError as error:
            raise _unusable(error) from error
        if new != known.site:
            action = "policy:hold" if new.held == document else "policy:offer"
            await self._set(new, action, PANEL, document)
        return shown(known)

    async def accept(self, args: Args) -> dict[str, Any]:
        known = self._access.in_force
        digest = args.get("digest")
        waiting = known.site.waiting
        if waiting is None or digest != waiting.digest:
            raise ControlError("no_site_policy", _("No such policy waits at this injector."))
        actor = await self._approver(args)
        try:
            new = known.site.accepted(str(digest))
        except SitePolicyError as error:
            raise _unusable(error) from error
        await self._set(new, "policy:accept", actor, waiting)
        return shown(known)

    async def decline(self, _args: Args) -> dict[str, Any]:
        known = self._access.in_force
        if (waiting := known.site.waiting) is None:
            raise ControlError("no_site_policy", _("No policy waits at this injector."))
        new = msgspec.structs.replace(known.site, waiting=None)
        await self._set(new, "policy:decline", PANEL, waiting)
        return shown(known)

    async def _set(self, new: Site, action: str, actor: str, document: Document) -> None:
        await self._agent.record(
            action, actor=actor, outcome=Outcome.ALLOWED, digest=document.digest
        )
        await self._access.do(self._access.set_site(new))


def _unusable(error: SitePolicyError) -> ControlError:
    return ControlError(
        "bad_site_policy", _("The site's policy cannot be used: {why}.").format(why=error)
    )


def shown(known: InForce) -> dict[str, Any]:
    """For the panel: what holds, and what waits with what it would loosen; plain JSON values."""
    site = known.site
    waiting = None
    if site.waiting is not None:
        new_key = site.held is None or site.held.key != site.waiting.key
        loosens = site.loosened(known.local, site.waiting)
        waiting = {**_document(site.waiting), "new_key": new_key, "loosens": loosens}
    return {
        "holds": _document(site.held) if site.held else None,
        "waiting": waiting,
        "tightened": site.tightening is not None,
        "broken": site.broken,
    }


def _document(document: Document) -> dict[str, Any]:
    policy = wire.decode(document.policy)
    return {
        "version": policy.version,
        "digest": document.digest,
        "fingerprint": document.fingerprint,
        "policy": msgspec.to_builtins(policy),
    }
