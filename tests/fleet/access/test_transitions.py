"""The one way a session changes (R-ACC-10)."""

from collections.abc import Callable
from datetime import datetime

import pytest

from agent.wire.catalogue import (
    SESSION_TRANSITIONS,
    Level,
    RequestReason,
    SessionReason,
    SessionState,
)
from fleet.access import labels, transitions
from fleet.access.models import Session
from fleet.audit.models import Entry

S = SessionState
Reach = Callable[..., Session]


def test_an_arrow_that_the_table_does_not_have(reach: Reach, now: datetime) -> None:
    session = reach(S.ACTIVE)
    with pytest.raises(transitions.IllegalTransitionError, match="active to challenged"):
        transitions.move(session, S.CHALLENGED, actor="portal", now=now)


def test_of_two_that_race_one_wins(reach: Reach, now: datetime) -> None:
    session = reach(S.PRESENCE)
    first, second = (Session.objects.get(pk=session.pk) for _ in range(2))
    assert transitions.move(first, S.REFUSED, actor="portal", now=now)
    entries = Entry.objects.count()
    assert not transitions.move(second, S.ENDED, actor="portal", now=now)
    assert (second.state, second.ended_at) == (S.PRESENCE, None)
    assert Entry.objects.count() == entries
    assert Session.objects.get(pk=session.pk).state == S.REFUSED


def test_every_state_has_its_action_and_every_wait_its_end() -> None:
    assert set(transitions.ACTIONS) == set(S)
    waits = {s for s in S if not s.over} - {S.ACTIVE}
    assert set(transitions.PATIENCE) == waits
    assert set(SESSION_TRANSITIONS) == set(S)


def test_every_code_has_words() -> None:
    assert set(labels.STATES) == set(S)
    assert set(labels.STATE_REASONS) == set(SessionReason)
    assert set(labels.LEVELS) == set(Level)
    assert set(labels.REASONS) == set(RequestReason)
