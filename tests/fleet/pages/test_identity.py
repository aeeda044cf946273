"""The page and the API of a device's credential (R-CON-9)."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client

from fleet.accounts.models import User
from fleet.core import clock
from fleet.enrolment import alarms
from fleet.enrolment.denylist import denied
from fleet.enrolment.models import Alarm, AlarmKind, Credential
from fleet.inventory.models import Device, Site

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def credential(device: Device) -> Iterator[Credential]:
    denied.clear()
    now = clock.now()
    yield Credential.objects.create(
        device=device, serial_number="ab12", public_key="f" * 64, certificate=b"x",
        not_before_at=now, not_after_at=now + timedelta(days=29), created_at=now,
    )  # fmt: skip
    denied.clear()


def test_who_sees_what(
    device: Device,
    administrator: User,
    member: User,
    stranger: User,
    browser: Callable[[User], Client],
) -> None:
    alarms.sound(device, AlarmKind.CLONED, now=clock.now())
    path = f"/devices/{device.pk}/identity/"
    seen = browser(administrator).get(path).content.decode()
    assert "ab12" in seen
    assert "in use in two places" in seen
    for button in ("Revoke the credential", "Move it", "Retire the injector", "Close the alarm"):
        assert button in seen
    theirs = browser(member).get(path).content.decode()
    assert "ab12" in theirs
    for button in ("Revoke the credential", "Move it", "Retire the injector", "Close the alarm"):
        assert button not in theirs
    assert browser(stranger).get(path).status_code == 404
    for reader in (administrator, member):
        for where in ("/", f"/devices/{device.pk}/"):  # what is wrong now
            page = browser(reader).get(where).content.decode()
            assert "in use in two places" in page, where
    assert "in use in two places" not in browser(stranger).get("/").content.decode()


def test_switched_off_is_not_merely_offline(
    device: Device, member: User, browser: Callable[[User], Client]
) -> None:
    Device.objects.update(remote_enabled=False, online=False)
    for where in ("/", "/devices/", f"/devices/{device.pk}/"):
        assert "Switched off at the injector" in browser(member).get(where).content.decode(), where


def test_the_buttons(
    device: Device,
    administrator: User,
    owner: User,
    browser: Callable[[User], Client],
    other_site: Site,
) -> None:
    alarms.sound(device, AlarmKind.CLONED, now=clock.now())
    client = browser(administrator)
    for verb in ("revoke", "acknowledge", "move", "retire"):
        assert browser(owner).post(f"/devices/{device.pk}/{verb}/").status_code == 404
        assert client.get(f"/devices/{device.pk}/{verb}/").status_code == 405
    assert client.post(f"/devices/{device.pk}/acknowledge/", follow=True).status_code == 200
    assert not Alarm.objects.filter(closed_at=None).exists()
    answer = client.post(f"/devices/{device.pk}/revoke/", follow=True)
    assert "1 certificate is revoked" in answer.content.decode()
    assert "claim --again" in answer.content.decode()
    assert Credential.objects.get().revoked_because == "by_hand"
    answer = client.post(f"/devices/{device.pk}/move/", {"site": "nowhere"}, follow=True)
    assert "Choose the site" in answer.content.decode()
    client.post(f"/devices/{device.pk}/move/", {"site": other_site.pk, "room": "IRM 1"})
    device.refresh_from_db()
    assert (device.organisation_id, device.room) == ("sud", "IRM 1")
    answer = client.post(f"/devices/{device.pk}/retire/", follow=True)
    assert "Retire the injector" not in answer.content.decode()
    device.refresh_from_db()
    assert device.retired_at is not None


def test_the_api(
    device: Device, administrator: User, member: User, api: Callable[[User], Any], other_site: Site
) -> None:
    alarms.sound(device, AlarmKind.SUPERSEDED, now=clock.now())
    path = f"/api/v1/devices/{device.pk}"
    for who in (administrator, member):
        shown = api(who).get(f"{path}/identity/").json()
        assert [alarm["kind"] for alarm in shown["alarms"]] == ["superseded"]
        (one,) = shown["credentials"]
        assert (one["serial_number"], one["revoked_because"]) == ("ab12", None)
    for verb in ("revoke", "acknowledge", "move", "retire"):
        assert api(member).post(f"{path}/{verb}/").status_code == 403
    client = api(administrator)
    assert client.post(f"{path}/acknowledge/").json() == {"closed": 1}
    assert client.post(f"{path}/revoke/").json() == {"revoked": 1}
    assert client.post(f"{path}/revoke/").json() == {"revoked": 0}
    assert client.post(f"{path}/move/", {}, format="json").status_code == 400
    assert client.post(f"{path}/move/", {"site": "x"}, format="json").status_code == 404
    moved = client.post(f"{path}/move/", {"site": other_site.pk}, format="json").json()
    assert moved["site"] == "Sud"
    assert client.post(f"{path}/retire/").json()["retired_at"] is not None
    answer = client.post(f"{path}/retire/")
    assert (answer.status_code, answer.json()["error"]) == (409, "conflict")
