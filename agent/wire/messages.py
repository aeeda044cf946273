"""Every message of the wire: one closed schema per type and version.

A released schema is frozen; a change is a new version under a new class. Free text goes down only
(`note`, names shown at the panel); what goes up is codes, bounded numbers, identifiers and digests.

The schemas are in `upward` and `downward`, what they are made of in `fields`; here they are put
together, encoded and decoded, and from here the rest of the product takes them.
"""

import re
from typing import Any

import msgspec

from agent.wire.catalogue import RefusalReason
from agent.wire.downward import (
    AccessRequest,
    AccessServer,
    Answer,
    Cancel,
    Certificate,
    End,
    EndReason,
    EntitlementUpdate,
    Job,
    PasskeyProof,
    Proof,
    Rate,
    Refused,
    RosterUpdate,
    ServerHead,
    Servers,
    SshProof,
    Welcome,
)
from agent.wire.fields import (
    Blob,
    Count,
    CredentialId,
    DeviceId,
    Durable,
    Hex32,
    Hex64,
    Key32,
    Message,
    Millis,
    Name,
    Note,
    Number,
    PersonId,
    Semver,
    Seq,
    ServiceName,
    Ticket,
    Up,
)
from agent.wire.upward import (
    Accepted,
    Audit,
    AuditEntry,
    Bundle,
    Challenge,
    Event,
    Execution,
    Heartbeat,
    Hello,
    Live,
    Receipt,
    Remote,
    Renewal,
    Sample,
    SessionUpdate,
    SignedHead,
    Telemetry,
    Values,
)

__all__ = [
    "DOWN",
    "MAX_PAYLOAD",
    "UP",
    "Accepted",
    "AccessRequest",
    "AccessServer",
    "Answer",
    "Audit",
    "AuditEntry",
    "Blob",
    "Bundle",
    "Cancel",
    "Certificate",
    "Challenge",
    "Count",
    "CredentialId",
    "DeviceId",
    "Durable",
    "End",
    "EndReason",
    "EntitlementUpdate",
    "Event",
    "Execution",
    "Heartbeat",
    "Hello",
    "Hex32",
    "Hex64",
    "Job",
    "Key32",
    "Live",
    "Message",
    "MessageError",
    "Millis",
    "Name",
    "Note",
    "Number",
    "PasskeyProof",
    "PersonId",
    "Proof",
    "Rate",
    "Receipt",
    "Refused",
    "Remote",
    "Renewal",
    "RosterUpdate",
    "Sample",
    "Semver",
    "Seq",
    "ServerHead",
    "Servers",
    "ServiceName",
    "SessionUpdate",
    "SignedHead",
    "SshProof",
    "Telemetry",
    "Ticket",
    "Up",
    "Values",
    "Welcome",
    "decode_down",
    "decode_up",
    "encode",
    "known_down",
]

MAX_PAYLOAD = 512 * 1024  # bytes of any message; the gate enforces the same bound

UP: tuple[type[Up], ...] = (
    Hello, Heartbeat, Live, Telemetry, Event, Accepted, Challenge, SessionUpdate, Receipt,
    Execution, Audit, Renewal, Remote,
)  # fmt: skip
DOWN: tuple[type[Message], ...] = (
    Welcome, Refused, AccessRequest, Answer, End, Job, Cancel, Rate, RosterUpdate,
    EntitlementUpdate, ServerHead, Servers, Certificate,
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
