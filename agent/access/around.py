"""What changes around the sessions: time, the clinical state, the roster, the entitlement, the
policy, the audit chain. Pure; `agent.access.desk` has the theory. What no longer holds ends at
once."""

from collections.abc import Mapping

from agent.access import conditions
from agent.access.effects import Effect, Now, Pause, Record, Resume
from agent.access.machine import AGENT, PANEL, Machine
from agent.access.policy import Policy, Rule
from agent.access.session import Session
from agent.wire.catalogue import ClinicalState, Outcome, SessionReason, SessionState
from agent.wire.entitlement import Entitlement
from agent.wire.roster import Roster

_S, _R = SessionState, SessionReason
_OVERDUE: Mapping[SessionState, tuple[SessionState, SessionReason]] = {
    _S.WAITING: (_S.EXPIRED, _R.IN_USE),
    _S.CHALLENGED: (_S.EXPIRED, _R.NO_ANSWER),
    _S.PRESENCE: (_S.EXPIRED, _R.NO_APPROVAL),
    _S.ACTIVE: (_S.ENDED, _R.LIFE_OVER),
}


class Around(Machine):
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

    def policy_changed(self, now: Now, policy: Policy, actor: str = PANEL) -> list[Effect]:
        """Another policy holds. What it no longer allows ends at once, and where it asks for a
        person now, the panel asks."""
        self.facts.policy = policy
        if not policy.remote:
            self._consents.clear()
        out: list[Effect] = []
        for it in self.open:
            if not policy.remote:
                out += self._close(now, it, _R.REMOTE_OFF, actor=actor)
            elif policy.rule(it.level) is Rule.DENY:
                out += self._close(now, it, _R.POLICY, actor=actor)
            elif not policy.takes(it.client, it.level):
                out += self._close(now, it, _R.COMMAND_LINE_ONLY, actor=actor)
            elif it.state is _S.ACTIVE and not it.presence and self._asks(it.level):
                it.presence, it.renew_at = True, now.boot_s
        return out

    # --- inside ----------------------------------------------------------------------------------

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
        if t >= it.deadline and it.state is _S.PRESENCE and it.approvers:
            return self._move(now, it, _S.EXPIRED, _R.FOUR_EYES, actor=AGENT)
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
