"""The sessions that the desk knows, and the bounds on what it is made to remember or write down."""

from collections import OrderedDict, deque
from dataclasses import dataclass

from agent.access.session import Session
from agent.wire.catalogue import SessionState

_BUSY = (SessionState.CHALLENGED, SessionState.PRESENCE, SessionState.ACTIVE)


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds, and counts."""

    answer_s: float = 120.0
    wait_in_use_s: float = 3600.0
    renewal_prompt_s: float = 60.0
    waiting: int = 4  # requests that wait for the end of use
    remembered: int = 32  # sessions that are over, in full
    seen: int = 4096  # session ids, so that none is used twice
    refused_answers: int = 8  # recorded per session
    per_minute: int = 120  # requests and answers looked at


class Book:
    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._seen: OrderedDict[str, str] = OrderedDict()  # session id: request digest
        self._arrivals: deque[float] = deque(maxlen=limits.per_minute)

    @property
    def open(self) -> list[Session]:
        """Not over, oldest first."""
        return [s for s in self._sessions.values() if not s.state.over]

    @property
    def over(self) -> list[Session]:
        return [s for s in self._sessions.values() if s.state.over]

    def get(self, id: str) -> Session | None:
        return self._sessions.get(id)

    def add(self, it: Session) -> None:
        self.see(it.id, it.digest)
        self._sessions[it.id] = it

    def see(self, session: str, digest: str) -> None:
        self._seen[session] = digest
        while len(self._seen) > self.limits.seen:
            self._seen.popitem(last=False)

    def seen(self, session: str) -> str | None:
        """The digest of the request that used this session id."""
        return self._seen.get(session)

    def waiting(self) -> int:
        return sum(s.state is SessionState.WAITING for s in self._sessions.values())

    def busy(self) -> int:
        """How many are being let in, or are in."""
        return sum(s.state in _BUSY for s in self._sessions.values())

    def forget_oldest(self) -> None:
        over = self.over
        for it in over[: max(0, len(over) - self.limits.remembered)]:
            del self._sessions[it.id]

    def flooded(self, now_s: float) -> bool:
        """Whether this arrival is one too many in a minute; counts it if not."""
        full = len(self._arrivals) == self.limits.per_minute
        if full and now_s - self._arrivals[0] < 60:
            return True
        self._arrivals.append(now_s)
        return False
