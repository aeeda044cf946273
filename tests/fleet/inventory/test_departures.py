"""Moved, transferred, retired: the credential is revoked, the data closed (R-CON-9).

The former owner sees nothing new and keeps what was theirs; the new owner begins with nothing.
"""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.test import Client

from fleet.access import services as access
from fleet.access.models import Session
from fleet.accounts.models import Organisation, User
from fleet.audit.models import Entry
from fleet.core import clock
from fleet.core.errors import Conflict, Invalid, NotAllowed
from fleet.enrolment import ca, services
from fleet.enrolment.denylist import denied
from fleet.enrolment.models import Claim, Credential
from fleet.inventory import departures
from fleet.inventory.models import Device, Ownership, ProductLine, Site
from fleet.jobs import services as jobs
from fleet.jobs.models import Execution
from fleet.telemetry.models import Condition, Event, Sample

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _clear() -> Iterator[None]:
    denied.clear()
    yield
    denied.clear()


@pytest.fixture
def new_owner(make_user: Callable[..., User], other_hospital: Organisation) -> User:
    """IT of the hospital that gets the device."""
    return make_user(other_hospital, "hospital", username="new-owner")


def _credential(device: Device, serial: str = "ab12") -> Credential:
    now = clock.now()
    return Credential.objects.create(
        device=device, serial_number=serial, public_key="f" * 64, certificate=b"x",
        not_before_at=now, not_after_at=now + timedelta(days=30), created_at=now,
    )  # fmt: skip


def _reports(device: Device, seq: int, now: datetime) -> None:
    """What the device would send at this moment: the rows are its organisation's then."""
    device.refresh_from_db()
    common: dict[str, Any] = {"device": device, "organisation": device.organisation}
    Event.objects.create(
        **common, code=103, priority="M", phase="raised", at=now, received_at=now,
        outbox="a" * 32, seq=seq,
    )  # fmt: skip
    Condition.objects.update_or_create(
        device=device, code=103, syringe="",
        defaults={"organisation": device.organisation, "priority": "M", "raised_at": now},
    )  # fmt: skip
    Sample.objects.create(
        **common, at=now, received_at=now, state="idle", values={"pressure_kpa_a": 1000.0 + seq}
    )


@pytest.fixture
def lived(device: Device, owner: User, ports: Any) -> Device:
    """A device with everything that can be hung on one."""
    now = clock.now()
    _credential(device)
    _reports(device, 1, now)
    access.request(
        actor=owner, device=device, level="os", services=["ssh"], reason="repair", ticket="T-1",
        life=timedelta(minutes=30), now=now,
    )  # fmt: skip
    jobs.create(actor=owner, kind="collect-diagnostics", hours=1, devices=[device], now=now)
    ports.sent.clear()
    return device


def _actions(organisation: Organisation) -> list[str]:
    rows = Entry.objects.filter(organisation=organisation).order_by("index")
    return list(rows.values_list("action", flat=True))


def test_a_transfer_closes_everything(
    lived: Device,
    administrator: User,
    hospital: Organisation,
    other_hospital: Organisation,
    other_site: Site,
    ports: Any,
) -> None:
    now = clock.now()
    moved = departures.move(
        actor=administrator, device=lived, site=other_site, now=now, room="IRM 1"
    )
    assert (moved.organisation, moved.site, moved.room) == (other_hospital, other_site, "IRM 1")
    assert moved.asset_number == ""  # the former owner's word
    credential = Credential.objects.get()
    assert (credential.revoked_at, credential.revoked_because) == (now, "transferred")
    assert ports.denied[-1].certificates == {"AB12"}
    assert lived.pk in ports.kicked
    assert Session.objects.get().state == "ended"
    assert Execution.objects.get().state == "cancelled"
    assert not Condition.objects.exists()
    intervals = list(Ownership.objects.filter(device=lived).values_list("organisation", "ends_at"))
    assert intervals == [(hospital.pk, now), (other_hospital.pk, None)]
    assert {"session:end", "job:cancel", "credential:revoke", "device:transfer"} <= set(
        _actions(hospital)
    )
    assert _actions(other_hospital) == ["device:receive"]


def test_the_former_owner_keeps_what_was_theirs_and_sees_nothing_new(
    lived: Device,
    administrator: User,
    member: User,
    new_owner: User,
    other_site: Site,
    api: Callable[[User], Any],
    browser: Callable[[User], Client],
) -> None:
    session = Session.objects.get()
    departures.move(actor=administrator, device=lived, site=other_site, now=clock.now(), room="X9")
    _reports(lived, 2, clock.now())
    old, new = api(member), api(new_owner)

    events = f"/api/v1/devices/{lived.pk}/events/"
    assert [e["code"] for e in old.get(events).json()["results"]] == [103]  # the one of their time
    assert len(new.get(events).json()["results"]) == 1
    assert old.get(events).json() != new.get(events).json()
    assert old.get(f"/api/v1/devices/{lived.pk}/").status_code == 404
    assert new.get(f"/api/v1/devices/{lived.pk}/").status_code == 200

    assert old.get(f"/api/v1/access/sessions/{session.pk}/report/").status_code == 200
    assert new.get(f"/api/v1/access/sessions/{session.pk}/report/").status_code == 404
    for path in ("/", "/devices/"):
        assert lived.serial not in browser(member).get(path).content.decode()
        assert lived.serial in browser(new_owner).get(path).content.decode()
    report = browser(member).get(f"/access/{session.pk}/report/").content.decode()
    assert "Sud" not in report  # not where it is now
    assert "X9" not in report
    for path in ("/access/", f"/access/{session.pk}/", "/jobs/"):
        assert "Sud" not in browser(member).get(path).content.decode(), path

    page = browser(new_owner).get(f"/devices/{lived.pk}/").content.decode()
    assert "1,002" in page or "1002" in page
    assert "1,001" not in page and "1001" not in page  # the former owner's measurement
    samples = browser(new_owner).get(f"/devices/{lived.pk}/samples/").json()["samples"]
    assert [sample["values"]["pressure_kpa_a"] for sample in samples] == [1002.0]
    assert browser(member).get(f"/devices/{lived.pk}/samples/").status_code == 404


def test_a_move_within_the_organisation(
    lived: Device, administrator: User, hospital: Organisation, ports: Any
) -> None:
    """It must be enrolled again there, but it is the same hospital's and its conditions stand."""
    annex = Site.objects.create(organisation=hospital, name="Annex")
    departures.move(actor=administrator, device=lived, site=annex, now=clock.now(), room="CT 9")
    assert Credential.objects.get().revoked_because == "moved"
    assert lived.pk in ports.kicked
    assert Condition.objects.count() == 1
    assert Ownership.objects.filter(device=lived).count() == 1
    assert "device:move" in _actions(hospital)
    with pytest.raises(Invalid, match="already"):
        departures.move(actor=administrator, device=lived, site=annex, now=clock.now())


def test_retired_for_good(
    lived: Device,
    administrator: User,
    owner: User,
    member: User,
    site: Site,
    product_line: ProductLine,
    api: Callable[[User], Any],
    browser: Callable[[User], Client],
) -> None:
    departures.retire(actor=administrator, device=lived, now=clock.now())
    assert Credential.objects.get().revoked_because == "retired"
    assert Ownership.objects.get(device=lived).ends_at is not None
    for path in ("/", "/devices/"):
        assert lived.serial not in browser(member).get(path).content.decode()
    assert "Retired" in browser(member).get(f"/devices/{lived.pk}/").content.decode()
    assert len(api(member).get(f"/api/v1/devices/{lived.pk}/events/").json()["results"]) == 1
    row = Device.objects.get(pk=lived.pk)
    with pytest.raises(Conflict, match="retired"):
        access.request(
            actor=owner, device=row, level="os", services=["ssh"], reason="repair",
            life=timedelta(minutes=30), now=clock.now(),
        )  # fmt: skip
    with pytest.raises(Invalid, match="retired"):
        jobs.create(
            actor=owner, kind="collect-diagnostics", hours=1, devices=[row], now=clock.now()
        )
    for again in (departures.retire, departures.move):
        fields = {"site": other(site)} if again is departures.move else {}
        with pytest.raises(Conflict, match="already"):
            again(actor=administrator, device=lived, now=clock.now(), **fields)  # type: ignore[operator]
    # The same serial is another device from now on.
    ca.init(now=clock.now())
    services.create_claim(
        serial=lived.serial, product_line=product_line, site=site, now=clock.now()
    )
    assert Claim.objects.get(used_at=None).device is None


def other(site: Site) -> Site:
    return Site.objects.create(organisation=site.organisation, name="Elsewhere")


@pytest.mark.parametrize("who", ["owner", "member", "stranger"])
def test_only_an_administrator_moves(
    lived: Device, who: str, other_site: Site, request: pytest.FixtureRequest
) -> None:
    actor = request.getfixturevalue(who)
    with pytest.raises(NotAllowed):
        departures.move(actor=actor, device=lived, site=other_site, now=clock.now())
    with pytest.raises(NotAllowed):
        departures.retire(actor=actor, device=lived, now=clock.now())
    assert Credential.objects.get().revoked_at is None


def test_a_fault_in_one_app_leaves_all_as_it_was(
    lived: Device, administrator: User, other_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(departures, "_closers", [*departures._closers, fail])
    with pytest.raises(ZeroDivisionError):
        departures.move(actor=administrator, device=lived, site=other_site, now=clock.now())
    lived.refresh_from_db()
    assert lived.organisation_id == "north"
    assert Credential.objects.get().revoked_at is None
    assert Session.objects.get().state == "requested"
