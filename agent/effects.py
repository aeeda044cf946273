"""The connection's phases, and what the core asks its shell to do: see `agent.core`."""

from dataclasses import dataclass
from enum import StrEnum

from agent.outbox import Entry
from agent.wire.messages import Message


class Phase(StrEnum):
    IDLE = "idle"
    DIALLING = "dialling"
    CONNECTING = "connecting"
    SUBSCRIBING = "subscribing"
    GREETING = "greeting"
    ONLINE = "online"
    WAITING = "waiting"


@dataclass(frozen=True, slots=True)
class Dial:
    """Connect to access server number `server`, TLS and MQTT CONNECT included."""

    server: int


@dataclass(frozen=True, slots=True)
class Hangup:
    """Close the connection. `reason` is for the log; `late`: it took too long to make."""

    reason: str
    late: bool = False


@dataclass(frozen=True, slots=True)
class Subscribe:
    topic_filter: str


@dataclass(frozen=True, slots=True)
class Ping:
    pass


@dataclass(frozen=True, slots=True)
class Greet:
    """Send `hello` at QoS 1; report its PUBACK with `greeted`."""


@dataclass(frozen=True, slots=True)
class SendEntry:
    """Publish at QoS 1; report its PUBACK with `acknowledged`."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class SendHeartbeat:
    rtt_ms: float | None


@dataclass(frozen=True, slots=True)
class SendLive:
    pass


@dataclass(frozen=True, slots=True)
class Acknowledge:
    seq: int


@dataclass(frozen=True, slots=True)
class Rewind:
    """Bring the outbox to the portal's mark, before any later Fetch."""

    high: int


@dataclass(frozen=True, slots=True)
class Fetch:
    """Read waiting entries; answer with `fetched` or `unfetched`, naming the connection."""

    connection: int
    after: int
    limit: int


@dataclass(frozen=True, slots=True)
class Deliver:
    """A readable message for the parts of the agent; `payload` is its exact bytes."""

    message: Message
    payload: bytes


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A message that came down and was ignored; no byte of it is kept."""

    type: str
    version: int
    reason: str
    length: int
    digest: str


@dataclass(frozen=True, slots=True)
class Changed:
    """The phase changed."""

    phase: Phase
    reason: str


Effect = (
    Dial
    | Hangup
    | Subscribe
    | Ping
    | Greet
    | SendEntry
    | SendHeartbeat
    | SendLive
    | Acknowledge
    | Rewind
    | Fetch
    | Deliver
    | Unreadable
    | Changed
)
