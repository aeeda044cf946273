"""What the portal sends an injector. Free text (a note, names for the panel) goes down only."""

from enum import StrEnum
from typing import Annotated, ClassVar

import msgspec

from agent.wire.catalogue import (
    ClientKind,
    JobKind,
    Level,
    RefusalReason,
    RequestReason,
    SessionReason,
)
from agent.wire.fields import (
    Blob,
    Count,
    CredentialId,
    DeviceId,
    Hex32,
    Key32,
    Message,
    Millis,
    Name,
    Note,
    PersonId,
    Seq,
    ServiceName,
    Ticket,
)
from agent.wire.upward import (
    SignedHead,
)


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
    device: DeviceId
    specialist: PersonId
    name: Name
    organisation: Name
    level: Level
    services: Annotated[list[ServiceName], msgspec.Meta(min_length=1, max_length=8)]
    reason: RequestReason
    ticket: Ticket | None  # None: to follow
    note: Note = ""
    client: ClientKind = ClientKind.COMMAND_LINE  # meant to answer with; the proof decides
    break_glass: bool = False  # shown at the panel and written down; no check is left out for it
    life_s: Annotated[int, msgspec.Meta(ge=60, le=8 * 3600)]


class SshProof(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="kind",
    tag="ssh",
):
    """Made by a key of the command line: a file, an agent, or a security key."""

    signature: Blob  # SSHSIG, namespace access@patency, binary form


class PasskeyProof(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="kind",
    tag="passkey",
):
    """Made by an access passkey at the access origin: a WebAuthn assertion, as the browser gives
    it."""

    id: CredentialId
    authenticator_data: Annotated[bytes, msgspec.Meta(min_length=37, max_length=1024)]
    client_data: Annotated[bytes, msgspec.Meta(min_length=1, max_length=2048)]
    signature: Annotated[bytes, msgspec.Meta(min_length=8, max_length=512)]


Proof = SshProof | PasskeyProof


class Answer(Message, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Both kinds of proof sign `agent.wire.challenge.to_sign`; WebAuthn calls it the challenge."""

    TYPE: ClassVar[str] = "answer"
    session: Hex32
    client_key: Key32  # X25519, made for this session
    proof: Proof


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


class EntitlementUpdate(Message, frozen=True, kw_only=True, forbid_unknown_fields=True):
    TYPE: ClassVar[str] = "entitlement"
    entitlement: Annotated[bytes, msgspec.Meta(min_length=2, max_length=1024)]  # canonical bytes
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
