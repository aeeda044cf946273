"""What a person at the injector decides about sessions (R-ACC-6). Pure; `agent.access.desk` has the
theory. Approving and renewing take a PIN, of which the PIN store has said whose it is; what only
tightens takes none."""

from agent.access import conditions
from agent.access.around import Around
from agent.access.effects import Effect, Now, PanelResult, Record, SendReceipt
from agent.access.machine import PANEL
from agent.access.pins import Verdict
from agent.access.session import Session
from agent.access.tickets import qualifies
from agent.wire.catalogue import Outcome, SessionReason, SessionState

_S, _R = SessionState, SessionReason


class AtPanel(Around):
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

    def approve(
        self, now: Now, session: str, verdict: Verdict, ticket_h: int = 0
    ) -> tuple[PanelResult, list[Effect]]:
        """A person entered a PIN for this session, and may consent to its ticket for some hours;
        `verdict` is what the PIN store says of the PIN."""
        late = self.tick(now)
        result, _id = self.waiting_for_pin(session)
        if result is not PanelResult.DONE:
            return result, late
        it = self._book.get(session)
        assert it is not None  # noqa: S101  waiting_for_pin found it
        if verdict.approver is None:
            result, out = self._wrong_pin(now, it, locked=verdict.locked)
            return result, late + out
        result, out = self._approved(now, it, verdict.approver, verdict.specialist, ticket_h)
        return result, late + out

    def _approved(
        self, now: Now, it: Session, approver: int, who: str | None, ticket_h: int
    ) -> tuple[PanelResult, list[Effect]]:
        """This approver says yes."""
        actor = f"approver-{approver}"
        renewal = it.state is _S.ACTIVE
        action = "presence:renew" if renewal else "presence:approve"
        record = Record(action, actor, Outcome.ALLOWED, it.id)
        # Nobody is the person present at their own session (R-ACC-6).
        not_they = PanelResult.SELF if who == it.request.specialist else None
        if not renewal and approver in it.approvers:
            not_they = PanelResult.SAME
        if not_they is not None:
            return not_they, [Record(action, actor, Outcome.REFUSED, it.id, reason=not_they.value)]
        if renewal:
            it.prompt_ends = None
            it.renew_at = now.boot_s + self.facts.policy.renewal_s
            return PanelResult.DONE, [record]
        reason = conditions.still_not(it.request, self.facts, now.wall_ms)
        if reason is not None:
            return PanelResult.REFUSED, self._move(now, it, _S.REFUSED, reason, actor=actor)
        if not self.may_cover(it.id, ticket_h):
            return PanelResult.NO_TICKET, []
        it.approvers.append(approver)
        it.ticket_h = ticket_h if it.ticket_h is None else min(it.ticket_h, ticket_h)
        if len(it.approvers) < self.facts.policy.approvers:
            return PanelResult.MORE, [record]
        self._consents.give(it, now.boot_s)
        receipt = SendReceipt(record, it.challenge, approver)
        return PanelResult.DONE, [receipt, *self._start(now, it, actor=actor)]

    def may_cover(self, session: str, ticket_h: int) -> bool:
        """Whether consent to this session's ticket can be given for so many hours; 0 is none."""
        it = self._book.get(session)
        within = it is not None and qualifies(it) and 0 < ticket_h <= self.facts.policy.ticket_h
        return ticket_h == 0 or within

    def withdraw(self) -> None:
        """A person takes back every consent to a ticket."""
        self._consents.clear()

    def refuse(
        self, now: Now, session: str | None, reason: SessionReason = _R.REFUSED_AT_PANEL
    ) -> tuple[PanelResult, list[Effect]]:
        """A person says no: to the session named, or to every one that is not active yet."""
        return self._at_panel(now, session, (_S.WAITING, _S.CHALLENGED, _S.PRESENCE), reason)

    def stop(self, now: Now, session: str | None) -> tuple[PanelResult, list[Effect]]:
        """A person presses Stop: the session named, or every one, in whatever state."""
        return self._at_panel(now, session, (_S.WAITING, _S.CHALLENGED, _S.PRESENCE, _S.ACTIVE))

    def _at_panel(
        self,
        now: Now,
        session: str | None,
        states: tuple[SessionState, ...],
        refused: SessionReason = _R.REFUSED_AT_PANEL,
    ) -> tuple[PanelResult, list[Effect]]:
        out: list[Effect] = []
        for it in self.open:
            if session in (None, it.id) and it.state in states:
                active = it.state is _S.ACTIVE
                if refused is not _R.PATIENT_ON_TABLE:  # that says nothing against the ticket
                    self._consents.withdraw(it)
                reason = _R.STOPPED_AT_PANEL if active else refused
                out += self._close(now, it, reason, actor=PANEL)
        return (PanelResult.DONE if out else PanelResult.NOTHING), out

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
