"""An injector leaves where it is: moved to another site, transferred to another organisation, or
retired (R-CON-9).

One transaction: every app that keeps something of the device closes it (sessions and jobs end, the
credential is revoked, what is wrong now is no longer theirs), then the ownership's interval ends
and the next begins. Rows keep the organisation of their moment, those too that are still in
the device's outbox (fleet.inventory.placing): the former owner keeps what was its own and sees
nothing new; the new one begins with nothing. An app says what it closes with
`when_leaving`, once, when Django starts.
"""

from collections.abc import Callable
from datetime import datetime
from enum import StrEnum

from django.db import transaction
from django.utils.translation import gettext as _

from agent.wire.catalogue import Outcome
from fleet.accounts.models import Organisation, User
from fleet.accounts.permissions import Action, everywhere, require
from fleet.audit import services as audit
from fleet.core import ports
from fleet.core.errors import Conflict, Invalid, NotAllowed
from fleet.inventory.models import Device, Ownership, Site


class Departure(StrEnum):
    """The values are the audit's verbs."""

    MOVED = "move"
    TRANSFERRED = "transfer"
    RETIRED = "retire"


RECEIVED = "device:receive"

# closes(device, departure, actor, now), in the transaction; the device is still the former owner's.
Closes = Callable[[Device, Departure, User, datetime], None]
_closers: list[Closes] = []


def when_leaving(closes: Closes) -> None:
    """Have this called whenever a device leaves. Only at start."""
    if closes not in _closers:
        _closers.append(closes)


def move(
    *,
    actor: User,
    device: Device,
    site: Site,
    now: datetime,
    room: str = "",
    asset_number: str = "",
) -> Device:
    """To another site; where that is another organisation's, the device is that one's from now on.

    Its credential is revoked: it comes back with a new claim (`manage.py claim --again`). Raises
    NotAllowed, Conflict, Invalid.
    """
    _may(actor, device, site.organisation_id)
    with transaction.atomic():
        device = _locked(device)
        if site.pk == device.site_id:
            raise Invalid(_("The injector is at this site already. Choose another."))
        before = device.organisation
        transferred = site.organisation_id != before.pk
        departure = Departure.TRANSFERRED if transferred else Departure.MOVED
        _close(device, departure, actor, now)
        device.site, device.organisation = site, site.organisation
        device.room, device.asset_number = room, asset_number
        if transferred:
            device.transferred_at = now
        device.save(
            update_fields=["site", "organisation", "room", "asset_number", "transferred_at"]
        )
        if transferred:
            _end_ownership(device, now)
            Ownership.objects.create(device=device, organisation=site.organisation, starts_at=now)
            _record(device, RECEIVED, site.organisation, actor, now)
        _hint(device, before, site.organisation)
    return device


def retire(*, actor: User, device: Device, now: datetime) -> Device:
    """For good: it never comes back under this id; its serial may be enrolled as a new device.

    Raises NotAllowed, Conflict.
    """
    _may(actor, device, device.organisation_id)
    with transaction.atomic():
        device = _locked(device)
        _close(device, Departure.RETIRED, actor, now)
        _end_ownership(device, now)
        device.retired_at = now
        device.save(update_fields=["retired_at"])
        _hint(device, device.organisation)
    return device


def _may(actor: User, device: Device, to: str) -> None:
    require(actor, Action.DEVICE_MOVE)
    if not everywhere(actor) and {device.organisation_id, to} != {actor.organisation_id}:
        raise NotAllowed(_("This injector belongs to another organisation."))


def _locked(device: Device) -> Device:
    """The row as it is under the write lock. Raises Conflict when it is retired."""
    row = Device.objects.select_related("organisation", "site").get(pk=device.pk)
    if row.retired_at is not None:
        raise Conflict(_("This injector is retired already."))
    return row


def _close(device: Device, departure: Departure, actor: User, now: datetime) -> None:
    for closes in _closers:
        closes(device, departure, actor, now)
    _record(device, f"device:{departure.value}", device.organisation, actor, now)


def _end_ownership(device: Device, now: datetime) -> None:
    Ownership.objects.filter(device=device, ends_at=None).update(ends_at=now)


def _record(
    device: Device, action: str, organisation: Organisation, actor: User, now: datetime
) -> None:
    audit.record(
        organisation=organisation,
        actor=actor,
        action=action,
        outcome=Outcome.ALLOWED,
        device=device,
        now=now,
    )


def _hint(device: Device, *organisations: Organisation) -> None:
    payload = {"kind": "state", "device": device.pk, "state": device.clinical_state}
    for group in (f"device.{device.pk}", "fleet", *(f"organisation.{o.pk}" for o in organisations)):
        ports.hint(group, payload)
