"""Presence: who is connected, since when, where."""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime

from django.db import transaction

from fleet.core import clock, ports
from fleet.inventory.models import Device

ACCESS_SERVER = "local"  # the gate in this process


def set_online(device_id: str, *, now: datetime, access_server: str = ACCESS_SERVER) -> None:
    """The gate has the device's connection."""
    with transaction.atomic():
        rows = Device.objects.filter(pk=device_id)
        rows.update(online=True, online_since=now, last_seen_at=now, access_server=access_server)
        _hint(rows.values_list("pk", "organisation_id"), online=True)


def set_offline(device_ids: Collection[str], *, now: datetime) -> None:
    """The gate has lost the devices' connections."""
    if not device_ids:
        return
    with transaction.atomic():
        rows = Device.objects.filter(pk__in=device_ids, online=True)
        gone = list(rows.values_list("pk", "organisation_id"))
        rows.update(online=False, online_since=None, last_seen_at=now, access_server="")
        _hint(gone, online=False)


def all_offline() -> None:
    """At start: connections of an earlier process are gone; `last_seen_at` stays what it was."""
    Device.objects.filter(online=True).update(online=False, online_since=None, access_server="")


def reconcile(connected: Mapping[str, str], *, now: datetime | None = None) -> None:
    """Make presence what the gates say it is, should a change have been lost to a fault.

    `connected` maps each device to its access server.
    """
    now = now or clock.now()
    known = dict(Device.objects.filter(online=True).values_list("pk", "access_server"))
    set_offline(known.keys() - connected.keys(), now=now)
    for device, server in connected.items():
        if known.get(device) != server:
            set_online(device, now=now, access_server=server)


def _hint(devices: Iterable[tuple[str, str]], *, online: bool) -> None:
    for device, organisation in devices:
        payload = {"kind": "presence", "device": device, "online": online}
        ports.hint(f"device.{device}", payload)
        ports.hint(f"organisation.{organisation}", payload)
        ports.hint("fleet", payload)
