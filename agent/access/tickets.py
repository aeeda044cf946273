"""One consent for one ticket: what a person at the injector allowed for some hours (R-ACC-6). Pure.

Kept in memory alone, so that no consent outlives a restart or a boot. It covers the same
specialist, on the same ticket, at no higher level, until its time is over by the boot clock; and
never more than the policy of the later moment still gives. A ticket to follow, and a session that
breaks glass, neither give one nor are covered. Whoever stops a session of the ticket, or refuses
one, withdraws it.
"""

from dataclasses import dataclass
from typing import Any

from agent.access.policy import Policy
from agent.access.session import Session
from agent.wire.catalogue import Level

HOUR_S = 3600.0
MAX_CONSENTS = 16


@dataclass(frozen=True, slots=True)
class Consent:
    """Times are seconds of the boot clock; `approvers` in the order of their PINs."""

    specialist: str
    ticket: str
    level: Level
    approvers: tuple[int, ...]
    request: str  # digest of the request that was approved
    given_at: float
    until: float

    def covers(self, it: Session, policy: Policy, now_s: float) -> bool:
        asked = it.request
        return (
            qualifies(it)
            and (asked.specialist, asked.ticket) == (self.specialist, self.ticket)
            and self.level.covers(it.level)
            and now_s < min(self.until, self.given_at + policy.ticket_h * HOUR_S)
            and len(self.approvers) >= policy.approvers
        )


def qualifies(it: Session) -> bool:
    """Whether consent to this session can be consent to its ticket."""
    return it.request.ticket is not None and not it.request.break_glass


class Consents:
    def __init__(self) -> None:
        self._given: list[Consent] = []

    def give(self, it: Session, now_s: float) -> None:
        """For as long as its approvers said; takes the place of one for the same ticket."""
        if not it.ticket_h or it.request.ticket is None:
            return
        self.withdraw(it)
        self._given.append(
            Consent(
                specialist=it.request.specialist,
                ticket=it.request.ticket,
                level=it.level,
                approvers=tuple(it.approvers),
                request=it.digest,
                given_at=now_s,
                until=now_s + it.ticket_h * HOUR_S,
            )
        )
        del self._given[:-MAX_CONSENTS]

    def covering(self, it: Session, policy: Policy, now_s: float) -> Consent | None:
        return next((c for c in self._given if c.covers(it, policy, now_s)), None)

    def withdraw(self, it: Session) -> None:
        """What was given to this specialist for this ticket."""
        whose = it.request.specialist, it.request.ticket
        self._given = [c for c in self._given if (c.specialist, c.ticket) != whose]

    def clear(self) -> None:
        self._given = []

    def view(self, policy: Policy, now_s: float) -> list[dict[str, Any]]:
        """For the panel: what still covers anything; what is left of its time, in seconds."""
        left = [
            (c, min(c.until, c.given_at + policy.ticket_h * HOUR_S) - now_s) for c in self._given
        ]
        return [
            {
                "specialist": c.specialist,
                "ticket": c.ticket,
                "level": c.level.value,
                "approvers": list(c.approvers),
                "left_s": round(s),
            }
            for c, s in left
            if s > 0
        ]
