"""Every message of the wire: one closed schema per type and version.

A released schema is frozen; a change is a new version under a new class. Free text goes down only
(`note`, names shown at the panel); what goes up is codes, bounded numbers, identifiers and digests.

Times (`at`, `…_at`) are milliseconds since 1970-01-01T00:00:00Z by the sender's wall clock;
`uptime_ms` is milliseconds since `boot`, 128 random bits made when the agent's machine booted.
"""

import re
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal

import msgspec

from agent.wire.catalogue import (
    ClinicalState,
    EventCode,
    EventPhase,
    EventPriority,
    ExecutionState,
    JobKind,
    JobReason,
    Level,
    Metric,
    Outcome,
    ProductLineCode,
    RefusalReason,
    RequestReason,
    SessionReason,
    SessionState,
)

MAX_PAYLOAD = 512 * 1024  # bytes of any message; the gate enforces the same bound

# Patterns end in \Z: a `$` would let one line feed through behind the last character.
Hex32 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z")]  # 128 bits
Hex64 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]  # SHA-256
Millis = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
Seq = Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
Number = Annotated[float, msgspec.Meta(ge=-1e12, le=1e12)]
Semver = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,5}\.[0-9]{1,5}\.[0-9]{1,5}\Z")]
ServiceName = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9-]{0,31}\Z")]
PersonId = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z")]
Ticket = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9-]{1,32}\Z")]
# Printable: no control, separator, invisible or bidirectional characters, and no tags.
_PRINTABLE = (
    r"[^\x00-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\U000e0000-\U000e007f]"
)
Note = Annotated[str, msgspec.Meta(max_length=200, pattern=rf"^{_PRINTABLE}*\Z")]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=80, pattern=rf"^{_PRINTABLE}*\Z")]
Key32 = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]  # base64 in JSON
Blob = Annotated[bytes, msgspec.Meta(min_length=1, max_length=4096)]


class Message(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    TYPE: ClassVar[str]
    VERSION: ClassVar[int] = 1


class Up(Message, frozen=True, kw_only=True, forbid_unknown_fields=True):
    at: Millis
    boot: Hex32
    uptime_ms: Millis


class Durable(Up, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Kept in the outbox under (device, outbox, seq) until the portal has decided on it."""

    outbox: Hex32
    seq: Seq


# --- up ---------------------------------------------------------------------------------------


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
    of: Literal["access-request", "answer", "end", "job", "cancel", "roster"]
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


# --- down -------------------------------------------------------------------------------------


class Welcome(Message, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The portal's answer to `hello`."""

    TYPE: ClassVar[str] = "hello"
    at: Millis
    outbox: Hex32
    high: Count  # everything up to here is decided; the device sends again from the next
    head: SignedHead | None


class Refused(Message, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The portal decided against a message; the device records it and moves on."""

    TYPE: ClassVar[str] = "refused"
    outbox: Hex32
    seq: Seq
    reason: RefusalReason


class AccessRequest(Message, frozen=True, kw_only=True, forbid_unknown_fields=True):
    TYPE: ClassVar[str] = "access-request"
    at: Millis
    session: Hex32
    device: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{8,64}\Z")]
    specialist: PersonId
    name: Name
    organisation: Name
    level: Level
    services: Annotated[list[ServiceName], msgspec.Meta(min_length=1, max_length=8)]
    reason: RequestReason
    ticket: Ticket | None  # None: to follow
    note: Note = ""
    life_s: Annotated[int, msgspec.Meta(ge=60, le=8 * 3600)]


class Answer(Message, frozen=True, kw_only=True, forbid_unknown_fields=True):
    TYPE: ClassVar[str] = "answer"
    session: Hex32
    client_key: Key32  # X25519, made for this session
    signature: Blob  # SSHSIG, namespace access@patency, binary form


class EndReason(StrEnum):
    """The part of SessionReason that comes from outside the device."""

    ENDED_BY_SPECIALIST = SessionReason.ENDED_BY_SPECIALIST.value
    ENDED_BY_PORTAL = SessionReason.ENDED_BY_PORTAL.value
    ENDED_BY_HOSPITAL = SessionReason.ENDED_BY_HOSPITAL.value
    UNREACHABLE = SessionReason.UNREACHABLE.value


class End(Message, frozen=True, kw_only=True, forbid_unknown_fields=True):
    TYPE: ClassVar[str] = "end"
    session: Hex32
    reason: EndReason


class Job(Message, frozen=True, kw_only=True, forbid_unknown_fields=True):
    TYPE: ClassVar[str] = "job"
    execution: Hex32
    kind: JobKind
    hours: Annotated[int, msgspec.Meta(ge=1, le=168)] = 24  # how far back diagnostics reach
    not_after: Millis
    key: Key32  # the portal's X25519 key for the bundle's stream


class Cancel(Message, frozen=True, kw_only=True, forbid_unknown_fields=True):
    TYPE: ClassVar[str] = "cancel"
    execution: Hex32


class Rate(Message, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ask for live samples; a lease, so that a closed page costs nothing."""

    TYPE: ClassVar[str] = "rate"
    hz: Annotated[float, msgspec.Meta(gt=0, le=5)]
    for_s: Annotated[int, msgspec.Meta(ge=1, le=120)]


class RosterUpdate(Message, frozen=True, kw_only=True, forbid_unknown_fields=True):
    TYPE: ClassVar[str] = "roster"
    roster: Annotated[bytes, msgspec.Meta(min_length=2, max_length=256 * 1024)]  # canonical bytes
    signature: Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]  # by the trust key


class ServerHead(Message, frozen=True, kw_only=True, forbid_unknown_fields=True):
    TYPE: ClassVar[str] = "audit-head"
    head: SignedHead


class AccessServer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    host: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9.:-]{1,253}\Z")]
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)]


class Servers(Message, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Access servers in order of preference, from the next failure on."""

    TYPE: ClassVar[str] = "servers"
    servers: Annotated[list[AccessServer], msgspec.Meta(min_length=1, max_length=16)]


class Certificate(Message, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The certificate for the key of a `renewal`; sent again until the device has used it."""

    TYPE: ClassVar[str] = "certificate"
    certificates: Annotated[list[Blob], msgspec.Meta(min_length=1, max_length=4)]  # DER, leaf first


UP: tuple[type[Up], ...] = (
    Hello, Heartbeat, Live, Telemetry, Event, Accepted, Challenge, SessionUpdate, Receipt,
    Execution, Audit, Renewal, Remote,
)  # fmt: skip
DOWN: tuple[type[Message], ...] = (
    Welcome, Refused, AccessRequest, Answer, End, Job, Cancel, Rate, RosterUpdate, ServerHead,
    Servers, Certificate,
)  # fmt: skip


class MessageError(ValueError):
    """A payload that must be refused; `reason` is its code. Its text quotes nothing of the payload,
    which may hold anything, so that it can be logged."""

    def __init__(self, reason: RefusalReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def _index(classes: tuple[type[Any], ...]) -> dict[tuple[str, int], msgspec.json.Decoder[Any]]:
    return {(c.TYPE, c.VERSION): msgspec.json.Decoder(c) for c in classes}


_UP = _index(UP)
_DOWN = _index(DOWN)
_encoder = msgspec.json.Encoder(order="deterministic")


def encode(message: Message) -> bytes:
    """The message as deterministic JSON, which the other side's decoder takes.

    A struct is not checked when it is built, so it is checked here: nothing off-schema leaves
    (R-PRV-1). Raises MessageError."""
    payload = _encoder.encode(message)
    table = _UP if isinstance(message, Up) else _DOWN
    _decode(table, message.TYPE, message.VERSION, payload)
    return payload


def _decode(
    table: dict[tuple[str, int], msgspec.json.Decoder[Any]],
    type: str,
    version: int,
    payload: bytes,
) -> Any:
    if len(payload) > MAX_PAYLOAD:
        raise MessageError(RefusalReason.TOO_LARGE, f"{len(payload)} bytes, at most {MAX_PAYLOAD}")
    decoder = table.get((type, version))
    if decoder is None:
        known = any(name == type for name, _ in table)
        reason = RefusalReason.UNKNOWN_VERSION if known else RefusalReason.UNKNOWN_TYPE
        raise MessageError(reason, f"no schema for {type}/{version}")
    try:
        return decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        detail = _where(error)
    # Outside the except block: the original error quotes what it did not like.
    raise MessageError(RefusalReason.MALFORMED, detail)


_PLACE = re.compile(r" - at `((?:key in )?\$[a-z0-9_.\[\]]*)`\Z")


def _where(error: Exception) -> str:
    """Where a payload leaves its schema, in words that may stand in a log: no content of it."""
    text = str(error)
    if not isinstance(error, msgspec.ValidationError):
        return "the payload is not JSON"
    if text.startswith("Object contains unknown field"):
        return "the payload has a field that its schema does not know"
    place = _PLACE.search(text)
    return f"the payload does not fit its schema{f' at {place[1]}' if place else ''}"


def decode_up(type: str, version: int, payload: bytes) -> Up:
    """Read what a device sent on up/{type}/{version}. Raises MessageError."""
    message: Up = _decode(_UP, type, version, payload)
    return message


def decode_down(type: str, version: int, payload: bytes) -> Message:
    """Read what the portal sent on dn/{type}/{version}. Raises MessageError."""
    message: Message = _decode(_DOWN, type, version, payload)
    return message


def known_down() -> dict[str, list[int]]:
    """What this build can read, for `hello`."""
    known: dict[str, list[int]] = {}
    for type, version in sorted(_DOWN):
        known.setdefault(type, []).append(version)
    return known
