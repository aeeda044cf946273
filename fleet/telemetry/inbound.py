"""Events and samples as devices send them; each arrives here exactly once."""

from datetime import datetime

from agent.wire import messages
from agent.wire.catalogue import EVENT_PRIORITY, EventPhase
from fleet.core import clock, ports
from fleet.inventory.models import Device
from fleet.telemetry.models import Condition, Event, Sample


def event(device: Device, message: messages.Event, received_at: datetime) -> None:
    """Keep the event; a raised one stands as a condition until it is cleared."""
    at = clock.from_ms(message.at)
    syringe = message.syringe or ""
    # The catalogue's priority, not the message's: what is urgent is not for a device to choose.
    priority = EVENT_PRIORITY[message.code].value
    Event.objects.create(
        device=device,
        organisation=device.organisation,
        code=message.code,
        priority=priority,
        phase=message.phase,
        syringe=syringe,
        value=message.value,
        at=at,
        received_at=received_at,
        outbox=message.outbox,
        seq=message.seq,
    )
    if message.phase is EventPhase.RAISED:
        condition = Condition(
            device=device,
            organisation=device.organisation,
            code=message.code,
            syringe=syringe,
            priority=priority,
            value=message.value,
            raised_at=at,
        )
        Condition.objects.bulk_create(  # one statement: insert or update
            [condition],
            update_conflicts=True,
            unique_fields=["device", "code", "syringe"],
            update_fields=["organisation", "priority", "value", "raised_at"],
        )
    else:
        Condition.objects.filter(device=device, code=message.code, syringe=syringe).delete()
    payload = {
        "kind": "event",
        "device": device.pk,
        "code": int(message.code),
        "priority": priority,
        "phase": message.phase.value,
        "at": message.at,
    }
    ports.hint(f"device.{device.pk}", payload)
    ports.hint(f"organisation.{device.organisation_id}", payload)
    ports.hint("fleet", payload)


def telemetry(device: Device, message: messages.Telemetry, received_at: datetime) -> None:
    """Keep the samples of one message."""
    Sample.objects.bulk_create(
        Sample(
            device=device,
            organisation=device.organisation,
            at=clock.from_ms(sample.at),
            received_at=received_at,
            state=sample.state,
            values={metric.value: value for metric, value in sample.values.items()},
        )
        for sample in message.samples
    )
    ports.hint(f"device.{device.pk}", {"kind": "telemetry", "device": device.pk})
