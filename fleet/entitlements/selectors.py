"""Reads about entitlements."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from django.db.models import QuerySet

from agent.wire.catalogue import Level
from fleet.entitlements.models import Entitlement
from fleet.inventory.models import Device


def newest(device: Device) -> Entitlement | None:
    """The one that counts for this injector."""
    return _of(device).first()


def _of(device: Device) -> QuerySet[Entitlement]:
    return Entitlement.objects.filter(product_line=device.product_line_id, serial=device.serial)


def covers(device: Device, level: Level, now: datetime) -> bool:
    """Whether the injector is entitled to a session at this level. It asks itself as well."""
    found = _of(device).only("level", "starts_at", "lasts_until").first()
    return (
        found is not None
        and Level(found.level).covers(level)
        and found.starts_at <= now < found.lasts_until
    )


def lacking(now: datetime, within: timedelta) -> Iterator[tuple[Device, Entitlement | None]]:
    """Injectors whose entitlement ends within this time, has ended, or was never given."""
    latest: dict[tuple[str, str], Entitlement] = {}
    for row in Entitlement.objects.order_by("version"):
        latest[row.product_line_id, row.serial] = row
    for device in Device.objects.filter(retired_at=None).order_by("product_line_id", "serial"):
        held = latest.get((device.product_line_id, device.serial))
        if held is None or held.ends_at <= now + within:
            yield device, held
