"""The one way an execution changes (R-MNT-3)."""

from collections.abc import Callable
from datetime import datetime

import pytest
from django.db import IntegrityError, transaction

from agent.wire.catalogue import ExecutionState, JobKind, JobReason
from fleet.audit.models import Entry
from fleet.jobs import labels, transitions
from fleet.jobs.ending import close
from fleet.jobs.models import Execution

S = ExecutionState
Reach = Callable[..., Execution]


def test_an_arrow_that_the_table_does_not_have(reach: Reach, now: datetime) -> None:
    execution = reach(S.RUNNING)
    with pytest.raises(transitions.IllegalTransitionError, match="running to sent"):
        transitions.move(execution, S.SENT, actor="portal", now=now)


def test_of_two_that_race_one_wins(reach: Reach, now: datetime) -> None:
    execution = reach(S.RUNNING)
    stale = Execution.objects.select_related("organisation", "device").get(pk=execution.pk)
    assert close(execution, S.CANCELLED, actor="owner", now=now)
    entries = Entry.objects.count()
    assert not close(stale, S.TIMED_OUT, actor="portal", now=now)
    assert Entry.objects.count() == entries
    assert Execution.objects.get(pk=execution.pk).state == S.CANCELLED


def test_the_database_itself_refuses_success_without_a_bundle(reach: Reach) -> None:
    execution = reach(S.RUNNING)
    with pytest.raises(IntegrityError), transaction.atomic():
        Execution.objects.filter(pk=execution.pk).update(state=S.SUCCEEDED.value)


def test_every_code_has_words_and_every_state_its_action() -> None:
    assert set(transitions.ACTIONS) == set(S)
    assert set(labels.STATES) == set(S)
    assert set(labels.REASONS) == set(JobReason)
    assert set(labels.KINDS) == set(JobKind)
