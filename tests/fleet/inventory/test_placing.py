"""Whose a row is that was made before a transfer and comes in after it (R-CON-9).

The former owner's rows are never the new one's to see, and the other way round; what nobody can
place is seen by no hospital. A stranger stands on both sides.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.test import Client
from hypothesis import given
from hypothesis import strategies as st

from agent.wire import messages
from agent.wire.catalogue import Metric
from agent.wire.messages import Event as EventMessage
from agent.wire.messages import Remote, Sample, Telemetry
from fleet.accounts.models import Organisation, User
from fleet.audit.models import DeviceEntry, Entry
from fleet.core import clock
from fleet.inventory import departures, placing
from fleet.inventory.models import Boot, Device, Ownership, Site
from fleet.inventory.placing import Interval, Reading, Stamp, owner_within, span
from fleet.mqtt.queue import Item
from fleet.telemetry.models import Condition, Event
from fleet.telemetry.models import Sample as SampleRow
from tests.conftest import Ports
from tests.fleet.audit.chains import DeviceChain
from tests.fleet.mqtt.test_ingest import make_writer
from tests.fleet.mqtt.wire import OUTBOX, Sender

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
T0 = datetime(2027, 3, 1, 12, tzinfo=UTC)
ENTRY = '<td class="nowrap"><span class="num">'  # a row of the audit page
OLD, NEW, UNHEARD = "0" * 32, "1" * 32, "2" * 32


# --- the moment of a row, worked out --------------------------------------------------------------


def _stamp(
    made: datetime, boot: str = OLD, *, began: datetime = T0, wrong: timedelta = HOUR
) -> Stamp:
    """As a device writes it whose clock is ahead by `wrong`."""
    uptime = (made - began) // timedelta(milliseconds=1)
    return Stamp(clock.to_ms(made + wrong), boot, max(0, uptime))


HEARD = {OLD: Reading(T0, T0 + HOUR, 0), NEW: Reading(T0 + 2 * DAY, T0 + 2 * DAY + HOUR, 0)}


@pytest.mark.parametrize("wrong", [timedelta(0), 365 * DAY, -365 * DAY])
def test_a_boot_that_was_heard_places_a_row_whatever_the_clock_says(wrong: timedelta) -> None:
    made = T0 + timedelta(hours=5)
    earliest, latest = span(
        _stamp(made, wrong=wrong), HEARD, since=T0 - DAY, received_at=T0 + 3 * DAY
    )
    assert earliest <= made <= latest
    assert latest - earliest < timedelta(minutes=1)


def test_the_longer_ago_a_boot_was_heard_the_wider_the_span() -> None:
    near, far = (
        span(_stamp(T0 + age), HEARD, since=T0, received_at=T0 + 90 * DAY)
        for age in (HOUR, 30 * DAY)
    )
    assert near[1] - near[0] == 2 * placing.SLACK
    assert far[1] - far[0] > timedelta(minutes=5)  # 50 ppm of a month are two minutes


def test_nothing_was_made_after_it_came() -> None:
    received_at = T0 + HOUR
    stamp = _stamp(T0 + 9 * HOUR)
    assert span(stamp, HEARD, since=T0, received_at=received_at)[1] == received_at


def test_of_a_boot_that_nobody_heard_the_clock_is_put_right_and_believed_to_a_day() -> None:
    wrong = timedelta(days=400)
    boots = {NEW: Reading(T0 + 9 * DAY, T0 + 9 * DAY, -(wrong // timedelta(milliseconds=1)))}
    made = T0 + 4 * DAY
    found = span(_stamp(made, UNHEARD, wrong=wrong), boots, since=T0, received_at=T0 + 10 * DAY)
    assert found == (made - DAY, made + DAY)


@pytest.mark.parametrize("wrong", [-400 * DAY, 400 * DAY])
def test_what_cannot_be_is_not_believed(wrong: timedelta) -> None:
    """Before it was enrolled, or after the present boot began: then no more is known than that."""
    made = T0 + 4 * DAY
    boots = {NEW: Reading(T0 + 9 * DAY, T0 + 9 * DAY, 0)}
    found = span(_stamp(made, UNHEARD, wrong=wrong), boots, since=T0, received_at=T0 + 10 * DAY)
    assert found == (T0, T0 + 9 * DAY)


@given(
    at=st.integers(0, 2**53 - 1),
    uptime_ms=st.integers(0, 2**53 - 1),
    boot=st.sampled_from([OLD, NEW, UNHEARD]),
    ahead_ms=st.integers(-(2**53), 2**53),
    known=st.sets(st.sampled_from([OLD, NEW])),
)
def test_no_stamp_is_too_strange(
    at: int, uptime_ms: int, boot: str, ahead_ms: int, known: set[str]
) -> None:
    boots = {name: Reading(T0, T0 + HOUR, ahead_ms) for name in sorted(known)}
    received_at = T0 + 9 * DAY
    earliest, latest = span(Stamp(at, boot, uptime_ms), boots, since=T0, received_at=received_at)
    assert earliest <= latest <= received_at
    assert owner_within([Interval("north", T0, None)], earliest, latest) == "north"


def test_one_owner_in_all_of_the_span_or_none() -> None:
    """Sold, and bought back."""
    intervals = [
        Interval("north", T0, T0 + DAY),
        Interval("sud", T0 + DAY, T0 + 2 * DAY),
        Interval("north", T0 + 2 * DAY, None),
    ]

    def of(earliest: timedelta, latest: timedelta) -> str | None:
        return owner_within(intervals, T0 + earliest, T0 + latest)

    assert of(HOUR, 2 * HOUR) == of(2 * DAY, 3 * DAY) == "north"
    assert of(DAY, DAY + HOUR) == "sud"
    assert of(-3 * DAY, -2 * DAY) == "north"  # at the works, and on its way
    for earliest, latest in ((HOUR, DAY), (DAY + HOUR, 2 * DAY), (HOUR, 3 * DAY)):
        assert of(earliest, latest) is None


# --- through ingest -------------------------------------------------------------------------------


@dataclass
class Line:
    """A device's messages with times of their own: made then, received now."""

    device: Device
    wrong: timedelta = timedelta(0)  # its clock is ahead by so much
    outbox: str = OUTBOX
    _seq: Any = field(default_factory=lambda: itertools.count(1))

    def stamp(self, made: datetime, boot: str, began: datetime) -> dict[str, Any]:
        written = _stamp(made, boot, began=began, wrong=self.wrong)
        return {"at": written.at, "boot": boot, "uptime_ms": written.uptime_ms}

    def _item(self, message: messages.Up) -> Item:
        return Sender(self.device.pk).item(messages.encode(message), message.TYPE)

    def hello(self, at: datetime, boot: str, began: datetime) -> Item:
        item = Sender(self.device.pk, self.outbox).hello(**self.stamp(at, boot, began))
        return Item(item.device, item.type, item.version, item.payload, at, item.qos, item.ack)

    def durable(self, kind: Any, stamp: dict[str, Any], **fields: Any) -> Item:
        return self._item(kind(**stamp, outbox=self.outbox, seq=next(self._seq), **fields))

    def event(self, stamp: dict[str, Any], code: int, phase: str = "raised") -> Item:
        return self.durable(EventMessage, stamp, code=code, priority="M", phase=phase)

    def samples(self, *stamps: dict[str, Any]) -> Item:
        made = [
            Sample(
                at=each["at"], uptime_ms=each["uptime_ms"], state="idle",  # type: ignore[arg-type]
                values={Metric("fan_rpm"): float(number)},
            )
            for number, each in enumerate(stamps)
        ]  # fmt: skip
        return self.durable(Telemetry, stamps[-1], samples=made)


@dataclass
class Moved:
    """A device that went from `north` to `sud` two days ago, and has come back on line."""

    line: Line
    began: datetime  # the boot before, heard at north
    at: datetime  # the transfer
    came: datetime  # the boot after

    def before(self, ago: timedelta = HOUR) -> dict[str, Any]:
        return self.line.stamp(self.at - ago, OLD, self.began)

    def after(self, later: timedelta = 3 * HOUR) -> dict[str, Any]:
        return self.line.stamp(self.came + later, NEW, self.came)

    def unheard(self, made: datetime) -> dict[str, Any]:
        return self.line.stamp(made, UNHEARD, made - HOUR)


@pytest.fixture(params=[0, 365, -365], ids=["right", "a-year-ahead", "a-year-behind"])
def moved(
    request: pytest.FixtureRequest, device: Device, administrator: User, other_site: Site,
    ports: Ports,
) -> Moved:  # fmt: skip
    now = clock.now()
    began, at = now - 9 * DAY, now - 2 * DAY
    came = now - DAY
    Device.objects.filter(pk=device.pk).update(created_at=now - 20 * DAY)
    Ownership.objects.filter(device=device).update(starts_at=now - 20 * DAY)
    line = Line(device, wrong=timedelta(days=request.param))
    make_writer().settle([line.hello(began + HOUR, OLD, began)])
    departures.move(actor=administrator, device=device, site=other_site, now=at)
    make_writer().settle([line.hello(came + HOUR, NEW, came)])
    ports.hints.clear()
    return Moved(line, began, at, came)


@pytest.fixture
def new_owner(make_user: Callable[..., User], other_hospital: Organisation) -> User:
    return make_user(other_hospital, "hospital", username="new-owner")


@pytest.fixture
def third(make_user: Callable[..., User], db: None) -> User:
    """IT of a hospital that never had the device."""
    west = Organisation.objects.create(id="west", name="West Hospital", kind="hospital")
    return make_user(west, "hospital", username="third")


pytest_db = pytest.mark.django_db(transaction=True)


def _codes(api: Any, user: User, device: Device) -> set[int]:
    answer = api(user).get(f"/api/v1/devices/{device.pk}/events/")
    return (
        {event["code"] for event in answer.json()["results"]}
        if answer.status_code == 200
        else set()
    )


@pytest_db
def test_each_owner_sees_its_own_events_and_a_third_none(
    moved: Moved, member: User, new_owner: User, third: User, owner: User, api: Any,
    browser: Callable[[User], Client], ports: Ports,
) -> None:  # fmt: skip
    """What is wrong now is the present owner's alone, and so is what its pages are told."""
    line = moved.line
    make_writer().settle([line.event(moved.before(), 103), line.event(moved.after(), 201)])
    assert _codes(api, member, line.device) == {103}
    assert _codes(api, new_owner, line.device) == {201}
    assert _codes(api, third, line.device) == set()
    assert _codes(api, owner, line.device) == {103, 201}
    [condition] = Condition.objects.all()
    assert (condition.code, condition.organisation_id) == (201, "sud")
    page = browser(new_owner).get(f"/devices/{line.device.pk}/").content.decode()
    assert "Drive stalled" in page
    assert "Occlusion suspected" not in page
    told = {(group, hint["code"]) for group, hint in ports.hints if hint["kind"] == "event"}
    told = {each for each in told if each[0] != "fleet"}
    assert told == {
        ("organisation.north", 103), (f"device.{line.device.pk}", 201),
        ("organisation.sud", 201),
    }  # fmt: skip


@pytest_db
def test_alone_in_the_outbox_it_tells_nobody_at_the_new_owner(moved: Moved, ports: Ports) -> None:
    line = moved.line
    make_writer().settle([line.event(moved.before(), 103), line.samples(moved.before())])
    groups = {group for group, _hint in ports.hints}
    assert groups == {"organisation.north", "fleet"}
    assert not Condition.objects.exists()


@pytest_db
def test_a_batch_of_samples_is_divided_at_the_transfer(
    moved: Moved, new_owner: User, browser: Callable[[User], Client]
) -> None:
    line = moved.line
    make_writer().settle([line.samples(moved.before(2 * HOUR), moved.before(HOUR))])
    make_writer().settle([line.samples(moved.after(4 * HOUR), moved.after(5 * HOUR))])
    filed = list(SampleRow.objects.order_by("pk").values_list("organisation", flat=True))
    assert filed == ["north", "north", "sud", "sud"]
    early = line.stamp(moved.at - HOUR, OLD, moved.began)
    late = line.stamp(moved.at + HOUR, OLD, moved.began)  # the same boot went on
    make_writer().settle([line.samples(early, late)])
    filed = list(SampleRow.objects.order_by("pk").values_list("organisation", flat=True))
    assert filed[4:] == ["north", "sud"]


@pytest_db
def test_the_injectors_audit_stays_whole_and_is_read_by_whom_it_concerns(
    moved: Moved, audit_key: Ed25519PrivateKey, member: User, new_owner: User, third: User,
    browser: Callable[[User], Client],
) -> None:  # fmt: skip
    line = moved.line
    chain = DeviceChain(line.device.pk, audit_key)
    for stamp in (moved.before(2 * HOUR), moved.before(HOUR), moved.after()):
        chain.add(**stamp)
    stamp = moved.after()
    item = line.durable(messages.Audit, stamp, entries=chain.entries, head=chain.head())
    make_writer().settle([item])
    rows = DeviceEntry.objects.order_by("index")
    assert list(rows.values_list("organisation", flat=True)) == ["north", "north", "sud"]
    for user, count in ((member, 2), (new_owner, 1), (third, 0)):
        page = browser(user).get("/audit/?side=device").content.decode()
        assert page.count(ENTRY) == count


@pytest_db
def test_what_nobody_can_place_no_hospital_sees(
    moved: Moved, member: User, new_owner: User, third: User, owner: User, api: Any,
    audit_key: Ed25519PrivateKey, browser: Callable[[User], Client], ports: Ports,
) -> None:  # fmt: skip
    """Of a boot that nobody heard, at the very time of the transfer; it is kept for the vendor."""
    line = moved.line
    stamp = moved.unheard(moved.at + timedelta(minutes=30))
    chain = DeviceChain(line.device.pk, audit_key)
    chain.add(**stamp)
    make_writer().settle(
        [
            line.event(stamp, 103),
            line.samples(stamp),
            line.durable(messages.Audit, stamp, entries=chain.entries, head=chain.head()),
        ]
    )
    for user in (member, new_owner, third):
        assert _codes(api, user, line.device) == set()
        assert ENTRY not in browser(user).get("/audit/?side=device").content.decode()
    assert _codes(api, owner, line.device) == {103}
    assert list(Event.objects.values_list("organisation", flat=True)) == [None]
    assert list(SampleRow.objects.values_list("organisation", flat=True)) == [None]
    assert list(DeviceEntry.objects.values_list("organisation", flat=True)) == [None]
    assert not Condition.objects.exists()
    assert {group for group, _hint in ports.hints} == {"fleet"}
    page = browser(owner).get("/audit/?side=device").content.decode()
    assert page.count(ENTRY) == 1
    assert "<td>not known</td>" in page


@pytest_db
def test_a_boot_that_nobody_heard_days_before_is_the_former_owners(moved: Moved) -> None:
    line = moved.line
    make_writer().settle([line.event(moved.unheard(moved.at - 3 * DAY), 103)])
    assert Event.objects.get().organisation_id == "north"


@pytest_db
def test_the_switch_is_recorded_with_whom_it_was_used_at(moved: Moved) -> None:
    """Switched off at the former owner's, sent from the new one's: off it is."""
    line = moved.line
    make_writer().settle([line.durable(Remote, moved.before(), enabled=False)])
    assert not Device.objects.get(pk=line.device.pk).remote_enabled
    assert Entry.objects.get(action="remote:off").organisation_id == "north"


@pytest_db
def test_a_hello_that_was_held_up_does_not_make_a_boot_later(device: Device) -> None:
    """An access server keeps it while the portal is away: the earliest reading is the best."""
    line, now = Line(device), clock.now()
    late = line.hello(now, NEW, now - HOUR)
    held_up = Item(late.device, late.type, late.version, late.payload, now + 2 * HOUR, 1)
    prompt = line.hello(now + 3 * HOUR, NEW, now - HOUR)
    for item, began in ((held_up, now + HOUR), (prompt, now - HOUR), (held_up, now - HOUR)):
        make_writer().settle([item])
        boot = Boot.objects.get()
        assert abs(boot.started_at - began) < timedelta(seconds=1)


@pytest_db
def test_few_boots_are_remembered(device: Device) -> None:
    line, now = Line(device), clock.now()
    for number in range(placing.KEPT + 5):
        make_writer().settle([line.hello(now, f"{number:032x}", now - HOUR)])
    kept = list(Boot.objects.order_by("pk").values_list("boot", flat=True))
    assert kept == [f"{number:032x}" for number in range(5, placing.KEPT + 5)]


@pytest_db
def test_a_device_that_never_changed_hands_costs_no_look_up(
    device: Device, django_assert_num_queries: Any
) -> None:
    placer = placing.Placer()
    with django_assert_num_queries(0):
        assert placer.owner(device, Stamp(0, UNHEARD, 0), clock.now()) == "north"
