"""One access session as the desk holds it, and what the panel is shown of it."""

from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from agent.wire.catalogue import ClientKind, Level, SessionReason, SessionState
from agent.wire.messages import AccessRequest
from agent.wire.seal import Seal


@dataclass(slots=True, eq=False)
class Session:
    """Times are seconds of the boot clock, `deadline` the end of this state's patience."""

    request: AccessRequest
    digest: str  # SHA-256 of the request's payload, hex
    state: SessionState
    since: float
    deadline: float
    presence: bool = False  # a person at the injector approves
    reason: SessionReason | None = None
    challenge: bytes = b""
    private: X25519PrivateKey | None = None  # gone once the seal is made, or the session over
    answered: bool = False  # one answer, right or wrong
    refusals: int = 0  # answers after that one, as far as they were recorded
    signer: bytes = b""  # who signed: a key in SSH's form, or a passkey's id
    passkey_use: int | None = None  # the passkey's counter, when it was one
    approvers: list[int] = field(default_factory=list)  # local numbers, in order
    ticket_h: int | None = None  # for how long its approvers consent to the ticket; None: not asked
    covered: bool = False  # by a consent that was given for its ticket
    seal: Seal | None = None
    active_at: float = 0.0
    ends_at_ms: int | None = None  # of the wall clock, when ACTIVE
    moved_at: float = 0.0  # when bytes last moved, or a pause ended
    renew_at: float | None = None  # when the panel asks again
    prompt_ends: float | None = None  # the panel is asking again
    paused: bool = False
    bytes_up: int = 0
    bytes_down: int = 0

    @property
    def id(self) -> str:
        return self.request.session

    @property
    def level(self) -> Level:
        return self.request.level

    @property
    def client(self) -> ClientKind:
        """What the proof came from, once there is one; until then, what the request announced."""
        return ClientKind.BROWSER if self.passkey_use is not None else self.request.client

    @property
    def _was_active(self) -> bool:
        return self.state is SessionState.ENDED and self.ends_at_ms is not None

    def forget(self) -> None:
        """The session is over: no key of it is kept, and nobody is asked any more."""
        self.private = None
        self.seal = None
        self.prompt_ends = self.renew_at = None
        self.paused = False

    def view(self, now_s: float) -> dict[str, Any]:
        """For the panel: plain JSON values; what is left of a time, in seconds."""
        asked = self.request
        active = self.state is SessionState.ACTIVE
        return {
            "session": self.id,
            "state": self.state.value,
            "reason": self.reason.value if self.reason else None,
            "specialist": asked.specialist,
            "name": asked.name,
            "organisation": asked.organisation,
            "level": asked.level.value,
            "services": list(asked.services),
            "client": self.client.value,
            "break_glass": asked.break_glass,
            "why": asked.reason.value,
            "ticket": asked.ticket,
            "note": asked.note,
            "life_s": asked.life_s,
            "presence": self.presence,
            "approvers": list(self.approvers),
            "covered": self.covered,
            "paused": self.paused,
            "left_s": None if self.state.over else max(0, round(self.deadline - now_s)),
            "renew_left_s": (
                max(0, round(self.prompt_ends - now_s)) if self.prompt_ends is not None else None
            ),
            "active_s": round(now_s - self.active_at) if active else None,
            "lasted_s": round(self.since - self.active_at) if self._was_active else None,
            "bytes_up": self.bytes_up,
            "bytes_down": self.bytes_down,
        }
