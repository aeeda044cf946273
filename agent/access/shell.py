"""Carries out what the desk decides, and tells the desk what happens.

The effects of one step are done in this order, and steps one after another:

1. Deactivate and Pause, at once, before anything is written.
2. Every Record, SendReceipt's included, Keep and Count go to the store together; then we wait
   until they are on disk.
3. Only then the rest, in the desk's order: messages to the portal, the challenge, the receipt,
   Activate.

When step 2 fails, step 3 does not happen: the desk is told, ends every session, and refuses all
until an entry can be written again (R-ACC-10). What could not be told meanwhile is told then.
Activate and Resume look at the desk once more, since a Stop may have come while the disk worked.
"""

import asyncio
import hashlib
import logging
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from agent.access import ledger
from agent.access.conditions import Facts
from agent.access.desk import Desk
from agent.access.effects import (
    Activate,
    Count,
    Deactivate,
    Effect,
    Emit,
    Keep,
    Now,
    Pause,
    Record,
    Resume,
    SendChallenge,
    SendReceipt,
)
from agent.access.in_force import InForce
from agent.access.machine import AGENT, PANEL, PORTAL
from agent.access.pins import Pins
from agent.access.policy import Policy
from agent.access.signed import entitlement_store, roster_store
from agent.access.site import Site
from agent.errors import AuditUnwritable
from agent.streams import Streams
from agent.wire import challenge as challenges
from agent.wire.catalogue import ClinicalState, Outcome, SessionState
from agent.wire.messages import (
    AccessRequest,
    Answer,
    AuditEntry,
    Challenge,
    End,
    EntitlementUpdate,
    Receipt,
    RosterUpdate,
)

if TYPE_CHECKING:
    from agent.runtime import Agent

MAX_STEPS = 256  # that wait for the disk
RETRY_S = 5.0  # between attempts to write the audit chain again
UNTOLD = 64  # updates kept for when it can be
_CODES = 32

log = logging.getLogger(__name__)

_Step = tuple[list[Effect], asyncio.Future[None]]


class Access:
    """The desk of one agent, with its stores. Its methods run in the loop."""

    def __init__(self, agent: "Agent", streams: Streams) -> None:
        self._agent = agent
        self._streams = streams
        self.pins = Pins(agent.store, agent.clock)
        trust_key, line = agent.identity.trust_key, agent.driver.product_line
        provision = agent.identity.provision
        self.roster = roster_store(agent.store, trust_key)
        self.entitlement = entitlement_store(agent.store, trust_key, line, provision.serial)
        self.in_force = InForce(agent.state_dir)
        services = agent.driver.services()
        facts = Facts(
            device=agent.device,
            product_line=line,
            boot=agent.clock.boot,
            services={name: service.level for name, service in services.items()},
            policy=self.in_force.policy(agent.clock.wall_ms()),
            access_origin=provision.anchors.access_origin,
        )
        self.desk = Desk(facts, agent.clinical_state)
        self.codes: dict[str, str] = {}  # session: what people compare
        self._opened = asyncio.Event()
        self._steps: asyncio.Queue[_Step] = asyncio.Queue(MAX_STEPS)
        self._untold: deque[Effect] = deque(maxlen=UNTOLD)
        self._retry_at = 0.0
        self._watchers: set[asyncio.Event] = set()

    # --- what happens ----------------------------------------------------------------------------

    def now(self) -> Now:
        return Now(self._agent.clock.now(), self._agent.clock.wall_ms())

    async def request(self, message: AccessRequest, payload: bytes) -> None:
        await self._opened.wait()
        self._mind_the_disk()
        await self.do(self.desk.request(self.now(), message, _digest(payload)))

    async def answer(self, message: Answer, payload: bytes) -> None:
        await self._opened.wait()
        self._mind_the_disk()
        await self.do(self.desk.answer(self.now(), message, _digest(payload)))

    async def end(self, message: End, payload: bytes) -> None:
        await self._opened.wait()
        await self.do(self.desk.end(self.now(), message, _digest(payload)))

    async def roster_update(self, message: RosterUpdate, payload: bytes) -> None:
        """Raises PeerError for one that must not be believed."""
        await self._opened.wait()
        new = self.roster.check(message.roster, message.signature, self._agent.clock.wall_ms())
        if new is not None:
            self._agent.clock.raise_floor(new.issued_at)
            await self.do(self.desk.roster_changed(self.now(), new))
            digest = hashlib.sha256(message.roster).hexdigest()
            await self._agent.record(
                "roster:update", actor=PORTAL, outcome=Outcome.ALLOWED, digest=digest
            )
            await self.roster.keep(message.roster, message.signature, new)
        self._agent.accept("roster", str(self.roster.version), payload)

    async def entitlement_update(self, message: EntitlementUpdate, payload: bytes) -> None:
        """Raises PeerError for one that must not be believed."""
        await self._opened.wait()
        data, signature = message.entitlement, message.signature
        new = self.entitlement.check(data, signature, self._agent.clock.wall_ms())
        if new is not None:
            await self.do(self.desk.entitlement_changed(self.now(), new))
            await self._agent.record(
                "entitlement:update",
                actor=PORTAL,
                outcome=Outcome.ALLOWED,
                digest=hashlib.sha256(data).hexdigest(),
            )
            await self.entitlement.keep(data, signature, new)
        self._agent.accept("entitlement", str(self.entitlement.version), payload)

    def clinical_state(self, state: ClinicalState) -> None:
        self._soon(self.desk.clinical_changed(self.now(), state))

    def tick(self, _now_s: float) -> None:
        now = self.now()
        for session in self.desk.open:
            if session.state is SessionState.ACTIVE:
                self.desk.activity(now, session.id, *self._streams.moved(session.id))
        self._mind_the_disk()
        self._soon(self._policy_at(now, AGENT) + self.desk.tick(now))
        self._try_audit_again(now)

    def set_policy(self, new: Policy) -> list[Effect]:
        """Durable and in force; the effects are to be done. Raises StoreError."""
        self.in_force.set_local(new)
        return self._policy_at(self.now(), PANEL)

    def set_site(self, new: Site, actor: str = PANEL) -> list[Effect]:
        """The same for what is known of the hospital's policy. Raises StoreError."""
        self.in_force.set_site(new)
        return self._policy_at(self.now(), actor)

    def _policy_at(self, now: Now, actor: str) -> list[Effect]:
        """Tell the desk what holds now; another hour may have begun."""
        holds = self.in_force.policy(now.wall_ms)
        changed = holds != self.desk.facts.policy
        return self.desk.policy_changed(now, holds, actor) if changed else []

    # --- doing -----------------------------------------------------------------------------------

    async def do(self, effects: Sequence[Effect]) -> None:
        """Carry out one step; returns when it is done."""
        await self._queue(effects)

    def _soon(self, effects: Sequence[Effect]) -> None:
        if effects:
            self._queue(effects)

    def _queue(self, effects: Sequence[Effect]) -> asyncio.Future[None]:
        self.look_changed()
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        for effect in effects:
            if isinstance(effect, Deactivate):
                self._streams.deactivate(effect.session)
            elif isinstance(effect, Pause):
                self._streams.pause(effect.session)
        try:
            self._steps.put_nowait((list(effects), done))
        except asyncio.QueueFull:  # the disk has hung: nobody gets in, and who is in is out
            log.error("the disk does not keep up with access decisions")
            done.set_result(None)
            if self.desk.facts.audit_writable:
                self._cut(self.desk.audit_failed(self.now()))
        return done

    async def work(self) -> None:
        """Do steps, in order, for as long as the agent runs."""
        await self._open()
        while True:
            effects, done = await self._steps.get()
            try:
                await self._step(effects)
            finally:
                if not done.done():
                    done.set_result(None)
                self.look_changed()

    async def _open(self) -> None:
        await self.pins.open()
        await self.roster.open()
        self.desk.facts.roster = self.roster.current
        await self.entitlement.open()
        self.desk.facts.entitlement = self.entitlement.current
        self.desk.facts.passkey_uses = await self._agent.store.write(ledger.open_uses)
        kept = await self._agent.store.write(ledger.open_ledger)
        await self._step(self.desk.restarted(kept))
        self._opened.set()

    async def _step(self, effects: list[Effect]) -> None:
        try:
            entries = await self._write(effects)
        except AuditUnwritable as error:
            log.error("remote access is refused: %s", error)
            self._untold.extend(e for e in effects if isinstance(e, Emit | Keep))
            self._cut(self.desk.audit_failed(self.now()))
            return
        for effect in effects:
            self._act(effect, entries)

    async def _write(self, effects: Sequence[Effect]) -> dict[int, AuditEntry]:
        """Put on disk what must come first. Raises AuditUnwritable."""
        writes: dict[int, asyncio.Future[AuditEntry]] = {}
        for effect in effects:
            if isinstance(effect, Record):
                writes[id(effect)] = self._record(effect)
            elif isinstance(effect, SendReceipt):
                writes[id(effect)] = self._record(effect.record)
            elif isinstance(effect, Keep):
                self._keep(effect)
            elif isinstance(effect, Count):
                self._count(effect)
        return {key: await entry for key, entry in writes.items()}

    def _record(self, record: Record) -> asyncio.Future[AuditEntry]:
        return self._agent.record(
            record.action,
            actor=record.actor,
            outcome=record.outcome,
            session=record.session,
            reason=record.reason,
            digest=record.digest,
        )

    def _keep(self, effect: Keep) -> None:
        self._agent.store.write(lambda connection: ledger.keep(connection, effect))

    def _count(self, effect: Count) -> None:
        self._agent.store.write(lambda connection: ledger.count(connection, effect))

    def _act(self, effect: Effect, entries: dict[int, AuditEntry]) -> None:
        if isinstance(effect, Emit):
            self._agent.emit(effect.kind, **effect.fields)
        elif isinstance(effect, SendChallenge):
            self._challenge(effect)
        elif isinstance(effect, SendReceipt):
            self._receipt(effect, entries[id(effect)])
        elif isinstance(effect, Activate):
            self._activate(effect)
        elif isinstance(effect, Resume):
            session = self.desk.session(effect.session)
            if session is not None and not session.paused:
                self._streams.resume(effect.session)

    def _activate(self, effect: Activate) -> None:
        session = self.desk.session(effect.session)
        if session is not None and session.state is SessionState.ACTIVE:
            self._streams.activate(
                effect.session, effect.seal, effect.services, effect.level, paused=session.paused
            )

    def _challenge(self, effect: SendChallenge) -> None:
        identity = self._agent.identity
        self._agent.emit(
            Challenge,
            session=effect.session,
            challenge=effect.challenge,
            signature=identity.sign(effect.challenge),
            certificates=identity.certificates_der(),
        )
        self._agent.spawn(self._work_out_code(effect), name="code")

    async def _work_out_code(self, effect: SendChallenge) -> None:
        """Slow on purpose, so not in the loop."""
        self.codes[effect.session] = await asyncio.to_thread(challenges.code, effect.challenge)
        for session in list(self.codes)[:-_CODES]:
            del self.codes[session]
        self.look_changed()

    def _receipt(self, effect: SendReceipt, entry: AuditEntry) -> None:
        receipt, signature = challenges.sign_receipt(
            self._agent.identity.audit_key,
            challenges.PresenceReceipt(
                session=effect.record.session,
                challenge=challenges.digest(effect.challenge).hex(),
                approver=effect.approver,
                at=entry.at,
                uptime_ms=entry.uptime_ms,
                index=entry.index,
            ),
        )
        self._agent.emit(
            Receipt, session=effect.record.session, receipt=receipt, signature=signature
        )

    # --- when the audit chain cannot be written --------------------------------------------------

    def _cut(self, effects: Sequence[Effect]) -> None:
        """Close what is open without a word on disk; say it when that works again."""
        self._deactivate(effects)
        self._untold.extend(e for e in effects if isinstance(e, Emit | Keep))
        self._retry_at = self._agent.clock.now() + RETRY_S
        self.look_changed()

    def _mind_the_disk(self) -> None:
        """Let nobody in once it runs out of room, and end what is open while that can be kept."""
        if self._agent.disk_low and self.desk.facts.audit_writable:
            self._soon(self.desk.audit_failed(self.now()))

    def _try_audit_again(self, now: Now) -> None:
        failed = not self.desk.facts.audit_writable
        if not failed or self._agent.disk_low or now.boot_s < self._retry_at:
            return
        self._retry_at = now.boot_s + RETRY_S
        entry = self._agent.record("audit:resume", actor=AGENT, outcome=Outcome.ALLOWED)
        entry.add_done_callback(self._audit_is_back)

    def _audit_is_back(self, entry: asyncio.Future[AuditEntry]) -> None:
        if entry.cancelled() or entry.exception() is not None:
            return
        self.desk.facts.audit_writable = True
        while self._untold:
            effect = self._untold.popleft()
            if isinstance(effect, Emit):
                self._agent.emit(effect.kind, **effect.fields)
            elif isinstance(effect, Keep):
                self._keep(effect)
        self.look_changed()

    # --- for whoever watches ---------------------------------------------------------------------

    def look_changed(self) -> None:
        """What the panel shows is no longer so."""
        for watcher in self._watchers:
            watcher.set()

    @contextmanager
    def watching(self) -> Iterator[asyncio.Event]:
        """An event that is set at each change; the caller clears it."""
        changed = asyncio.Event()
        self._watchers.add(changed)
        try:
            yield changed
        finally:
            self._watchers.discard(changed)

    async def stop(self) -> None:
        """The agent stops: report the end of what is open. Runs when its tasks are gone."""
        if self._opened.is_set():
            effects = self.desk.stopping(self.now())
            self._deactivate(effects)
            await self._step(effects)

    def _deactivate(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Deactivate):
                self._streams.deactivate(effect.session)

    def status(self) -> dict[str, Any]:
        """For `patency-agent status`."""
        roster, entitlement = self.roster.current, self.entitlement.current
        return {
            "remote": self.desk.facts.policy.remote,
            "sessions": sum(s.state is SessionState.ACTIVE for s in self.desk.open),
            "sessions_waiting": sum(s.state is not SessionState.ACTIVE for s in self.desk.open),
            "roster_version": self.roster.version,
            "roster_expires_at_ms": roster.expires_at if roster else None,
            "entitled_until_ms": entitlement.lasts_until if entitlement else None,
        }


def _digest(payload: bytes) -> str:
    return hashlib.sha256(payload).hexdigest()
