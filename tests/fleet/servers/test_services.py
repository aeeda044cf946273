"""Access servers: who may change them, what may change, and the notice hospitals get.

Requirements: R-CON-3, R-CON-5, R-ACC-2.
"""

from datetime import date, datetime, timedelta
from typing import Any

import pytest

from fleet.accounts.models import User
from fleet.audit.models import Entry
from fleet.core import clock
from fleet.core.addresses import Address
from fleet.core.errors import Conflict, Invalid, NotAllowed, NotFound, PortalError
from fleet.inventory.models import Device
from fleet.servers import selectors, services
from fleet.servers.models import AccessServer
from tests.fleet.servers.making import FIELDS, add

pytestmark = pytest.mark.django_db


@pytest.fixture
def now() -> datetime:
    return clock.now()


def test_added_in_order_and_recorded(administrator: User, now: datetime) -> None:
    today = now.date()
    assert selectors.for_devices(today) == [selectors.public_address()]  # none yet: our own gate
    add(administrator, "west", position=20)
    add(administrator, "east", position=10)
    assert selectors.for_devices(today) == [
        Address("east.example.org", 443), Address("west.example.org", 443),
    ]  # fmt: skip
    services.change(actor=administrator, name="west", fields={"position": 5}, now=now)
    assert selectors.for_devices(today)[0].host == "west.example.org"
    services.set_enabled(actor=administrator, name="west", enabled=False, now=now)
    services.set_enabled(actor=administrator, name="west", enabled=False, now=now)  # no news
    assert selectors.for_devices(today) == [Address("east.example.org", 443)]
    assert [row.name for row in selectors.linked()] == ["east"]
    actions = Entry.objects.order_by("index").values_list("action", "entry__actor")
    assert list(actions) == [
        ("server:add", "admin"), ("server:add", "admin"), ("server:change", "admin"),
        ("server:disable", "admin"),
    ]  # fmt: skip


def test_hospitals_get_notice_once_an_injector_is_there(
    administrator: User, device: Device, now: datetime, settings: Any
) -> None:
    """R-CON-3: neither a new host nor the end of one comes as a surprise."""
    settings.PATENCY_NOTICE_DAYS = 30
    today = now.date()
    with pytest.raises(Invalid, match=(today + timedelta(days=30)).isoformat()):
        add(administrator, "east", listed_on=today + timedelta(days=29))
    add(administrator, "east", listed_on=today + timedelta(days=30))
    assert selectors.for_devices(today) == [selectors.public_address()]  # not before its day
    assert selectors.for_devices(today + timedelta(days=30))[0].host == "east.example.org"
    with pytest.raises(Invalid):
        services.retire(actor=administrator, name="east", on=today + timedelta(days=29), now=now)
    end = today + timedelta(days=90)
    services.retire(actor=administrator, name="east", on=end, now=now)
    assert selectors.for_devices(end - timedelta(days=1))[0].host == "east.example.org"
    assert selectors.for_devices(end) == [selectors.public_address()]


def test_what_a_firewall_knows_does_not_change(administrator: User, now: datetime) -> None:
    add(administrator, "east")
    for field in ("host", "address", "port", "name", "listed_on"):
        with pytest.raises(Invalid, match=field):
            services.change(actor=administrator, name="east", fields={field: "x"}, now=now)


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "East"}, {"name": "portal"}, {"name": "local"}, {"name": ""},
        {"host": "https://east"}, {"host": ""}, {"address": "east"}, {"port": 0},
        {"port": 65536}, {"link": "east"}, {"link": "east:"}, {"place": ""},
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(administrator: User, fields: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        add(administrator, **{"name": "east", **fields})
    assert not AccessServer.objects.exists()


def test_one_name_and_one_place_once(administrator: User, now: datetime) -> None:
    add(administrator, "east")
    with pytest.raises(Conflict):
        add(administrator, "east", host="other.example.org")
    with pytest.raises(Conflict):
        add(administrator, "west", host="east.example.org")
    with pytest.raises(NotFound):
        services.set_enabled(actor=administrator, name="nowhere", enabled=True, now=now)
    with pytest.raises(Invalid):
        services.retire(actor=administrator, name="east", on=now.date(), now=now)


def test_all_or_nothing(administrator: User, now: datetime) -> None:
    add(administrator, "east")
    with pytest.raises(PortalError):
        asked = {"place": "Québec", "unlisted_on": date(2020, 1, 1)}
        services.update(actor=administrator, name="east", asked=asked, now=now)
    assert services.get("east").place == FIELDS["place"]


@pytest.mark.parametrize("who", ["owner", "member", "stranger"])
def test_only_the_vendors_administrators(
    who: str, administrator: User, now: datetime, request: pytest.FixtureRequest
) -> None:
    actor = request.getfixturevalue(who)
    add(administrator, "east")
    for attempt in (
        lambda: add(actor, "west"),
        lambda: services.change(actor=actor, name="east", fields={"place": "x"}, now=now),
        lambda: services.set_enabled(actor=actor, name="east", enabled=False, now=now),
        lambda: services.retire(actor=actor, name="east", on=date(2099, 1, 1), now=now),
    ):
        with pytest.raises(NotAllowed):
            attempt()


def test_an_administrator_of_a_hospital_is_not_the_vendors(
    make_user: Any, hospital: Any, now: datetime
) -> None:
    with pytest.raises(NotAllowed):
        add(make_user(hospital, "administrator"), "east")


def test_health(administrator: User, now: datetime) -> None:
    add(administrator, "east")
    services.note_health("east", linked=True, trouble="", devices=3, now=now)
    services.note_health(
        "east", linked=False, trouble="lost", devices=0, now=now + timedelta(seconds=5)
    )
    row = services.get("east")
    assert (row.linked, row.trouble, row.devices, row.last_seen_at) == (False, "lost", 0, now)
    services.all_unlinked()
    assert services.get("east").trouble == ""


def test_the_main_server_may_be_known_by_another_address(settings: Any) -> None:
    settings.PATENCY_MQTT = "0.0.0.0:8443"
    settings.PATENCY_PUBLIC = "portal.example.org:443"
    assert str(selectors.public_address()) == "portal.example.org:443"
