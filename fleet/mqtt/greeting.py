"""The answer to `hello`: what is decided, the newest audit head, and everything that is owed."""

import logging
from collections.abc import Callable, Iterable
from datetime import datetime

from django.db import transaction

from agent.wire.messages import Hello, Message, SignedHead, Welcome
from fleet.access import outbound as access
from fleet.audit import inbound as audit_inbound
from fleet.audit import services as audit
from fleet.core import clock, ports
from fleet.core.errors import MessageRefused
from fleet.enrolment import inbound as enrolment
from fleet.entitlements import outbound as entitlements
from fleet.inventory.models import Device
from fleet.jobs import outbound as jobs
from fleet.mqtt.alarms import alarm
from fleet.mqtt.trouble import is_trouble
from fleet.servers import outbound as servers

log = logging.getLogger(__name__)

OWED: tuple[Callable[[Device], Iterable[Message]], ...] = (
    enrolment.pending,
    servers.pending,
    entitlements.pending,
    access.pending,
    jobs.pending,
)


def greet(device: Device, message: Hello, high: int, now: datetime) -> None:
    """Answer a hello that was accepted, inside the batch's transaction."""
    if message.head is not None:
        _keep_head(device, message.head, now)
    ports.send_down(
        device.pk,
        Welcome(
            at=clock.to_ms(now),
            outbox=message.outbox,
            high=high,
            head=audit.server_head(device.organisation_id, now=now),
        ),
    )
    for owed in OWED:
        try:
            with transaction.atomic():
                pending = list(owed(device))
        except Exception as error:
            if is_trouble(error):
                raise
            # One app's fault must not keep the device from the others' messages.
            log.exception("%s.pending failed", owed.__module__)
            continue
        for one in pending:
            ports.send_down(device.pk, one)


def _keep_head(device: Device, head: SignedHead, now: datetime) -> None:
    try:
        with transaction.atomic():
            audit_inbound.keep_head(device, head, now)
    except MessageRefused as refusal:
        if refusal.alarm is not None:
            alarm(device, refusal.alarm, reason=refusal.reason, digest=head.hash, now=now)
