"""The entitlement: up to when, and to what, remote service may be given to one injector (R-ACC-9).

Signed (Ed25519) by the trust key, which is kept outside the portal; versioned, never going back. It
names the injector by product line and serial, as contracts do. When it ends there is a time of
grace, so that a renewal that comes late, or an injector that is off line, costs no night. Pure.
"""

from typing import Annotated, Literal

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from agent.wire.catalogue import Level, ProductLineCode
from agent.wire.chain import canonical
from agent.wire.fields import Millis, Seq

MAX_GRACE_DAYS = 90
DAY_MS = 24 * 3600 * 1000
_PURPOSE = b"patency entitlement 1\n"


class EntitlementError(ValueError):
    """An entitlement that must not be used."""


class Entitlement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    v: Literal[1] = 1
    version: Seq
    product_line: ProductLineCode
    serial: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]{1,64}\Z")]
    level: Level  # the highest that is covered
    starts_at: Millis
    ends_at: Millis
    grace_days: Annotated[int, msgspec.Meta(ge=0, le=MAX_GRACE_DAYS)]

    @property
    def lasts_until(self) -> int:
        """Milliseconds: the end, with its grace."""
        return self.ends_at + self.grace_days * DAY_MS

    def covers(self, level: Level, now: int) -> bool:
        """Whether a session at `level` is covered at `now` (ms)."""
        return self.level.covers(level) and self.starts_at <= now < self.lasts_until


def sign(key: Ed25519PrivateKey, entitlement: Entitlement) -> tuple[bytes, bytes]:
    """Canonical bytes and their signature."""
    data = canonical(entitlement)
    return data, key.sign(_PURPOSE + data)


_decoder = msgspec.json.Decoder(Entitlement)


def decode(data: bytes) -> Entitlement:
    """Read it, whoever signed. Raises EntitlementError unless the bytes are exactly canonical."""
    try:
        entitlement = _decoder.decode(data)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise EntitlementError(str(error)) from error
    if canonical(entitlement) != data:
        raise EntitlementError("the entitlement is not in canonical form")
    return entitlement


def verify(
    data: bytes, signature: bytes, *, trust_key: Ed25519PublicKey, version: int
) -> Entitlement:
    """The entitlement, if the trust key signed it and it is no older than `version`. One that has
    ended is verified all the same: it says so. Raises EntitlementError."""
    try:
        trust_key.verify(signature, _PURPOSE + data)
    except InvalidSignature:
        raise EntitlementError("the entitlement is not signed by the trust key") from None
    entitlement = decode(data)
    if entitlement.version < version:
        raise EntitlementError(
            f"entitlement {entitlement.version} is older than {version}, which is known"
        )
    return entitlement
