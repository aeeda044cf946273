"""Entitlements for tests: signed in earnest, by whichever trust key the injector has."""

from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.wire import entitlement as wire
from agent.wire.catalogue import Level, ProductLineCode
from agent.wire.messages import EntitlementUpdate

SOMEBODY = Ed25519PrivateKey.from_private_bytes(b"\x0e" * 32)


def entitlement(line: str, serial: str, now_ms: int, **changes: Any) -> wire.Entitlement:
    """To everything, from yesterday for a month."""
    fields: dict[str, Any] = {
        "version": 1,
        "level": Level.OS,
        "starts_at": now_ms - wire.DAY_MS,
        "ends_at": now_ms + 30 * wire.DAY_MS,
        "grace_days": 30,
    }
    return wire.Entitlement(
        product_line=ProductLineCode(line), serial=serial, **{**fields, **changes}
    )


def update(
    line: str, serial: str, now_ms: int, *, key: Ed25519PrivateKey = SOMEBODY, **changes: Any
) -> EntitlementUpdate:
    data, signature = wire.sign(key, entitlement(line, serial, now_ms, **changes))
    return EntitlementUpdate(entitlement=data, signature=signature)


def entitle(line: str, serial: str, *, key: Ed25519PrivateKey = SOMEBODY, **changes: Any) -> None:
    """Into the portal's database, as if it had been imported before the test began."""
    from fleet.core import clock
    from fleet.entitlements.models import Entitlement

    it = entitlement(line, serial, clock.to_ms(clock.now()), **changes)
    data, signature = wire.sign(key, it)
    Entitlement.objects.create(
        product_line_id=line, serial=serial, version=it.version, level=it.level.value,
        starts_at=clock.from_ms(it.starts_at), ends_at=clock.from_ms(it.ends_at),
        lasts_until=clock.from_ms(it.lasts_until), entitlement=data, signature=signature,
        imported_at=clock.now(),
    )  # fmt: skip
