"""The desk: decides who gets in. Pure: messages, clocks and facts in, effects out.

Theory of operation
-------------------
A session moves along `agent.wire.catalogue.SESSION_TRANSITIONS`, and only `_move` moves it
(`machine`; what people do is in `at_panel`, what changes around us in `around`, what comes from the
portal here):

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
receipt. It is asked for again every half hour, with 60 s to answer. Where the policy wants four
eyes two different people approve, and never one whom the site knows to be the specialist. An
approval may be consent to the ticket for some hours: then the same specialist's later sessions on
it start as soon as they are signed, are recorded as covered by it, and are shown and stopped like
any other.

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

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from agent.access import answers, conditions
from agent.access.at_panel import AtPanel
from agent.access.effects import (
    Count,
    Effect,
    Keep,
    Now,
    Record,
    accepted,
    refusal,
    update,
)
from agent.access.machine import AGENT, PORTAL
from agent.access.session import Session
from agent.access.tickets import Consent
from agent.wire.catalogue import (
    Outcome,
    SessionReason,
    SessionState,
)
from agent.wire.messages import AccessRequest, Answer, End

_S, _R = SessionState, SessionReason


@dataclass(frozen=True, slots=True)
class Kept:
    """What the shell kept of a session before a restart."""

    session: str
    request: str
    specialist: str
    state: SessionState


class Desk(AtPanel):
    """All sessions of one injector. Methods return effects, to be carried out in order."""

    def session(self, id: str) -> Session | None:
        return self._book.get(id)

    def view(self, now: Now) -> list[dict[str, Any]]:
        """For the panel: the open sessions, oldest first, and the last one that is over."""
        last = sorted(self._book.over, key=lambda s: s.since)[-1:]
        return [s.view(now.boot_s) for s in [*self.open, *last]]

    def consents(self, now: Now) -> list[dict[str, Any]]:
        """For the panel: the tickets that a consent covers."""
        return self._consents.view(self.facts.policy, now.boot_s)

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
        if it.presence and (consent := self._covered(now, it)) is not None:
            it.approvers, it.covered = list(consent.approvers), True
            out.append(
                Record(
                    "presence:cover",
                    f"approver-{consent.approvers[-1]}",
                    Outcome.ALLOWED,
                    it.id,
                    digest=consent.request,  # which session they approved
                )
            )
            return out + self._start(now, it, actor=who, digest=digest)
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

    # --- inside ----------------------------------------------------------------------------------

    def _covered(self, now: Now, it: Session) -> Consent | None:
        """The consent that stands for a person now. While in use, nothing does."""
        if self._clinical.in_use:
            return None
        return self._consents.covering(it, self.facts.policy, now.boot_s)

    def _no_room(self) -> SessionReason | None:
        """One session at a time, and few that wait; in `armed injecting hold`, none."""
        if self._clinical.critical:
            return _R.IN_USE
        busy = self._book.busy() >= self.facts.policy.sessions
        full = self._book.waiting() >= self._book.limits.waiting
        return _R.BUSY if busy or full else None

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
