"""Presence (R-CON-4)."""

from typing import Any

import pytest

from fleet.core import clock
from fleet.inventory import services
from fleet.inventory.models import Device, Site
from tests.conftest import Ports

pytestmark = pytest.mark.django_db(transaction=True)


def _row(pk: str) -> Device:
    return Device.objects.get(pk=pk)


def test_online_and_offline_are_noted_and_hinted(device: Device, ports: Ports) -> None:
    now = clock.now()
    services.set_offline([device.pk], now=now)
    row = _row(device.pk)
    assert (row.online, row.online_since, row.last_seen_at, row.access_server) == (
        False,
        None,
        now,
        "",
    )
    services.set_offline([device.pk], now=now)  # no news
    services.set_online(device.pk, now=now)
    row = _row(device.pk)
    assert (row.online, row.online_since, row.access_server) == (True, now, "local")
    assert [(g, h["online"]) for g, h in ports.hints if g == "fleet"] == [
        ("fleet", False),
        ("fleet", True),
    ]
    assert {g for g, _ in ports.hints} == {"device.device-0001", "organisation.north", "fleet"}


def test_at_start_nobody_is_online_and_when_they_were_seen_stays(device: Device) -> None:
    services.all_offline()
    row = _row(device.pk)
    assert not row.online
    assert row.last_seen_at == device.last_seen_at


def test_reconciling_changes_only_what_differs(
    device: Device, make_device: Any, site: Site, ports: Ports
) -> None:
    away = make_device(site, id="device-away", online=False)
    gone = make_device(site, id="device-gone")
    moved = make_device(site, id="device-moved", access_server="west")
    services.reconcile({device.pk: "local", away.pk: "east", moved.pk: "east"})
    assert _row(device.pk).online_since == device.online_since
    assert _row(away.pk).online
    assert _row(moved.pk).access_server == "east"
    assert not _row(gone.pk).online
    assert len([1 for g, _ in ports.hints if g == "fleet"]) == 3
    services.reconcile({})
    assert not Device.objects.filter(online=True).exists()
