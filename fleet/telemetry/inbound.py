"""Events and samples as devices send them; each arrives here exactly once."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from agent.wire import messages
from agent.wire.catalogue import EVENT_PRIORITY, EventPhase
from fleet.core import clock, ports
from fleet.core.rows import Insert, stored
from fleet.inventory.models import Device
from fleet.inventory.placing import Placer, Stamp
from fleet.telemetry.models import Condition, Event, Sample

Received = tuple[Device, messages.Event, datetime]  # with the time of its arrival


def event(device: Device, message: messages.Event, received_at: datetime) -> None:
    """Keep one event; see `events`."""
    events([(device, message, received_at)])


def events(received: Sequence[Received]) -> None:
    """Keep the events; a raised one stands as a condition until it is cleared.

    In a storm they come by the hundred, so they are stored together, and what watches a group is
    told once. What a former owner's time left in the outbox is filed with the former owner: it is
    nothing that is wrong now, and those who watch the device are not told.
    """
    placer = Placer()
    placed = [(*each, _owner(placer, *each)) for each in received]
    _EVENTS.many([_row(*each) for each in placed])
    _conditions([each[:3] for each in placed if each[3] == each[0].organisation_id])
    hints: dict[str, dict[str, Any]] = {}
    for device, message, _at, owner in placed:
        payload = {
            "kind": "event",
            "device": device.pk,
            "code": int(message.code),
            "priority": _priority(message),
            "phase": message.phase.value,
            "at": message.at,
        }
        for group in _groups(device, owner):
            hints[group] = payload
    for group, payload in hints.items():
        ports.hint(group, payload)


def _owner(
    placer: Placer, device: Device, message: messages.Event, received_at: datetime
) -> str | None:
    stamp = Stamp(message.at, message.boot, message.uptime_ms)
    return placer.owner(device, stamp, received_at)


def _groups(device: Device, owner: str | None) -> tuple[str, ...]:
    """Who may watch a row of this owner."""
    if owner == device.organisation_id:
        return (f"device.{device.pk}", f"organisation.{owner}", "fleet")
    return ("fleet",) if owner is None else (f"organisation.{owner}", "fleet")


_EVENTS = Insert(
    Event, "device", "organisation", "code", "priority", "phase", "syringe", "value", "at",
    "received_at", "outbox", "seq",
)  # fmt: skip


def _priority(message: messages.Event) -> str:
    # The catalogue's, not the message's: what is urgent is not for a device to choose.
    return EVENT_PRIORITY[message.code].value


def _row(
    device: Device, message: messages.Event, received_at: datetime, owner: str | None
) -> tuple[Any, ...]:
    return (
        device.pk,
        owner,
        int(message.code),
        _priority(message),
        message.phase.value,
        message.syringe or "",
        message.value,
        stored(clock.from_ms(message.at)),
        stored(received_at),
        message.outbox,
        message.seq,
    )


def _conditions(received: Sequence[Received]) -> None:
    """The last of each device, code and syringe counts."""
    last = {(d.pk, int(m.code), m.syringe or ""): (d, m) for d, m, _at in received}
    raised = [
        Condition(
            device=device,
            organisation=device.organisation,
            code=code,
            syringe=syringe,
            priority=_priority(message),
            value=message.value,
            raised_at=clock.from_ms(message.at),
        )
        for (_pk, code, syringe), (device, message) in last.items()
        if message.phase is EventPhase.RAISED
    ]
    cleared = [key for key, (_d, m) in last.items() if m.phase is not EventPhase.RAISED]
    Condition.objects.bulk_create(  # one statement: insert or update
        raised,
        update_conflicts=True,
        unique_fields=["device", "code", "syringe"],
        update_fields=["organisation", "priority", "value", "raised_at"],
    )
    for device, code, syringe in cleared:
        Condition.objects.filter(device=device, code=code, syringe=syringe).delete()


def telemetry(device: Device, message: messages.Telemetry, received_at: datetime) -> None:
    """Keep the samples of one message, each with the owner of its moment."""
    placer = Placer()
    owners = [
        placer.owner(device, Stamp(sample.at, message.boot, sample.uptime_ms), received_at)
        for sample in message.samples
    ]
    Sample.objects.bulk_create(
        Sample(
            device=device,
            organisation_id=owner,
            at=clock.from_ms(sample.at),
            received_at=received_at,
            state=sample.state,
            values={metric.value: value for metric, value in sample.values.items()},
        )
        for sample, owner in zip(message.samples, owners, strict=True)
    )
    if device.organisation_id in owners:
        ports.hint(f"device.{device.pk}", {"kind": "telemetry", "device": device.pk})
