"""Alarms about what devices send, kept from flooding the audit."""

from datetime import datetime, timedelta

from agent.wire.catalogue import Outcome
from fleet.audit import services as audit
from fleet.audit.models import Entry
from fleet.inventory.models import Device

QUIET = timedelta(hours=1)


def alarm(device: Device, action: str, *, reason: str, digest: str | None, now: datetime) -> bool:
    """Record an alarm in the audit, unless the same one was recorded within the hour."""
    known = Entry.objects.filter(device=device.pk, action=action, at__gt=now - QUIET)
    if known.filter(entry__digest=digest, entry__reason=reason).exists():
        return False
    audit.record(
        organisation=device.organisation,
        actor="agent",
        action=action,
        outcome=Outcome.REFUSED,
        device=device,
        reason=reason,
        digest=digest,
        now=now,
    )
    return True
