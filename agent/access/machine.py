"""What carries a session from state to state, and no decision of when. Pure.

`agent.access.desk` has the theory; `at_panel` and `around` decide on their events with this.
"""

import secrets
from collections.abc import Callable, Mapping, Sequence

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from agent.access.book import Book, Limits
from agent.access.conditions import Facts
from agent.access.effects import (
    Activate,
    Deactivate,
    Effect,
    Emit,
    Keep,
    Now,
    Record,
    SendChallenge,
    update,
)
from agent.access.policy import Rule
from agent.access.session import Session
from agent.access.tickets import Consents
from agent.wire import challenge as challenges
from agent.wire.catalogue import (
    SESSION_TRANSITIONS,
    ClinicalState,
    Level,
    Outcome,
    SessionReason,
    SessionState,
)

_S = SessionState
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
# Who did it, where it was not the specialist or an approver by number.
PANEL = "panel"  # somebody at the panel, who gave no PIN
AGENT = "agent"
PORTAL = "portal"


class Machine:
    """The sessions of one injector, and the moves there are. Every move returns its effects."""

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
        self._consents = Consents()
        self._nonce = nonce
        self._private_key = private_key

    @property
    def open(self) -> list[Session]:
        """Sessions that are not over, oldest first."""
        return self._book.open

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
            approvers=list(it.approvers),
            bytes_down=it.bytes_down,
        )

    # --- the ways in -----------------------------------------------------------------------------

    def _asks(self, level: Level) -> bool:
        """Whether a person at the injector must approve."""
        return level is Level.OS or self.facts.policy.rule(level) is not Rule.ALLOW

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
