"""What a device says of itself."""

from datetime import datetime

from agent.wire.catalogue import Outcome, RefusalReason
from agent.wire.messages import Heartbeat, Hello, Remote
from fleet.accounts.models import Organisation
from fleet.audit import services as audit
from fleet.core import ports
from fleet.core.errors import MessageRefused
from fleet.inventory import placing
from fleet.inventory.models import Device
from fleet.inventory.placing import Placer, Stamp


def hello(device: Device, message: Hello, received_at: datetime) -> None:
    """Note versions, services and state. Raises MessageRefused for another product line's."""
    if message.product_line.value != device.product_line_id:
        # It was enrolled as another product: a driver out of place, or a moved credential.
        raise MessageRefused(RefusalReason.UNKNOWN_REFERENCE, alarm="device:wrong_line")
    device.agent_version = message.agent_version
    device.software_version = message.software_version
    device.clinical_state = message.state.value
    device.services = {name: level.value for name, level in message.services.items()}
    device.knows = message.knows
    device.roster_version = message.roster_version
    device.entitlement_version = message.entitlement_version
    device.last_seen_at = received_at
    device.save(
        update_fields=[
            "agent_version",
            "software_version",
            "clinical_state",
            "services",
            "knows",
            "roster_version",
            "entitlement_version",
            "last_seen_at",
        ]
    )
    placing.heard(device, message, received_at)
    _hint_state(device)


def heartbeat(device: Device, message: Heartbeat, received_at: datetime) -> None:
    """Note that the device lives, and its clinical state."""
    changed = device.clinical_state != message.state.value
    device.clinical_state = message.state.value
    device.outbox_depth = message.outbox_depth
    device.last_seen_at = received_at
    device.save(update_fields=["clinical_state", "outbox_depth", "last_seen_at"])
    if changed:
        _hint_state(device)


def remote(device: Device, message: Remote, received_at: datetime) -> None:
    """Somebody at the injector switched remote connection off, or on again (R-CON-9)."""
    if device.remote_enabled is message.enabled:
        return
    device.remote_enabled = message.enabled
    device.save(update_fields=["remote_enabled"])
    stamp = Stamp(message.at, message.boot, message.uptime_ms)
    found = Placer().owner(device, stamp, received_at)
    owner: Organisation | None = device.organisation
    if found != device.organisation_id:
        owner = Organisation.objects.filter(pk=found).first()
    if owner is not None:  # otherwise it stands in the injector's own chain alone
        audit.record(
            organisation=owner,
            actor=device.pk,
            action="remote:on" if message.enabled else "remote:off",
            outcome=Outcome.ALLOWED,
            device=device,
            now=received_at,
        )
    _hint_state(device)


def _hint_state(device: Device) -> None:
    payload = {"kind": "state", "device": device.pk, "state": device.clinical_state}
    ports.hint(f"device.{device.pk}", payload)
    ports.hint(f"organisation.{device.organisation_id}", payload)
    ports.hint("fleet", payload)
