"""What the agent says to a panel (`watch`), read strictly enough to be shown."""

from typing import Any

import msgspec

from agent.wire.catalogue import (
    ClientKind,
    ClinicalState,
    Level,
    RequestReason,
    SessionReason,
    SessionState,
)


class SessionView(msgspec.Struct, frozen=True, kw_only=True):
    """Times left in seconds, as of when the view was sent."""

    session: str
    state: SessionState
    reason: SessionReason | None
    specialist: str
    name: str
    organisation: str
    level: Level
    services: list[str]
    why: RequestReason
    ticket: str | None
    note: str
    life_s: int
    presence: bool
    paused: bool
    left_s: int | None
    renew_left_s: int | None
    active_s: int | None
    bytes_up: int
    bytes_down: int
    code: str | None
    client: ClientKind
    break_glass: bool
    approvers: list[int]
    covered: bool
    lasted_s: int | None

    @property
    def wants_pin(self) -> bool:
        return self.state is SessionState.PRESENCE or self.renew_left_s is not None

    @property
    def urgency(self) -> int:
        """Which of several a person must see."""
        if self.wants_pin:
            return 3
        order = (SessionState.WAITING, SessionState.CHALLENGED, SessionState.ACTIVE)
        return order.index(self.state) if self.state in order else -1


class SitePolicyView(msgspec.Struct, frozen=True, kw_only=True):
    """A policy that the hospital signed; of one that waits, what it would loosen."""

    version: int
    digest: str
    fingerprint: str
    new_key: bool = False
    loosens: list[str] = []


class SiteView(msgspec.Struct, frozen=True, kw_only=True):
    holds: SitePolicyView | None
    waiting: SitePolicyView | None
    tightened: bool
    broken: bool


class ConsentView(msgspec.Struct, frozen=True, kw_only=True):
    specialist: str
    ticket: str
    left_s: int


class View(msgspec.Struct, frozen=True, kw_only=True):
    serial: str
    device: str
    product_line: str
    online: bool
    state: ClinicalState
    in_use: bool
    critical: bool
    remote: bool
    audit_ok: bool
    has_pin: bool
    site: SiteView
    approvers_needed: int
    ticket_h: int
    consents: list[ConsentView]
    sessions: list[SessionView]

    @property
    def open(self) -> list[SessionView]:
        return [s for s in self.sessions if not s.state.over]

    @property
    def shown(self) -> SessionView | None:
        """The session that a person must see first."""
        return max(self.open, key=lambda s: s.urgency, default=None)

    @property
    def last(self) -> SessionView | None:
        """The one that was over last."""
        return next((s for s in reversed(self.sessions) if s.state.over), None)


def read(data: Any) -> View:
    """Raises msgspec.ValidationError: the agent is of another version."""
    return msgspec.convert(data, View)
