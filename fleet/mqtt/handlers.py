"""Which app decides on which message."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from agent.wire import messages
from fleet.access import inbound as access
from fleet.audit import inbound as audit
from fleet.enrolment import inbound as enrolment
from fleet.entitlements import inbound as entitlements
from fleet.inventory import inbound as inventory
from fleet.inventory.models import Device
from fleet.inventory.placing import Placer, Stamp
from fleet.jobs import inbound as jobs
from fleet.telemetry import inbound as telemetry

Handler = Callable[[Device, Any, datetime], None]


@dataclass(frozen=True, slots=True)
class Together:
    """A handler that takes messages of its type by the hundred, in order: all of them or none."""

    apply: Callable[[Sequence[tuple[Device, Any, datetime]]], None]

    def __call__(self, device: Device, message: Any, received_at: datetime) -> None:
        self.apply([(device, message, received_at)])


def accepted(device: Device, message: messages.Accepted, received_at: datetime) -> None:
    """The device confirms what it holds: to the app that sent it."""
    if message.of in ("job", "cancel"):
        jobs.accepted(device, message, received_at)
    elif message.of == "entitlement":
        entitlements.accepted(device, message, received_at)
    else:
        access.accepted(device, message, received_at)


def audited(device: Device, message: messages.Audit, received_at: datetime) -> None:
    """Entries of the device's own chain, each to the owner of its moment."""
    placer = Placer()

    def owner(entry: messages.AuditEntry) -> str | None:
        return placer.owner(device, Stamp(entry.at, entry.boot, entry.uptime_ms), received_at)

    audit.audit(device, message, received_at, owner=owner)


def hello(device: Device, message: messages.Hello, received_at: datetime) -> None:
    """What the device says of itself, and whether it can be this device that says so."""
    inventory.hello(device, message, received_at)
    enrolment.hello(device, message, received_at)


# `live` is missing on purpose: it is never stored (see fleet.mqtt.lanes).
HANDLERS: Mapping[type[messages.Up], Handler] = {
    messages.Hello: hello,
    messages.Heartbeat: inventory.heartbeat,
    messages.Telemetry: telemetry.telemetry,
    messages.Event: Together(telemetry.events),
    messages.Accepted: accepted,
    messages.Challenge: access.challenge,
    messages.SessionUpdate: access.session_update,
    messages.Receipt: access.receipt,
    messages.Execution: jobs.execution,
    messages.Audit: audited,
    messages.Renewal: enrolment.renewal,
    messages.Remote: inventory.remote,
}
