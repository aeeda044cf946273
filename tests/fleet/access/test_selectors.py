"""Who sees which sessions; both audit chains side by side; the report (R-ACC-10)."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest

from agent.wire import chain
from agent.wire import messages as m
from agent.wire.catalogue import Outcome, SessionState
from fleet.access import outbound, selectors, services
from fleet.access.models import Session
from fleet.accounts.models import User
from fleet.audit.models import DeviceEntry, Entry
from fleet.core import clock
from tests.fleet.access.injector import BOOT, Injector

S = SessionState
Reach = Callable[..., Session]


def device_records(injector: Injector, session: Session, *steps: tuple[str, str]) -> None:
    """The device's chain, as it would have sent it: (action, digest) of each step."""
    last = DeviceEntry.objects.filter(device=injector.device).order_by("-index").first()
    index, previous = (last.index + 1, last.hash) if last else (0, chain.GENESIS)
    for action, digest in steps:
        fields: dict[str, Any] = {
            "index": index, "at": clock.to_ms(injector.now), "boot": BOOT, "uptime_ms": 1000,
            "action": action, "actor": "owner", "outcome": Outcome.ALLOWED,
            "session": session.pk, "execution": None, "reason": None, "digest": digest,
            "previous": previous,
        }  # fmt: skip
        entry = msgspec.to_builtins(m.AuditEntry(**fields, hash=chain.entry_hash(fields)))
        DeviceEntry.objects.create(
            device=injector.device,
            organisation=injector.device.organisation,
            index=index,
            entry=entry,
            hash=entry["hash"],
            at=injector.now,
            received_at=injector.now,
            action=action,
            session=session.pk,
        )
        index, previous = index + 1, entry["hash"]


def whole_story(session: Session) -> Sequence[tuple[str, str]]:
    request = session.request_digest
    answer = outbound.digest(outbound.answer_message(session))
    return [
        ("session:challenge", request),
        ("session:answer", answer),
        ("session:start", request),
        ("session:end", request),
    ]


def test_who_sees_a_session(
    reach: Reach, owner: User, colleague: User, administrator: User, member: User, stranger: User
) -> None:
    session = reach(S.ACTIVE)
    for user in (owner, colleague, administrator, member):
        assert list(selectors.sessions_for(user)) == [session]
        assert list(selectors.open_sessions_for(user)) == [session]
    assert not selectors.sessions_for(stranger).exists()


def test_a_list_costs_one_query(
    reach: Reach, owner: User, make_device: Any, site: Any, django_assert_num_queries: Any
) -> None:
    for _ in range(3):
        reach(S.REQUESTED, device=make_device(site))
    with django_assert_num_queries(1):
        for session in selectors.sessions_for(owner):
            assert session.device.site.name
            assert session.device.product_line.name
            assert session.specialist.username
            assert session.state_label
            assert session.level_label
            assert session.reason_label
            assert session.state_reason_label == ""


def test_two_sides_that_agree(reach: Reach, injector: Injector) -> None:
    session = reach(S.ENDED)
    device_records(injector, session, *whole_story(session))
    timeline = selectors.timeline(session)
    assert timeline.agree
    assert timeline.complete
    assert [e.side for e in timeline.entries].count("device") == 4
    assert [e.side for e in timeline.entries].count("server") == 8
    assert timeline.entries == sorted(timeline.entries, key=lambda e: (e.at, e.side, e.index))


def test_a_session_the_device_never_saw(reach: Reach, owner: User, now: datetime) -> None:
    session = reach(S.REQUESTED)
    services.end(actor=owner, session=session, now=now)
    assert selectors.timeline(session).agree


@pytest.mark.parametrize(
    ("state", "story", "difference"),
    [
        (S.ENDED, [], "device_silent"),
        (S.ENDED, slice(0, 3), "device_open"),
        (S.ACTIVE, slice(0, 4), "server_open"),
        (S.ENDED, [("session:challenge", "f" * 64), ("session:end", "f" * 64)], "request"),
        (S.ENDED, [("session:answer", "f" * 64)], "answer"),
        (S.ENDED, slice(0, 2), "start"),
    ],
)
def test_two_sides_that_differ(
    reach: Reach, injector: Injector, state: SessionState, story: Any, difference: str
) -> None:
    session = reach(state)
    steps = whole_story(session)[story] if isinstance(story, slice) else story
    device_records(injector, session, *steps)
    timeline = selectors.timeline(session)
    assert difference in timeline.differences
    assert not timeline.agree


def altered(row: Entry | DeviceEntry) -> None:
    row.entry = {**row.entry, "actor": "nobody"}
    row.save()


def test_an_altered_or_missing_entry_is_named(reach: Reach, injector: Injector) -> None:
    session = reach(S.ENDED)
    device_records(injector, session, *whole_story(session))
    altered(DeviceEntry.objects.get(index=2))
    altered(Entry.objects.get(index=3))
    timeline = selectors.timeline(session)
    assert (timeline.device_bad, timeline.server_bad) == (2, 3)
    assert not timeline.agree
    Entry.objects.get(index=3).delete()
    assert selectors.timeline(session).server_bad == 3


def test_a_long_stretch_is_verified_as_far_as_it_goes(
    reach: Reach, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = reach(S.ENDED)
    monkeypatch.setattr(selectors, "MAX_VERIFIED", 3)
    timeline = selectors.timeline(session)
    assert timeline.server_bad is None
    assert not timeline.complete


def test_the_timeline_does_not_grow_in_queries(
    reach: Reach, injector: Injector, django_assert_num_queries: Any
) -> None:
    session = reach(S.ENDED)
    device_records(injector, session, *whole_story(session))
    with django_assert_num_queries(4):
        selectors.timeline(session)


def test_the_report(reach: Reach, injector: Injector, now: datetime) -> None:
    session = reach(S.ACTIVE)
    report = selectors.report(session, now=now + timedelta(minutes=5))
    assert (report.waited, report.lasted) == (timedelta(0), timedelta(minutes=5))
    assert (report.approved_by, report.presence_proved) == ("approver-1", True)
    assert not report.refused


def test_the_report_of_a_refusal(reach: Reach) -> None:
    report = selectors.report(reach(S.REFUSED))
    assert report.refused
    assert (report.waited, report.lasted, report.approved_by) == (None, None, None)
    assert not report.presence_proved
