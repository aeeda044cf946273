"""What every message of the wire is made of: field types with their bounds, and the envelopes.

Times (`at`, `…_at`) are milliseconds since 1970-01-01T00:00:00Z by the sender's wall clock;
`uptime_ms` is milliseconds since `boot`, 128 random bits made when the agent's machine booted.
"""

from typing import Annotated, ClassVar

import msgspec

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
DeviceId = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{8,64}\Z")]
CredentialId = Annotated[bytes, msgspec.Meta(min_length=16, max_length=255)]  # of a passkey
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
