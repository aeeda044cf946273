"""What a person at the injector may do, as local commands: for the panel, and for scripts.

    approve     {session?, pin, ticket_h?}  let the waiting session in, or renew a person's
                                  presence; consent to its ticket for so many hours
    refuse      {session?, patient?}  no; needs no PIN, as it only tightens. `patient`: not now,
                                  a patient is on the table
    stop        {session?}        end what is active, and refuse what is not yet
    no-patient  {}                no patient is connected: the injector goes to `service`
    remote-off  {}                switch remote connection off: ends every session, says goodbye
    remote-on   {pin}             switch it on again, which nothing but this can (R-CON-9)
    withdraw    {}                take back every consent to a ticket; needs no PIN
    pin-set     {approver, pin, specialist?}  set an approver's PIN; who may speak to the socket
                                  may set it. `specialist` is who they are on the roster
    policy      {}                the site's policy
    policy-set  {pin, policy}     set fields of it
    site-policy …                 the hospital's signed policy: see `agent.access.consent`
    watch       {}                what the panel shows, again at each change

`session` may be left out when only one can be meant; any may name a `language` for its refusals.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import msgspec

from agent import advice, i18n, remote
from agent.access import policy
from agent.access.consent import Consent, shown
from agent.access.effects import PanelResult
from agent.access.machine import PANEL
from agent.access.pins import Verdict
from agent.access.shell import Access
from agent.control import Args, Handler
from agent.drivers import DriverError
from agent.errors import ControlError
from agent.i18n import _
from agent.wire.catalogue import Outcome, SessionReason, SessionState

if TYPE_CHECKING:
    from agent.runtime import Agent

PERSON = re.compile(r"[A-Za-z0-9_-]{1,64}")
EVERY_S = 1.0  # the view is sent again while a session is open, so that its times are right
CALM_S = 10.0  # and otherwise, so that a panel knows that the agent lives


class Commands:
    def __init__(self, agent: "Agent", access: Access) -> None:
        self._agent = agent
        self._access = access

    def register(self) -> None:
        handlers: dict[str, Handler] = {
            "approve": self.approve,
            "refuse": self.refuse,
            "stop": self.stop,
            "withdraw": self.withdraw,
            "no-patient": self.no_patient,
            "remote-on": self.remote_on,
            "remote-off": self.remote_off,
            "pin-set": self.pin_set,
            "policy": self.policy,
            "policy-set": self.policy_set,
        }
        for op, handler in handlers.items():
            self._agent.control.register(op, _in_their_language(handler))
        for op, handler in Consent(self._agent, self._access, self.approver).handlers().items():
            self._agent.control.register(op, _in_their_language(handler))
        self._agent.control.register_watch("watch", self.watch)

    # --- sessions --------------------------------------------------------------------------------

    async def approve(self, args: Args) -> dict[str, Any]:
        desk = self._access.desk
        result, session = desk.waiting_for_pin(_optional(args, "session"))
        _check(result)
        hours = args.get("ticket_h") or 0
        if not isinstance(hours, int) or not desk.may_cover(session, hours):
            _check(PanelResult.NO_TICKET)
        verdict = await self._verdict(args)
        result, effects = desk.approve(self._access.now(), session, verdict, hours)
        await self._access.do(effects)
        if result is PanelResult.WRONG_PIN:
            raise _wrong_pin(verdict)
        if result is PanelResult.MORE:
            return {**self._state(session), "more": True}
        _check(result)
        state = self._state(session)
        if state["state"] != SessionState.ACTIVE.value:  # the audit chain could not be written
            _check(PanelResult.REFUSED)
        return state

    async def refuse(self, args: Args) -> dict[str, Any]:
        wanted = _optional(args, "session")
        before = [session.id for session in self._access.desk.open]
        busy = args.get("patient") is True
        reason = SessionReason.PATIENT_ON_TABLE if busy else SessionReason.REFUSED_AT_PANEL
        result, effects = self._access.desk.refuse(self._access.now(), wanted, reason)
        await self._access.do(effects)
        _check(result)
        return self._state(wanted or before[-1])

    async def stop(self, args: Args) -> dict[str, Any]:
        wanted = _optional(args, "session")
        before = [session.id for session in self._access.desk.open]
        result, effects = self._access.desk.stop(self._access.now(), wanted)
        await self._access.do(effects)
        _check(result)
        return self._state(wanted or before[-1])

    async def withdraw(self, _args: Args) -> dict[str, Any]:
        await self._agent.record("presence:withdraw", actor=PANEL, outcome=Outcome.ALLOWED)
        self._access.desk.withdraw()
        self._access.look_changed()
        return {"consents": []}

    def _state(self, id: str) -> dict[str, Any]:
        session = self._access.desk.session(id)
        if session is None:
            return {"session": id, "state": None, "reason": None}
        reason = session.reason.value if session.reason else None
        return {"session": id, "state": session.state.value, "reason": reason}

    # --- the injector ----------------------------------------------------------------------------

    async def no_patient(self, _args: Args) -> dict[str, Any]:
        await self._agent.record("clinical:no_patient", actor=PANEL, outcome=Outcome.ALLOWED)
        try:
            self._agent.driver.declare_no_patient()
        except DriverError as error:
            raise ControlError("driver", str(error)) from error
        self._agent.look()
        return {"state": self._agent.clinical_state.value}

    async def remote_off(self, _args: Args) -> dict[str, Any]:
        return await self._set_policy(PANEL, {"remote": False}, "remote:off")

    async def remote_on(self, args: Args) -> dict[str, Any]:
        actor = await self.approver(args)
        return await self._set_policy(actor, {"remote": True}, "remote:on")

    async def policy_set(self, args: Args) -> dict[str, Any]:
        fields = args.get("policy")
        if not isinstance(fields, dict):
            raise ControlError("malformed", _("The policy is missing."))
        if self._access.in_force.site.held is not None:
            raise ControlError(
                "site_policy",
                _(
                    "The hospital's signed policy holds here. Ask the hospital's IT for another "
                    "version of it."
                ),
            )
        actor = await self.approver(args)
        return await self._set_policy(actor, fields, "policy:set")

    def policy(self, _args: Args) -> dict[str, Any]:
        shown: dict[str, Any] = msgspec.to_builtins(self._access.desk.facts.policy)
        held = self._access.in_force.site.held
        return {**shown, "site_policy": held.fingerprint if held else None}

    async def _set_policy(self, actor: str, fields: dict[str, Any], action: str) -> dict[str, Any]:
        """Tighten even when the audit chain cannot be written; loosen only when it can."""
        try:
            new = policy.change(self._access.in_force.local, fields)
        except policy.PolicyError as error:
            raise ControlError(
                "bad_policy", _("The policy cannot be used: {why}.").format(why=error)
            ) from error
        record = self._agent.record(action, actor=actor, outcome=Outcome.ALLOWED)
        if action != "remote:off":
            await record
        await self._access.do(self._access.set_policy(new))
        await remote.switch(self._agent, new.remote)
        return self.policy({})

    # --- PINs ------------------------------------------------------------------------------------

    async def pin_set(self, args: Args) -> dict[str, Any]:
        approver = args.get("approver", 1)
        if not isinstance(approver, int) or isinstance(approver, bool):
            raise ControlError("bad_approver", _("An approver's number is 1 to 99."))
        specialist = _optional(args, "specialist")
        if specialist is not None and not PERSON.fullmatch(specialist):
            raise ControlError(
                "bad_specialist", _("A specialist's id is letters, digits, - and _ alone.")
            )
        await self._access.pins.set(approver, _pin(args), specialist)
        await self._agent.record("pin:set", actor=f"approver-{approver}", outcome=Outcome.ALLOWED)
        self._access.look_changed()
        return {"approver": approver}

    async def _verdict(self, args: Args) -> Verdict:
        pin = _pin(args)
        if not await self._access.pins.approvers():
            raise ControlError(
                "no_pin",
                _("Nobody has a PIN at this injector. Set one with: {command}").format(
                    command=advice.command("pin", "--state", self._agent.state_dir)
                ),
            )
        return await self._access.pins.check(pin)

    async def approver(self, args: Args) -> str:
        """Whose PIN was given. Raises ControlError, and records it, when it is nobody's."""
        verdict = await self._verdict(args)
        if verdict.approver is not None:
            return f"approver-{verdict.approver}"
        await self._agent.record(
            "pin:check",
            actor=PANEL,
            outcome=Outcome.REFUSED,
            reason="pin_locked" if verdict.locked else "wrong_pin",
        )
        raise _locked() if verdict.locked else _wrong_pin(verdict)

    # --- watching --------------------------------------------------------------------------------

    async def watch(self, _args: Args) -> AsyncIterator[dict[str, Any]]:
        with self._access.watching() as changed:
            while True:
                changed.clear()
                yield self.view(bool(await self._access.pins.approvers()))
                try:
                    async with asyncio.timeout(EVERY_S if self._access.desk.open else CALM_S):
                        await changed.wait()
                except TimeoutError:
                    continue

    def view(self, has_pin: bool) -> dict[str, Any]:
        """Everything that the panel shows; plain JSON values."""
        state = self._agent.clinical_state
        sessions = self._access.desk.view(self._access.now())
        for session in sessions:
            session["code"] = self._access.codes.get(session["session"])
        return {
            "serial": self._agent.identity.provision.serial,
            "device": self._agent.device,
            "product_line": self._agent.driver.product_line.value,
            "online": self._agent.online,
            "state": state.value,
            "in_use": state.in_use,
            "critical": state.critical,
            "remote": self._access.desk.facts.policy.remote,
            "audit_ok": self._access.desk.facts.audit_writable,
            "has_pin": has_pin,
            "site": shown(self._access.in_force),
            "approvers_needed": self._access.desk.facts.policy.approvers,
            "ticket_h": self._access.desk.facts.policy.ticket_h,
            "consents": self._access.desk.consents(self._access.now()),
            "sessions": sessions,
        }


def _in_their_language(handler: Handler) -> Handler:
    """Refusals speak the language that the request names, else the injector's. Each connection is
    answered in a context of its own."""

    def speaking(args: Args) -> Any:
        if isinstance(language := args.get("language"), str):
            i18n.use(language)
        return handler(args)

    return speaking


def _optional(args: Args, name: str) -> str | None:
    value = args.get(name)
    if value is None or isinstance(value, str):
        return value
    raise ControlError("malformed", _("The field {name} is a text.").format(name=name))


def _pin(args: Args) -> str:
    pin = _optional(args, "pin")
    if not pin:
        raise ControlError("pin_missing", _("A PIN is needed for this."))
    return pin


def _check(result: PanelResult) -> None:
    if result is PanelResult.DONE:
        return
    texts = {
        PanelResult.NOTHING: _("No session waits for this."),
        PanelResult.SEVERAL: _("Several sessions wait: say which, by its number."),
        PanelResult.IN_USE: _(
            "The injector is in use. Wait, or declare that no patient is connected."
        ),
        PanelResult.SAME: _("You approved already. Somebody else must approve as well."),
        PanelResult.SELF: _("This PIN is the specialist's own. Somebody else must approve."),
        PanelResult.NO_TICKET: _(
            "This cannot be approved for its ticket: the site's policy, or the ticket, does not"
            " allow it for so long."
        ),
        PanelResult.REFUSED: _("The session may no longer be let in, and was refused."),
    }
    if result is PanelResult.PIN_LOCKED:
        raise _locked()
    raise ControlError(result.value, texts[result])


def _wrong_pin(verdict: Verdict) -> ControlError:
    return ControlError(
        PanelResult.WRONG_PIN.value,
        _("The PIN is wrong; tries left: {count}.").format(count=verdict.left),
    )


def _locked() -> ControlError:
    return ControlError(
        PanelResult.PIN_LOCKED.value,
        _("Too many wrong PINs. Wait 15 minutes; the session was refused."),
    )
