"""What an injector sends: codes, bounded numbers, identifiers and digests (R-PRV-1)."""

from typing import Annotated, ClassVar, Literal

import msgspec

from agent.wire.catalogue import (
    ClinicalState,
    EventCode,
    EventPhase,
    EventPriority,
    ExecutionState,
    JobReason,
    Level,
    Metric,
    Outcome,
    ProductLineCode,
    SessionReason,
    SessionState,
)
from agent.wire.fields import (
    Blob,
    Count,
    Durable,
    Hex32,
    Hex64,
    Key32,
    Millis,
    Number,
    PersonId,
    Semver,
    ServiceName,
    Up,
)


class SignedHead(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The newest entry of an audit chain, signed (Ed25519) by the key that owns the chain."""

    chain: PersonId  # a device id, or an organisation's id at the server
    index: Count
    hash: Hex64
    at: Millis
    signature: Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]


class Hello(Up, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """First message of every connection. QoS 1, not from the outbox."""

    TYPE: ClassVar[str] = "hello"
    agent_version: Semver
    software_version: Semver
    product_line: ProductLineCode
    state: ClinicalState
    # Message types and versions that this agent can read.
    knows: Annotated[
        dict[
            ServiceName,
            Annotated[
                list[Annotated[int, msgspec.Meta(ge=1, le=9999)]], msgspec.Meta(max_length=16)
            ],
        ],
        msgspec.Meta(max_length=64),
    ]
    outbox: Hex32
    high: Count  # highest sequence number assigned so far
    roster_version: Count
    entitlement_version: Count = 0
    services: Annotated[dict[ServiceName, Level], msgspec.Meta(max_length=32)]
    head: SignedHead | None


class Heartbeat(Up, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Presence, QoS 0, every 10 s and at each change of clinical state."""

    TYPE: ClassVar[str] = "heartbeat"
    state: ClinicalState
    outbox_depth: Count
    rtt_ms: Annotated[float, msgspec.Meta(ge=0, le=600_000)] | None


Values = Annotated[dict[Metric, Number], msgspec.Meta(max_length=80)]


class Sample(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    at: Millis
    uptime_ms: Millis
    state: ClinicalState
    values: Values


class Live(Up, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A sample at the fast rate while someone watches; QoS 0, never stored."""

    TYPE: ClassVar[str] = "live"
    state: ClinicalState
    values: Values


class Telemetry(Durable, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Samples for the record, oldest first."""

    TYPE: ClassVar[str] = "telemetry"
    samples: Annotated[list[Sample], msgspec.Meta(min_length=1, max_length=64)]


class Event(Durable, frozen=True, kw_only=True, forbid_unknown_fields=True):
    TYPE: ClassVar[str] = "event"
    code: EventCode
    priority: EventPriority
    phase: EventPhase
    syringe: Literal["a", "b", "c"] | None = None
    value: Number | None = None


class Accepted(Durable, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The device holds a message that came down; the portal need not send it again."""

    TYPE: ClassVar[str] = "accepted"
    of: Literal["access-request", "answer", "end", "job", "cancel", "roster", "entitlement"]
    ref: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z")]
    digest: Hex64  # SHA-256 of the payload as received


class Challenge(Durable, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the specialist must sign: see agent.wire.challenge for the inner bytes."""

    TYPE: ClassVar[str] = "challenge"
    session: Hex32
    challenge: Blob  # exact bytes; never re-encoded on the way
    signature: Blob  # ECDSA P-256 / SHA-256 over them, by the device's credential
    certificates: Annotated[list[Blob], msgspec.Meta(min_length=1, max_length=4)]  # DER, leaf first


class SessionUpdate(Durable, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the device decided about a session, as it happens."""

    TYPE: ClassVar[str] = "session"
    session: Hex32
    request: Hex64  # digest of the access request this is about
    state: SessionState
    reason: SessionReason | None = None
    ends_at: Millis | None = None  # when ACTIVE: end of its life by the device's wall clock
    # Local numbers of those who approved, or whose consent to the ticket covers this session.
    approvers: Annotated[
        list[Annotated[int, msgspec.Meta(ge=1, le=99)]], msgspec.Meta(max_length=4)
    ] = []
    bytes_up: Count = 0
    bytes_down: Count = 0


class Receipt(Durable, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Proof that a person at the injector approved: agent.wire.challenge.PresenceReceipt."""

    TYPE: ClassVar[str] = "receipt"
    session: Hex32
    receipt: Blob
    signature: Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]  # device audit key


class Bundle(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    digest: Hex64
    size: Count


class Execution(Durable, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Progress of a job. SENT with reason IN_USE means deferred."""

    TYPE: ClassVar[str] = "execution"
    execution: Hex32
    state: ExecutionState
    reason: JobReason | None = None
    key: Key32 | None = None  # X25519, when a bundle is about to be streamed
    bundle: Bundle | None = None


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One link of a device's audit chain; agent.wire.chain computes `hash`."""

    index: Count
    at: Millis
    boot: Hex32
    uptime_ms: Millis
    action: Annotated[str, msgspec.Meta(pattern=r"^[a-z]{2,16}:[a-z_]{2,32}\Z")]
    actor: PersonId  # a specialist's id, "approver-N", "portal" or "agent"
    outcome: Outcome
    session: Hex32 | None = None
    execution: Hex32 | None = None
    reason: Annotated[str, msgspec.Meta(pattern=r"^[a-z_]{1,32}\Z")] | None = None
    digest: Hex64 | None = None
    previous: Hex64
    hash: Hex64


class Audit(Durable, frozen=True, kw_only=True, forbid_unknown_fields=True):
    TYPE: ClassVar[str] = "audit"
    entries: Annotated[list[AuditEntry], msgspec.Meta(min_length=1, max_length=64)]
    head: SignedHead


class Renewal(Durable, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The device asks for a certificate for its next key. Only the key in it counts."""

    TYPE: ClassVar[str] = "renewal"
    csr: Annotated[bytes, msgspec.Meta(min_length=1, max_length=1024)]  # PKCS #10, DER


class Remote(Durable, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The panel's switch of remote connection. Off is the last message before the goodbye."""

    TYPE: ClassVar[str] = "remote"
    enabled: bool
