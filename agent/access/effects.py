"""What the desk asks of its shell, `agent.access.shell`, which says in what order they happen."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from agent.wire.catalogue import Level, Outcome, SessionReason, SessionState
from agent.wire.messages import Accepted, Durable, SessionUpdate
from agent.wire.seal import Seal


@dataclass(frozen=True, slots=True)
class Now:
    """Both clocks at one moment: seconds of the boot clock, milliseconds of the wall clock."""

    boot_s: float
    wall_ms: int


@dataclass(frozen=True, slots=True)
class Record:
    """An entry for the audit chain. What follows in the same step waits until it is on disk."""

    action: str
    actor: str
    outcome: Outcome
    session: str
    reason: str | None = None
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class Emit:
    """A durable message to the portal."""

    kind: type[Durable]
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class SendChallenge:
    """Sign these bytes with the credential, send them, and work out the code people compare."""

    session: str
    challenge: bytes


@dataclass(frozen=True, slots=True)
class SendReceipt:
    """Put `record` on the chain, and sign a presence receipt that names its index."""

    record: Record
    challenge: bytes
    approver: int


@dataclass(frozen=True, slots=True)
class Keep:
    """Remember on disk where this session stands, so that a restart can report it."""

    session: str
    request: str
    specialist: str
    state: SessionState


@dataclass(frozen=True, slots=True)
class Count:
    """Remember on disk how often this passkey was used, before anything follows from it."""

    passkey: bytes
    uses: int


@dataclass(frozen=True, slots=True)
class Activate:
    """Take frames of this session from now on, for these services and no others."""

    session: str
    seal: Seal = field(repr=False)
    services: tuple[str, ...]
    level: Level


@dataclass(frozen=True, slots=True)
class Deactivate:
    """Close every socket of this session, at once."""

    session: str


@dataclass(frozen=True, slots=True)
class Pause:
    """Move no byte of this session until Resume."""

    session: str


@dataclass(frozen=True, slots=True)
class Resume:
    session: str


Effect = (
    Record
    | Emit
    | SendChallenge
    | SendReceipt
    | Keep
    | Count
    | Activate
    | Deactivate
    | Pause
    | Resume
)


def accepted(of: str, ref: str, digest: str) -> Emit:
    return Emit(Accepted, {"of": of, "ref": ref, "digest": digest})


def refusal(action: str, actor: str, session: str, reason: SessionReason, digest: str) -> Record:
    return Record(action, actor, Outcome.REFUSED, session, reason=reason.value, digest=digest)


def update(
    session: str,
    request: str,
    state: SessionState,
    reason: SessionReason | None,
    **fields: Any,
) -> Emit:
    return Emit(
        SessionUpdate,
        {"session": session, "request": request, "state": state, "reason": reason, **fields},
    )


class PanelResult(StrEnum):
    """What came of something a person did at the panel."""

    DONE = "done"
    NOTHING = "nothing_to_do"  # no session of that number is in a state for it
    SEVERAL = "which_session"  # say which
    IN_USE = "in_use"
    WRONG_PIN = "wrong_pin"
    PIN_LOCKED = "pin_locked"
    MORE = "one_more"  # four eyes: somebody else must approve as well
    SAME = "same_approver"  # and this was nobody else
    SELF = "self_approval"  # the site knows this approver to be the specialist
    NO_TICKET = "no_ticket"  # consent to this ticket cannot be given, or not for so long
    REFUSED = "refused"  # a condition no longer holds; the session says which
