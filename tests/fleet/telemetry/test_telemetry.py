"""What is kept of samples and events, and for how long (R-MNT-5)."""

from datetime import timedelta

import msgspec

from agent.wire.catalogue import ClinicalState, Metric
from agent.wire.messages import Event, Sample, Telemetry
from fleet.accounts.models import User
from fleet.core import clock
from fleet.inventory.models import Device
from fleet.telemetry import inbound, models, selectors, services

ENVELOPE = {"boot": "b" * 32, "uptime_ms": 1, "outbox": "a" * 32}


def _event(seq: int, code: int, phase: str, syringe: str | None = None, at: int = 1000) -> Event:
    fields = {"code": code, "priority": "M", "phase": phase, "syringe": syringe}
    return msgspec.convert({**ENVELOPE, **fields, "at": at, "seq": seq}, Event)


def test_conditions_are_per_syringe_and_the_newest_counts(device: Device) -> None:
    now = clock.now()
    inbound.event(device, _event(1, 103, "raised", "a"), now)
    inbound.event(device, _event(2, 103, "raised", "b"), now)
    inbound.event(device, _event(3, 103, "raised", "a", at=5000), now)
    inbound.event(device, _event(4, 103, "cleared", "b"), now)
    inbound.event(device, _event(5, 201, "cleared"), now)  # never raised: no condition to end
    [left] = models.Condition.objects.all()
    assert (left.syringe, left.raised_at) == ("a", clock.from_ms(5000))
    assert models.Event.objects.count() == 5


def test_a_time_that_no_calendar_holds_is_cut_off(device: Device) -> None:
    inbound.event(device, _event(1, 103, "raised", at=2**53 - 1), clock.now())
    assert models.Event.objects.get().at.year == 9990


def test_samples_keep_their_metrics_and_the_organisation_of_the_moment(
    device: Device, owner: User, member: User, stranger: User
) -> None:
    sample = Sample(
        at=clock.to_ms(clock.now()), uptime_ms=1, state=ClinicalState.IDLE,
        values={Metric("fan_rpm"): 900.5},
    )  # fmt: skip
    message = Telemetry(**ENVELOPE, at=1, seq=1, samples=[sample, sample])  # type: ignore[arg-type]
    inbound.telemetry(device, message, clock.now())
    hour = clock.now() - timedelta(hours=1)
    for user, count in ((owner, 2), (member, 2), (stranger, 0)):
        rows = selectors.samples(user, device, since=hour)
        assert rows.count() == count
    first = models.Sample.objects.first()
    assert first is not None
    assert (first.values, first.state) == ({"fan_rpm": 900.5}, "idle")
    assert first.organisation_id == "north"


def test_raw_samples_are_forgotten_after_seven_days(device: Device) -> None:
    now = clock.now()
    for age in (1, 6, 8, 30):
        models.Sample.objects.create(
            device=device, organisation=device.organisation, at=now, state="idle", values={},
            received_at=now - timedelta(days=age),
        )  # fmt: skip
    assert services.forget_old_samples(now) == 2
    assert services.forget_old_samples(now) == 0
    assert models.Sample.objects.count() == 2


def test_events_and_conditions_stay_with_who_may_see_them(
    device: Device, owner: User, member: User, stranger: User
) -> None:
    inbound.event(device, _event(1, 103, "raised"), clock.now())
    for user, count in ((owner, 1), (member, 1), (stranger, 0)):
        assert selectors.events(user).count() == count
        assert selectors.conditions(user, device).count() == count
