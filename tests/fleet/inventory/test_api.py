"""Devices and events over the API: exact fields, filters, scope, number of queries."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from fleet.accounts.models import User
from fleet.core import clock
from fleet.inventory.models import Device, Site
from fleet.telemetry.models import Event

Api = Callable[[User], Any]


def test_a_device_has_exactly_these_fields(api: Api, owner: User, device: Device) -> None:
    [found] = api(owner).get("/api/v1/devices/").json()["results"]
    seen = found.pop("last_seen_at")
    assert seen is not None
    assert found == {
        "serial": "SN-TEST",
        "device": "device-0001",
        "product_line": "ct-dual",
        "organisation": "North Hospital",
        "site": "Main",
        "online": True,
        "state": "idle",
        "software_version": "4.2.0",
        "asset_number": "A-1",
        "room": "CT 2",
    }


def test_a_device_that_has_said_nothing_has_no_state(
    api: Api, owner: User, make_device: Any, site: Site
) -> None:
    device = make_device(site, clinical_state="", last_seen_at=None, online=False)
    found = api(owner).get(f"/api/v1/devices/{device.pk}/").json()
    assert (found["state"], found["last_seen_at"]) == (None, None)
    assert found["services"] == {"ssh": "os", "console": "os", "web": "service"}


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", {"SN-A", "SN-B"}),
        ("q=sn-a", {"SN-A"}),
        ("q=main ct", {"SN-A"}),
        ("q=nothing", set()),
        ("product_line=ct-dual", {"SN-A", "SN-B"}),
        ("product_line=mr-dual", set()),
        ("state=armed", {"SN-B"}),
        ("online=true", {"SN-A"}),
        ("online=false", {"SN-B"}),
    ],
)
def test_filters(
    api: Api, owner: User, make_device: Any, site: Site, query: str, found: set[str]
) -> None:
    make_device(site, serial="SN-A", room="CT 1")
    make_device(site, serial="SN-B", online=False, clinical_state="armed")
    answer = api(owner).get(f"/api/v1/devices/?{query}").json()
    assert {row["serial"] for row in answer["results"]} == found
    assert answer["count"] == len(found)


@pytest.mark.parametrize(
    "query", ["online=maybe", "state=asleep", "page=0", "page=x", "q=%00", "site=%00"]
)
def test_a_bad_filter_is_a_clear_error_or_finds_nothing(
    api: Api, owner: User, device: Device, query: str
) -> None:
    answer = api(owner).get(f"/api/v1/devices/?{query}")
    assert answer.status_code in (200, 400, 404)
    if answer.status_code != 200:
        assert answer.json()["detail"]


def test_a_hospital_sees_its_own(
    api: Api, member: User, stranger: User, device: Device, other_device: Device
) -> None:
    serials = [row["serial"] for row in api(member).get("/api/v1/devices/").json()["results"]]
    assert serials == ["SN-TEST"]
    assert api(member).get(f"/api/v1/devices/{other_device.pk}/").status_code == 404
    assert api(stranger).get(f"/api/v1/devices/{device.pk}/events/").status_code == 404


def _events(device: Device, count: int) -> None:
    now = clock.now()
    Event.objects.bulk_create(
        Event(
            device=device, organisation=device.organisation, code=103, priority="M",
            phase="raised", at=now, received_at=now + timedelta(seconds=n), outbox="a" * 32, seq=n,
        )
        for n in range(count)
    )  # fmt: skip


def test_events_are_newest_first(api: Api, member: User, device: Device) -> None:
    _events(device, 3)
    answer = api(member).get(f"/api/v1/devices/{device.pk}/events/").json()
    times = [row["received_at"] for row in answer["results"]]
    assert times == sorted(times, reverse=True)
    assert answer["results"][0]["syringe"] is None


def test_lists_cost_the_same_whatever_their_length(
    api: Api, owner: User, make_device: Any, site: Site, django_assert_num_queries: Any
) -> None:
    client = api(owner)
    client.get("/api/v1/me/")  # the token's use is noted
    for _ in range(30):
        _events(make_device(site), 2)
    device = Device.objects.first()
    assert device is not None
    _events(make_device(site, id="device-many"), 50)
    with django_assert_num_queries(3):  # token with user, count, rows
        assert len(client.get("/api/v1/devices/").json()["results"]) == 31
    with django_assert_num_queries(4):  # token, device, count, rows
        assert len(client.get("/api/v1/devices/device-many/events/").json()["results"]) == 50


def test_pages(api: Api, owner: User, make_device: Any, site: Site) -> None:
    for _ in range(3):
        make_device(site)
    first = api(owner).get("/api/v1/devices/?page_size=2").json()
    assert (first["count"], len(first["results"])) == (3, 2)
    assert first["next"].endswith("page=2&page_size=2")
