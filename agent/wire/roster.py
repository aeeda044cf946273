"""The roster: the signed list of specialists a device will believe.

Signed (Ed25519) by the trust key, which is kept outside the portal; versioned, never going back;
valid seven days. Pure: the caller brings the trust key, the last version and the time.
"""

from datetime import timedelta
from typing import Annotated, Literal

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from agent.wire import sshsig
from agent.wire.catalogue import Level, ProductLineCode
from agent.wire.chain import canonical
from agent.wire.messages import CredentialId, Millis, Name, PersonId, Seq

MAX_LIFE = timedelta(days=7)
_PURPOSE = b"patency roster 1\n"


class RosterError(ValueError):
    """A roster that a device must not use."""


SshKey = Annotated[bytes, msgspec.Meta(min_length=51, max_length=sshsig.MAX_PUBLIC)]


class Passkey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An access passkey: made at the access origin, and good for nothing else."""

    id: CredentialId
    key: Annotated[bytes, msgspec.Meta(min_length=32, max_length=256)]  # COSE_Key (RFC 9052)


class Member(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One specialist: two keys and two passkeys, so that one dead key at 03:00 is no night lost."""

    id: PersonId
    name: Name
    # In SSH's own form, as a `.pub` file has it in base64: Ed25519, in a file or a security key.
    keys: Annotated[list[SshKey], msgspec.Meta(max_length=2)] = []
    passkeys: Annotated[list[Passkey], msgspec.Meta(max_length=2)] = []
    level: Level  # the highest allowed
    patient_data: bool  # may see or obtain it, which operating-system access cannot rule out
    product_lines: Annotated[list[ProductLineCode], msgspec.Meta(min_length=1, max_length=16)]
    until: Millis  # end of vetting and training

    def __post_init__(self) -> None:
        if not self.keys and not self.passkeys:
            raise ValueError("a member has a key or a passkey")
        for key in self.keys:
            sshsig.public(key)

    def passkey(self, id: bytes) -> Passkey | None:
        return next((p for p in self.passkeys if p.id == id), None)

    def signs_with(self, signer: bytes) -> bool:
        """Whether this is one of theirs: a key in SSH's form, or a passkey's id."""
        return signer in self.keys or self.passkey(signer) is not None


class Roster(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    v: Literal[1] = 1
    version: Seq
    issued_at: Millis
    expires_at: Millis
    members: Annotated[list[Member], msgspec.Meta(max_length=2000)]

    def member(self, id: str) -> Member | None:
        return next((m for m in self.members if m.id == id), None)


def sign(key: Ed25519PrivateKey, roster: Roster) -> tuple[bytes, bytes]:
    """Canonical bytes and their signature."""
    data = canonical(roster)
    return data, key.sign(_PURPOSE + data)


_decoder = msgspec.json.Decoder(Roster)


def verify(
    data: bytes, signature: bytes, *, trust_key: Ed25519PublicKey, version: int, now: int
) -> Roster:
    """The roster, if the trust key signed it, it is no older than `version`, and it is valid at
    `now` (ms). Raises RosterError."""
    try:
        trust_key.verify(signature, _PURPOSE + data)
    except InvalidSignature:
        raise RosterError("the roster is not signed by the trust key") from None
    try:
        roster = _decoder.decode(data)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise RosterError(str(error)) from error
    if roster.version < version:
        raise RosterError(f"roster {roster.version} is older than {version}, which is known")
    if roster.expires_at - roster.issued_at > MAX_LIFE.total_seconds() * 1000:
        raise RosterError("the roster claims more than seven days of life")
    if now >= roster.expires_at:
        raise RosterError("the roster has expired")
    return roster
