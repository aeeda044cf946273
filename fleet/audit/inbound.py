"""Audit entries and heads that devices send.

A device's entries are evidence: what is whole is kept even when something before it is missing (an
outbox that had to shed, a server restored from a backup), with an alarm. What contradicts an entry
or a head already held is a fork: refused, with an alarm.
"""

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from agent.wire import chain
from agent.wire.catalogue import Outcome, RefusalReason
from agent.wire.messages import Audit, AuditEntry, SignedHead
from fleet.audit import services
from fleet.audit.models import DeviceEntry, DeviceHead
from fleet.core import clock
from fleet.core.errors import MessageRefused

if TYPE_CHECKING:
    from fleet.inventory.models import Device

FORK = "audit:fork"
GAP = "audit:gap"
FORGED = "audit:forged"


def audit(
    device: "Device",
    message: Audit,
    received_at: datetime,
    *,
    owner: Callable[[AuditEntry], str | None],
) -> None:
    """Keep the entries and the head. Raises MessageRefused when they do not hold together.

    `owner` gives the id of the organisation that an entry is of, or None when nobody can tell."""
    entries = message.entries
    _check_links(entries)
    fresh = _unknown(device, entries)
    if fresh:
        _check_joint(device, fresh[0], received_at)
        DeviceEntry.objects.bulk_create(
            [_row(device, entry, owner(entry), received_at) for entry in fresh]
        )
    keep_head(device, message.head, received_at)


def keep_head(device: "Device", head: SignedHead, received_at: datetime) -> None:
    """Check a head that the device signed against its entries, and keep it. Raises MessageRefused.

    A head newer than the entries held so far is kept too: it shows later what was cut off.
    """
    key = bytes(device.audit_key)
    if head.chain != device.pk or len(key) != 32:
        raise _broken(FORGED)
    if not chain.head_is_signed_by(head, Ed25519PublicKey.from_public_bytes(key)):
        raise _broken(FORGED)
    held = (
        DeviceEntry.objects.filter(device=device, index=head.index)
        .values_list("hash", flat=True)
        .first()
    )
    if held is not None and held != head.hash:
        raise _broken(FORK)
    known = DeviceHead.objects.filter(device=device, index=head.index)
    if known.exclude(hash=head.hash).exists():
        raise _broken(FORK)
    if not known.exists():
        DeviceHead.objects.create(
            device=device,
            index=head.index,
            hash=head.hash,
            at=clock.from_ms(head.at),
            signature=head.signature,
            received_at=received_at,
        )


def _check_links(entries: list[AuditEntry]) -> None:
    first = entries[0]
    plain = [msgspec.to_builtins(entry) for entry in entries]
    _count, bad = chain.verify(plain, start=first.index, previous=first.previous)
    if bad is not None or (first.index == 0) != (first.previous == chain.GENESIS):
        raise _broken(FORGED)


def _unknown(device: "Device", entries: list[AuditEntry]) -> list[AuditEntry]:
    """The entries that are not held yet. Raises MessageRefused when one is held otherwise."""
    held = dict(
        DeviceEntry.objects.filter(
            device=device, index__range=(entries[0].index, entries[-1].index)
        ).values_list("index", "hash")
    )
    for entry in entries:
        if held.get(entry.index, entry.hash) != entry.hash:
            raise _broken(FORK)
    return [entry for entry in entries if entry.index not in held]


def _check_joint(device: "Device", first: AuditEntry, received_at: datetime) -> None:
    """Whether the first new entry follows what is held, and what follows it (if held) fits."""
    neighbours = dict(
        DeviceEntry.objects.filter(device=device, index__lt=first.index)
        .order_by("-index")
        .values_list("index", "hash")[:1]
    )
    before = neighbours.get(first.index - 1)
    if before is not None and before != first.previous:
        raise _broken(FORK)
    if before is None and first.index > 0:
        services.record(
            organisation=device.organisation,
            actor="portal",
            action=GAP,
            outcome=Outcome.FAILED,
            device=device,
            digest=first.hash,
            now=received_at,
        )


def _row(
    device: "Device", entry: AuditEntry, owner: str | None, received_at: datetime
) -> DeviceEntry:
    return DeviceEntry(
        device=device,
        organisation_id=owner,
        index=entry.index,
        entry=msgspec.to_builtins(entry),
        hash=entry.hash,
        at=clock.from_ms(entry.at),
        received_at=received_at,
        action=entry.action,
        session=entry.session or "",
        execution=entry.execution or "",
    )


def _broken(alarm: str) -> MessageRefused:
    return MessageRefused(RefusalReason.CHAIN_BROKEN, alarm=alarm)
