"""What a device says of its entitlement."""

from datetime import datetime

from agent.wire.catalogue import RefusalReason
from agent.wire.messages import Accepted
from fleet.core.errors import MessageRefused
from fleet.entitlements import outbound
from fleet.entitlements.models import Entitlement
from fleet.inventory.models import Device


def accepted(device: Device, message: Accepted, received_at: datetime) -> None:
    """Which version it holds, the digest says: only ours can be accepted. Raises MessageRefused."""
    rows = Entitlement.objects.filter(product_line=device.product_line_id, serial=device.serial)
    for row in rows[:3]:
        if outbound.digest(row) == message.digest:
            Device.objects.filter(pk=device.pk, entitlement_version__lt=row.version).update(
                entitlement_version=row.version
            )
            return
    raise MessageRefused(RefusalReason.UNKNOWN_REFERENCE)
