"""The list of devices and the page of one."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from fleet.accounts.models import User
from fleet.core import clock
from fleet.inventory.models import Device, Site
from fleet.telemetry.models import Condition, Sample

HTMX = {"HX-Request": "true", "HX-Target": "list"}


@pytest.fixture
def fleet(make_device: Callable[..., Device], site: Site) -> list[Device]:
    return [make_device(site, room=f"CT {n}", asset_number=f"AN-{n}") for n in range(30)]


def test_the_number_of_queries_does_not_grow_with_the_list(
    fleet: list[Device],
    owner: User,
    browser: Callable[[User], Client],
    django_assert_max_num_queries: DjangoAssertNumQueries,
) -> None:
    client = browser(owner)
    with django_assert_max_num_queries(8):
        response = client.get("/devices/")
    assert response.content.count(b'<tr id="row-') == 25
    assert "page 1 of 2" in response.content.decode()


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("q=SN-TEST", True),
        ("q=sn-te", True),
        ("q=A-1", True),
        ("q=CT 2", True),
        ("q=halifax main", True),
        ("q=rimouski", False),
        ("product_line=ct-dual", True),
        ("product_line=mr-dual", False),
        ("state=idle", True),
        ("state=armed", False),
        ("online=yes", True),
        ("online=no", False),
        ("online=perhaps", True),  # not a choice: no filter
        ("page=999", True),  # the nearest page
        ("q=%00", True),
        ("q=" + "x" * 500, False),
        ("site=nowhere", False),
    ],
)
def test_search_and_filters(
    query: str, found: bool, device: Device, owner: User, browser: Callable[[User], Client]
) -> None:
    response = browser(owner).get("/devices/?" + query)
    assert response.status_code == 200
    assert ("SN-TEST" in response.content.decode()) is found


def test_htmx_gets_the_list_alone(
    device: Device, owner: User, browser: Callable[[User], Client]
) -> None:
    response = browser(owner).get("/devices/?q=SN-TEST", headers=HTMX)
    text = response.content.decode()
    assert "SN-TEST" in text
    assert "<html" not in text
    assert "HX-Request" in response.headers["Vary"]


def test_the_list_of_a_hospital_watches_that_hospital_alone(
    device: Device, member: User, owner: User, browser: Callable[[User], Client]
) -> None:
    text = browser(member).get("/devices/").content.decode()
    assert f"organisation.{member.organisation_id}" in text
    assert "&quot;fleet&quot;" not in text
    assert "&quot;fleet&quot;" in browser(owner).get("/devices/").content.decode()


def test_the_page_of_a_device(
    device: Device, owner: User, browser: Callable[[User], Client]
) -> None:
    now = clock.now()
    common = {"device": device, "organisation": device.organisation}
    for seconds in (0, 10):
        Sample.objects.create(
            **common, at=now - timedelta(seconds=seconds), received_at=now, state="idle",
            values={"pressure_kpa_a": 312.4, "heater_temp_c": 37.04, "cpu_load": 0.25},
        )  # fmt: skip
    Condition.objects.create(**common, code=201, priority="H", syringe="b", raised_at=now)
    text = browser(owner).get(f"/devices/{device.pk}/").content.decode()
    assert "312" in text
    assert "kPa" in text
    assert "37.0\N{NO-BREAK SPACE}°C" in text
    assert "25\N{NO-BREAK SPACE}%" in text  # the wire's 0.25
    assert "Drive stalled · B" in text
    assert f"/devices/{device.pk}/request/" in text
    assert "UTC" in text


def test_a_hospital_may_watch_and_is_offered_nothing_else(
    device: Device, member: User, browser: Callable[[User], Client]
) -> None:
    text = browser(member).get(f"/devices/{device.pk}/").content.decode()
    assert 'data-controller="charts"' in text
    assert "/request/" not in text
    assert "/jobs/new/" not in text


@pytest.mark.parametrize("part", ["head", "wrong", "activity"])
def test_parts_of_the_page_come_alone(
    part: str, device: Device, owner: User, browser: Callable[[User], Client]
) -> None:
    headers = {"HX-Request": "true", "HX-Target": part}
    response = browser(owner).get(f"/devices/{device.pk}/", headers=headers)
    assert response.status_code == 200
    assert "<html" not in response.content.decode()


def test_history_is_bounded_and_oldest_first(
    device: Device, owner: User, browser: Callable[[User], Client]
) -> None:
    now = clock.now()
    for minutes in (90, 30, 10):
        Sample.objects.create(
            device=device, organisation=device.organisation, at=now - timedelta(minutes=minutes),
            received_at=now, state="idle", values={"fan_rpm": float(minutes)},
        )  # fmt: skip
    found = browser(owner).get(f"/devices/{device.pk}/samples/").json()["samples"]
    assert [sample["values"]["fan_rpm"] for sample in found] == [30.0, 10.0]


def test_the_start_page_groups_by_priority(
    device: Device,
    make_device: Callable[..., Device],
    site: Site,
    owner: User,
    browser: Callable[[User], Client],
    django_assert_max_num_queries: DjangoAssertNumQueries,
) -> None:
    now = clock.now()
    common = {"device": device, "organisation": device.organisation, "raised_at": now}
    Condition.objects.create(**common, code=105, priority="L", syringe="a")
    Condition.objects.create(**common, code=201, priority="H")
    make_device(site, serial="SN-AWAY", online=False)
    client = browser(owner)
    with django_assert_max_num_queries(8):
        text = client.get("/").content.decode()
    assert text.index("Drive stalled") < text.index("Volume low")
    assert "SN-AWAY" in text
    assert "Nothing is wrong" not in text
    board = client.get("/", headers={"HX-Request": "true", "HX-Target": "board"})
    assert "<html" not in board.content.decode()
