"""The desk: decides who gets in. Pure: messages, clocks and facts in, effects out.

Theory of operation
-------------------
A session moves along `agent.wire.catalogue.SESSION_TRANSITIONS`, and only `_move` moves it:

    request ──▶ WAITING ──free──▶ CHALLENGED ──answer──▶ PRESENCE ──approve──▶ ACTIVE ──▶ ENDED
                                      ▲         └──── nobody need be asked ───────▲
                request, and free ────┘        (anything before ACTIVE may be REFUSED or EXPIRED)

*Request.* The conditions of `agent.access.conditions` hold, or it is refused with the first that
does not. In `armed injecting hold` it is refused at once: whatever is asked then is no business of
anyone's. In other states of use it waits, an hour at most, and rings by itself when the use ends.

*Challenge* (R-ACC-4). The device states the terms, with a nonce and an X25519 key of this session
alone, and gives the specialist two minutes. One answer is looked at, right or wrong; a wrong one
refuses the session. It must be an SSH signature over SHA-256(challenge ‖ the client's key) by a
key that the roster gives this very specialist: so a changed level, another device's challenge, a
swapped key or a portal's own key cannot pass. An access passkey signs the same bytes at the access
origin, where the site takes a browser at all. The seal is made here, and the private key dropped.

*Presence* (R-ACC-6). At `os`, and where the policy says Ask, nobody gets in before a person at the
injector has approved with a PIN, within the site's waiting time; refusal is the default. While in
use a person cannot approve; they may declare that no patient is connected. Approval makes a signed
receipt. It is asked for again every half hour, with 60 s to answer.

*Active.* Life and idleness run on the boot clock. When the injector comes into use the streams
stand still (or the session ends, by policy) and move on afterwards; a pause is not idleness, and
nobody is asked to renew during one. Stop at the panel, End from the portal, a roster that no longer
has the signer, and the switch at the panel end it at once.

*Restart.* Nothing here survives the process or the boot; the shell keeps ids, and `restarted` tells
the portal what became of them.

Every decision is a Record and an Emit of the same step, the Record first. Activate comes last in
its step, and the shell does not carry it out when the Record could not be written; it then calls
`audit_failed`, which ends everything. Deactivate never waits.

A portal in an attacker's hands can send anything here, at any rate: what it can make the device
write down is bounded by `Limits.per_minute`. What is dropped for that is not accepted, so an honest
portal sends it again.
"""

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from agent.access import answers, conditions
from agent.access.book import Book, Limits
from agent.access.conditions import Facts
from agent.access.effects import (
    Activate,
    Count,
    Deactivate,
    Effect,
    Emit,
    Keep,
    Now,
    PanelResult,
    Pause,
    Record,
    Resume,
    SendChallenge,
    SendReceipt,
    accepted,
    refusal,
    update,
)
from agent.access.pins import Verdict
from agent.access.policy import Policy, Rule
from agent.access.session import Session
from agent.wire import challenge as challenges
from agent.wire.catalogue import (
    SESSION_TRANSITIONS,
    ClinicalState,
    Level,
    Outcome,
    SessionReason,
    SessionState,
)
from agent.wire.entitlement import Entitlement
from agent.wire.messages import AccessRequest, Answer, End
from agent.wire.roster import Roster

_S, _R = SessionState, SessionReason
# What the audit calls an arrival in each state.
_ACTION: Mapping[SessionState, str] = {
    _S.WAITING: "session:wait",
    _S.CHALLENGED: "session:challenge",
    _S.PRESENCE: "session:answer",
    _S.ACTIVE: "session:start",
    _S.REFUSED: "session:refuse",
    _S.EXPIRED: "session:expire",
    _S.ENDED: "session:end",
}
_OVERDUE: Mapping[SessionState, tuple[SessionState, SessionReason]] = {
    _S.WAITING: (_S.EXPIRED, _R.IN_USE),
    _S.CHALLENGED: (_S.EXPIRED, _R.NO_ANSWER),
    _S.PRESENCE: (_S.EXPIRED, _R.NO_APPROVAL),
    _S.ACTIVE: (_S.ENDED, _R.LIFE_OVER),
}
# Who did it, where it was not the specialist or an approver by number.
PANEL = "panel"  # somebody at the panel, who gave no PIN
AGENT = "agent"
PORTAL = "portal"


@dataclass(frozen=True, slots=True)
class Kept:
    """What the shell kept of a session before a restart."""

    session: str
    request: str
    specialist: str
    state: SessionState


class Desk:
    """All sessions of one injector. Methods return effects, to be carried out in order."""

    def __init__(
        self,
        facts: Facts,
        clinical: ClinicalState,
        *,
        limits: Limits | None = None,
        nonce: Callable[[], str] = lambda: secrets.token_hex(32),
        private_key: Callable[[], X25519PrivateKey] = X25519PrivateKey.generate,
    ) -> None:
        self.facts = facts
        self._clinical = clinical
        self._book = Book(limits or Limits())
        self._nonce = nonce
        self._private_key = private_key

    @property
    def open(self) -> list[Session]:
        """Sessions that are not over, oldest first."""
        return self._book.open

    def session(self, id: str) -> Session | None:
        return self._book.get(id)

    def view(self, now: Now) -> list[dict[str, Any]]:
        """For the panel: the open sessions, oldest first, and the last one that is over."""
        last = sorted(self._book.over, key=lambda s: s.since)[-1:]
        return [s.view(now.boot_s) for s in [*self.open, *last]]

    # --- from the portal -------------------------------------------------------------------------

    def request(self, now: Now, asked: AccessRequest, digest: str) -> list[Effect]:
        """An access request came down; `digest` is SHA-256 (hex) of its exact payload."""
        known = self._book.seen(asked.session)
        if known == digest:
            return []  # the same again: it is accepted, and decided or being decided
        if self._book.flooded(now.boot_s):
            return []
        out: list[Effect] = [accepted("access-request", asked.session, digest)]
        if known is not None:
            out.append(refusal("session:refuse", PORTAL, asked.session, _R.REPLAYED, digest))
            out.append(update(asked.session, digest, _S.REFUSED, _R.REPLAYED))
            return out
        it = Session(
            request=asked,
            digest=digest,
            state=_S.ACCEPTED,
            since=now.boot_s,
            deadline=now.boot_s + self._book.limits.wait_in_use_s,
        )
        reason = conditions.why_not(asked, self.facts, now.wall_ms) or self._no_room()
        self._book.add(it)
        if reason is not None:
            return out + self._move(now, it, _S.REFUSED, reason, actor=asked.specialist)
        if self._clinical.in_use:
            return out + self._move(now, it, _S.WAITING, _R.IN_USE, actor=asked.specialist)
        return out + self._challenge(now, it)

    def answer(self, now: Now, answer: Answer, digest: str) -> list[Effect]:
        """An answer to a challenge came down; `digest` is SHA-256 (hex) of its exact payload."""
        it = self._book.get(answer.session)
        if it is None or it.answered or it.state.over:
            return self._stray_answer(now, it, answer, digest)
        if self._book.flooded(now.boot_s):
            return []
        out: list[Effect] = [accepted("answer", answer.session, digest)]
        it.answered = True
        who = it.request.specialist
        reason = answers.wrong(now, it, answer, self.facts, self._clinical)
        if reason is not None:
            return out + self._move(now, it, _S.REFUSED, reason, actor=who, digest=digest)
        if it.passkey_use is not None:
            self.facts.passkey_uses[it.signer] = it.passkey_use
            out.append(Count(it.signer, it.passkey_use))
        # The policy may have become stricter since the challenge.
        it.presence = it.presence or self._asks(it.level)
        if it.presence:
            it.deadline = now.boot_s + self.facts.policy.approval_wait_s
            return out + self._move(now, it, _S.PRESENCE, actor=who, digest=digest)
        return out + self._start(now, it, actor=who, digest=digest)

    def end(self, now: Now, end: End, digest: str) -> list[Effect]:
        """The portal ends a session, for itself, the specialist or the hospital."""
        it = self._book.get(end.session)
        if it is not None and not it.state.over:
            moved = self._move(now, it, _S.ENDED, _R(end.reason.value), actor=PORTAL)
            return [*moved, accepted("end", end.session, digest)]
        return [] if self._book.flooded(now.boot_s) else [accepted("end", end.session, digest)]

    # --- at the panel ----------------------------------------------------------------------------

    def waiting_for_pin(self, session: str | None) -> tuple[PanelResult, str]:
        """Which session a PIN would approve or renew: DONE and its id, or why none."""
        ripe = [
            s
            for s in self.open
            if (s.state is _S.PRESENCE or s.prompt_ends is not None) and session in (None, s.id)
        ]
        if not ripe:
            return PanelResult.NOTHING, ""
        if len(ripe) > 1:
            return PanelResult.SEVERAL, ""
        if ripe[0].state is _S.PRESENCE and self._clinical.in_use:
            return PanelResult.IN_USE, ""
        return PanelResult.DONE, ripe[0].id

    def approve(self, now: Now, session: str, verdict: Verdict) -> tuple[PanelResult, list[Effect]]:
        """A person entered a PIN for this session; `verdict` is what the PIN store says of it."""
        late = self.tick(now)
        result, _id = self.waiting_for_pin(session)
        if result is not PanelResult.DONE:
            return result, late
        it = self._book.get(session)
        assert it is not None  # noqa: S101  waiting_for_pin found it
        if verdict.approver is None:
            result, out = self._wrong_pin(now, it, locked=verdict.locked)
            return result, late + out
        actor = f"approver-{verdict.approver}"
        if it.state is _S.ACTIVE:
            it.prompt_ends = None
            it.renew_at = now.boot_s + self.facts.policy.renewal_s
            return PanelResult.DONE, [
                *late,
                Record("presence:renew", actor, Outcome.ALLOWED, it.id),
            ]
        reason = conditions.still_not(it.request, self.facts, now.wall_ms)
        if reason is not None:
            out = self._move(now, it, _S.REFUSED, reason, actor=actor)
            return PanelResult.REFUSED, late + out
        record = Record("presence:approve", actor, Outcome.ALLOWED, it.id)
        receipt = SendReceipt(record, it.challenge, verdict.approver)
        return PanelResult.DONE, [*late, receipt, *self._start(now, it, actor=actor)]

    def refuse(self, now: Now, session: str | None) -> tuple[PanelResult, list[Effect]]:
        """A person says no: to the session named, or to every one that is not active yet."""
        return self._at_panel(now, session, (_S.WAITING, _S.CHALLENGED, _S.PRESENCE))

    def stop(self, now: Now, session: str | None) -> tuple[PanelResult, list[Effect]]:
        """A person presses Stop: the session named, or every one, in whatever state."""
        return self._at_panel(now, session, (_S.WAITING, _S.CHALLENGED, _S.PRESENCE, _S.ACTIVE))

    def policy_changed(self, now: Now, policy: Policy) -> list[Effect]:
        """The policy was set at the panel. What it no longer allows ends at once."""
        self.facts.policy = policy
        out: list[Effect] = []
        for it in self.open:
            if not policy.remote:
                out += self._close(now, it, _R.REMOTE_OFF, actor=PANEL)
            elif policy.rule(it.level) is Rule.DENY:
                out += self._close(now, it, _R.POLICY, actor=PANEL)
            elif not policy.takes(it.client, it.level):
                out += self._close(now, it, _R.COMMAND_LINE_ONLY, actor=PANEL)
        return out

    # --- what changes around us ------------------------------------------------------------------

    def clinical_changed(self, now: Now, state: ClinicalState) -> list[Effect]:
        self._clinical = state
        out: list[Effect] = []
        for it in self.open:
            if it.state is _S.ACTIVE and it.paused != state.in_use:
                out += self._hold(now, it) if state.in_use else self._go_on(now, it)
        return out + self._ring(now)

    def roster_changed(self, now: Now, roster: Roster) -> list[Effect]:
        """A newer roster was verified. Whom it drops, or whose key, is out at once."""
        self.facts.roster = roster
        out: list[Effect] = []
        for it in self.open:
            who = conditions.member(it.request, self.facts)
            if who is None or (it.signer and not who.signs_with(it.signer)):
                out += self._close(now, it, _R.NOT_ROSTERED, actor=AGENT)
            elif not conditions.covered(who, it.request, self.facts):
                out += self._close(now, it, _R.OUT_OF_SCOPE, actor=AGENT)
            elif now.wall_ms >= who.until:
                out += self._close(now, it, _R.UNTRAINED, actor=AGENT)
        return out

    def entitlement_changed(self, now: Now, entitlement: Entitlement) -> list[Effect]:
        """A newer entitlement was verified. What it no longer covers ends at once."""
        self.facts.entitlement = entitlement
        out: list[Effect] = []
        for it in self.open:
            if not entitlement.covers(it.level, now.wall_ms):
                out += self._close(now, it, _R.NOT_ENTITLED, actor=AGENT)
        return out

    def activity(self, now: Now, session: str, bytes_up: int, bytes_down: int) -> None:
        """Totals of a session's streams so far; any change counts as activity."""
        it = self._book.get(session)
        if it is None or it.state is not _S.ACTIVE:
            return
        if (bytes_up, bytes_down) != (it.bytes_up, it.bytes_down):
            it.bytes_up, it.bytes_down = bytes_up, bytes_down
            it.moved_at = now.boot_s

    def audit_failed(self, now: Now) -> list[Effect]:
        """An entry could not be written: everything ends, and nothing begins (R-ACC-10)."""
        self.facts.audit_writable = False
        out: list[Effect] = []
        for it in self.open:
            out += self._close(now, it, _R.AUDIT_UNWRITABLE, actor=AGENT)
        return out

    def tick(self, now: Now) -> list[Effect]:
        """Time passed: twice a second."""
        out: list[Effect] = []
        for it in self.open:
            out += self._overdue(now, it)
        return out + self._ring(now)

    def stopping(self, now: Now) -> list[Effect]:
        """The agent stops in good order: what is open is over, and the portal may know it now."""
        out: list[Effect] = []
        for it in self.open:
            out += self._move(now, it, _S.ENDED, _R.AGENT_RESTARTED, actor=AGENT)
        return out

    def restarted(self, kept: Iterable[Kept]) -> list[Effect]:
        """What the shell kept, oldest first: every session that was open is over."""
        out: list[Effect] = []
        for old in kept:
            self._book.see(old.session, old.request)
            if old.state.over:
                continue
            reason = _R.AGENT_RESTARTED
            out += [
                Keep(old.session, old.request, old.specialist, _S.ENDED),
                Record("session:end", AGENT, Outcome.ALLOWED, old.session, reason=reason.value),
                update(old.session, old.request, _S.ENDED, reason),
            ]
        return out

    # --- inside: getting in ----------------------------------------------------------------------

    def _asks(self, level: Level) -> bool:
        """Whether a person at the injector must approve."""
        return level is Level.OS or self.facts.policy.rule(level) is not Rule.ALLOW

    def _no_room(self) -> SessionReason | None:
        """One session at a time, and few that wait; in `armed injecting hold`, none."""
        if self._clinical.critical:
            return _R.IN_USE
        busy = self._book.busy() >= self.facts.policy.sessions
        full = self._book.waiting() >= self._book.limits.waiting
        return _R.BUSY if busy or full else None

    def _ring(self, now: Now) -> list[Effect]:
        """The use has ended: the request that waited longest goes on, if it still may."""
        out: list[Effect] = []
        for it in self.open:
            free = not self._clinical.in_use and self._book.busy() < self.facts.policy.sessions
            if it.state is not _S.WAITING or not free:
                continue
            reason = conditions.why_not(it.request, self.facts, now.wall_ms)
            if reason is not None:
                out += self._move(now, it, _S.REFUSED, reason, actor=AGENT)
            else:
                out += self._challenge(now, it)
        return out

    def _challenge(self, now: Now, it: Session) -> list[Effect]:
        asked = it.request
        it.presence = self._asks(asked.level)
        it.private = self._private_key()
        it.challenge = challenges.encode(
            challenges.Terms(
                session=asked.session,
                request=it.digest,
                device=self.facts.device,
                specialist=asked.specialist,
                level=asked.level,
                services=list(asked.services),
                life_s=asked.life_s,
                presence=it.presence,
                boot=self.facts.boot,
                nonce=self._nonce(),
                key=it.private.public_key().public_bytes_raw(),
            )
        )
        it.deadline = now.boot_s + self._book.limits.answer_s
        # The challenge goes before the update that announces it.
        send = SendChallenge(it.id, it.challenge)
        return self._move(now, it, _S.CHALLENGED, actor=asked.specialist, before_update=[send])

    def _stray_answer(
        self, now: Now, it: Session | None, answer: Answer, digest: str
    ) -> list[Effect]:
        """A challenge is answered once. Any other answer changes nothing, and is written down."""
        reason = _R.UNKNOWN_SESSION
        if it is not None:
            reason = _R.REPLAYED if it.answered else _R.LATE
            it.refusals += 1
            if it.refusals > self._book.limits.refused_answers:
                return []
        if self._book.flooded(now.boot_s):
            return []
        return [
            accepted("answer", answer.session, digest),
            refusal("session:answer", PORTAL, answer.session, reason, digest),
        ]

    def _wrong_pin(
        self, now: Now, it: Session, *, locked: bool
    ) -> tuple[PanelResult, list[Effect]]:
        renewal = it.state is _S.ACTIVE
        action = "presence:renew" if renewal else "presence:approve"
        reason = "pin_locked" if locked else "wrong_pin"
        out: list[Effect] = [Record(action, PANEL, Outcome.REFUSED, it.id, reason=reason)]
        if not locked:
            return PanelResult.WRONG_PIN, out
        if not renewal:  # a renewal has its own end, in a minute
            out += self._move(now, it, _S.REFUSED, _R.PIN_LOCKED, actor=PANEL)
        return PanelResult.PIN_LOCKED, out

    def _start(
        self, now: Now, it: Session, *, actor: str, digest: str | None = None
    ) -> list[Effect]:
        made, it.seal = it.seal, None
        assert made is not None  # noqa: S101  made with the answer, which comes before any way here
        it.active_at = it.moved_at = now.boot_s
        it.deadline = now.boot_s + it.request.life_s
        it.ends_at_ms = now.wall_ms + it.request.life_s * 1000
        it.renew_at = now.boot_s + self.facts.policy.renewal_s if it.presence else None
        moved = self._move(now, it, _S.ACTIVE, actor=actor, digest=digest)
        return [*moved, Activate(it.id, made, tuple(it.request.services), it.level)]

    # --- inside: being in, and getting out -------------------------------------------------------

    def _hold(self, now: Now, it: Session) -> list[Effect]:
        """The injector came into use: stand still, or end, as the policy says."""
        reason = _R.BECAME_IN_USE
        if self.facts.policy.in_use == "end":
            return self._move(now, it, _S.ENDED, reason, actor=AGENT)
        it.paused = True
        record = Record("session:hold", AGENT, Outcome.ALLOWED, it.id, reason=reason.value)
        return [Pause(it.id), record, self._update(it, reason)]

    def _go_on(self, now: Now, it: Session) -> list[Effect]:
        it.paused = False
        it.moved_at = now.boot_s
        if it.prompt_ends is not None:  # nobody was asked to look at a panel meanwhile
            it.prompt_ends = now.boot_s + self._book.limits.renewal_prompt_s
        record = Record("session:resume", AGENT, Outcome.ALLOWED, it.id)
        return [record, self._update(it, None), Resume(it.id)]

    def _overdue(self, now: Now, it: Session) -> list[Effect]:
        t = now.boot_s
        if t >= it.deadline:
            return self._move(now, it, *_OVERDUE[it.state], actor=AGENT)
        if it.state is not _S.ACTIVE or it.paused:
            return []
        if t - it.moved_at >= self.facts.policy.idle_s:
            return self._move(now, it, _S.ENDED, _R.IDLE, actor=AGENT)
        if it.prompt_ends is not None and t >= it.prompt_ends:
            return self._move(now, it, _S.ENDED, _R.PRESENCE_NOT_RENEWED, actor=AGENT)
        if it.prompt_ends is None and it.renew_at is not None and t >= it.renew_at:
            it.prompt_ends = t + self._book.limits.renewal_prompt_s
        return []

    def _at_panel(
        self, now: Now, session: str | None, states: tuple[SessionState, ...]
    ) -> tuple[PanelResult, list[Effect]]:
        out: list[Effect] = []
        for it in self.open:
            if session in (None, it.id) and it.state in states:
                active = it.state is _S.ACTIVE
                reason = _R.STOPPED_AT_PANEL if active else _R.REFUSED_AT_PANEL
                out += self._close(now, it, reason, actor=PANEL)
        return (PanelResult.DONE if out else PanelResult.NOTHING), out

    def _close(self, now: Now, it: Session, reason: SessionReason, *, actor: str) -> list[Effect]:
        """End what is active, refuse what is not yet."""
        state = _S.ENDED if it.state is _S.ACTIVE else _S.REFUSED
        return self._move(now, it, state, reason, actor=actor)

    def _move(
        self,
        now: Now,
        it: Session,
        state: SessionState,
        reason: SessionReason | None = None,
        *,
        actor: str,
        digest: str | None = None,
        before_update: Sequence[Effect] = (),
    ) -> list[Effect]:
        """The one way from state to state."""
        if state not in SESSION_TRANSITIONS[it.state]:
            raise AssertionError(f"{it.state} does not lead to {state}")
        out: list[Effect] = [Deactivate(it.id)] if it.state is _S.ACTIVE else []
        it.state, it.reason, it.since = state, reason, now.boot_s
        if state.over:
            it.forget()
            self._book.forget_oldest()
        refused = state in (_S.REFUSED, _S.EXPIRED)
        return [
            *out,
            Keep(it.id, it.digest, it.request.specialist, state),
            Record(
                _ACTION[state],
                actor,
                Outcome.REFUSED if refused else Outcome.ALLOWED,
                it.id,
                reason=reason and reason.value,
                digest=digest or it.digest,
            ),
            *before_update,
            self._update(it, reason),
        ]

    def _update(self, it: Session, reason: SessionReason | None) -> Emit:
        return update(
            it.id,
            it.digest,
            it.state,
            reason,
            ends_at=it.ends_at_ms if it.state is _S.ACTIVE else None,
            bytes_up=it.bytes_up,
            bytes_down=it.bytes_down,
        )
