"""The roster's end is told while somebody can still sign another (R-ACC-9)."""

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from django.test import Client

from fleet.access import endings
from fleet.access.models import Roster
from fleet.accounts.models import User
from tests.fleet.access.test_rosters import take_in


@pytest.mark.parametrize(
    ("left", "priority", "says"),
    [
        (timedelta(days=2, minutes=1), "M", "48 hours left"),
        (timedelta(hours=1, minutes=1), "H", "1 hour left"),
        (timedelta(seconds=-1), "H", "Over since"),
    ],
)
def test_it_is_told_in_time(
    db: None, now: datetime, left: timedelta, priority: str, says: str
) -> None:
    take_in(1, now)
    end = now + timedelta(days=7)
    (ending,) = endings.standing(end - left)
    assert (ending.priority, says in ending.when) == (priority, True)
    assert ending.command == "manage.py roster import roster.json"


def test_while_it_lasts_there_is_nothing_to_say(db: None, now: datetime) -> None:
    assert endings.standing(now) == []
    take_in(1, now)
    assert endings.standing(now) == []
    assert endings.warnings() == []


def test_only_who_runs_the_portal_reads_it(
    db: None,
    administrator: User,
    owner: User,
    member: User,
    browser: Callable[[User], Client],
    monkeypatch: pytest.MonkeyPatch,
    now: datetime,
) -> None:  # fmt: skip
    take_in(1, now)
    monkeypatch.setattr(endings.clock, "now", lambda: now + timedelta(days=6, hours=1))
    assert endings.warnings() == ["roster_soon"]
    monkeypatch.undo()
    Roster.objects.update(expires_at=now + timedelta(hours=5))
    for user, sees in ((administrator, True), (owner, False), (member, False)):
        shown = browser(user).get("/").content.decode()
        assert ("The roster of specialists" in shown) is sees
