"""What injectors say about executions: every arrow, lies, repeats, races (R-MNT-3)."""

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest

from agent.wire import messages as m
from agent.wire.bundle import MAX_BUNDLE
from agent.wire.catalogue import (
    EXECUTION_TRANSITIONS,
    ExecutionState,
    JobReason,
    RefusalReason,
)
from fleet.accounts.models import User
from fleet.audit.models import Entry
from fleet.core.errors import MessageRefused
from fleet.inventory.models import Device
from fleet.jobs import inbound, outbound, services
from fleet.jobs.models import Execution
from fleet.jobs.wanted import wanted
from tests.conftest import Ports
from tests.fleet.jobs.injector import Injector, bundle_for

S = ExecutionState
R = RefusalReason
Reach = Callable[..., Execution]


def refused(call: Callable[..., object], *args: Any, **kwargs: Any) -> RefusalReason:
    with pytest.raises(MessageRefused) as caught:
        call(*args, **kwargs)
    return caught.value.reason


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, str]]]:
    """What the receiver would hear."""
    calls: list[tuple[str, str]] = []
    for name in ("want", "drop", "remind"):
        monkeypatch.setattr(wanted, name, lambda pk, name=name: calls.append((name, pk)))
    yield calls


@pytest.mark.parametrize("before", list(S))
def test_every_update_in_every_state(
    reach: Reach, injector: Injector, before: ExecutionState
) -> None:
    execution = reach(before)
    for said in S:
        row = Execution.objects.filter(pk=execution.pk)
        original = row.values().get()
        legal = (
            before.over
            or said is before
            or (said in EXECUTION_TRANSITIONS[before] and said is not S.SUCCEEDED)
        )
        if legal:
            injector.says(execution, said)
            assert row.get().state == (before if before.over else said)
        else:
            assert refused(injector.says, execution, said) is R.ILLEGAL_TRANSITION
            assert row.get().state == before
        row.update(**original)
        execution.refresh_from_db()


def test_the_whole_way_is_audited(reach: Reach) -> None:
    execution = reach(S.SUCCEEDED)
    rows = Entry.objects.filter(execution=execution.pk).order_by("index")
    assert [(row.action, row.entry["actor"]) for row in rows] == [
        ("job:create", "owner"),
        ("job:run", "device-0001"),
        ("job:succeed", "device-0001"),
    ]
    assert rows[2].entry["digest"] == execution.bundle_digest
    assert bytes(execution.private_key) == b""


def test_deferred_while_in_use(reach: Reach, injector: Injector) -> None:
    execution = reach(S.SENT)
    version = execution.version
    injector.says(execution, S.SENT, JobReason.IN_USE)
    assert (execution.state, execution.reason) == (S.SENT, "in_use")
    assert execution.version == version + 1
    injector.says(execution, S.SENT, JobReason.IN_USE)
    assert execution.version == version + 1
    injector.says(execution, S.RUNNING)
    assert execution.reason == ""


def test_accepted(reach: Reach, injector: Injector, owner: User, now: datetime) -> None:
    execution = reach(S.QUEUED)
    assert refused(injector.says_accepted, "job", execution, b"other") is R.UNKNOWN_REFERENCE
    injector.says_accepted("job", execution, bytes(execution.message))
    assert (execution.state, execution.accepted_at) == (S.SENT, now)
    injector.says_accepted("job", execution, bytes(execution.message))
    services.cancel(actor=owner, execution=execution, now=now)
    assert execution.cancel_owed
    injector.says_accepted("cancel", execution, b"")
    assert not execution.cancel_owed


def test_another_devices_execution(reach: Reach, injector: Injector, other_device: Device) -> None:
    execution = reach(S.RUNNING)
    execution.device = other_device
    assert refused(injector.says, execution, S.FAILED) is R.UNKNOWN_REFERENCE
    assert refused(injector.says_accepted, "cancel", execution, b"") is R.UNKNOWN_REFERENCE
    execution.pk = "f" * 32
    assert refused(injector.says, execution, S.FAILED) is R.UNKNOWN_REFERENCE
    assert Execution.objects.get().state == S.RUNNING


# --- bundles ------------------------------------------------------------------------------------


def test_an_announced_bundle_is_wanted_once_it_is_committed(
    transactional_db: None, reach: Reach, injector: Injector, heard: list[tuple[str, str]]
) -> None:
    execution = reach(S.SENT)
    data = bundle_for(execution, samples=1)
    injector.announces(execution, data)
    assert heard == [("want", execution.pk)]
    assert (execution.state, execution.bundle_size) == (S.RUNNING, len(data))
    version = execution.version
    injector.announces(execution, data)  # the job came again: the same bundle is still wanted
    assert heard == [("want", execution.pk)] * 2
    assert execution.version == version
    injector.says(execution, S.FAILED, JobReason.DISK_FULL)
    assert heard[-1] == ("drop", execution.pk)


@pytest.mark.parametrize("size", [0, MAX_BUNDLE + 1, 2**53 - 1])
def test_a_bundle_of_no_size_or_too_much_fails_at_once(
    transactional_db: None,
    reach: Reach,
    injector: Injector,
    heard: list[tuple[str, str]],
    ports: Ports,
    size: int,
) -> None:
    execution = reach(S.SENT)
    injector.announces(execution, b"x", size=size)
    assert (execution.state, execution.reason) == (S.FAILED, JobReason.TOO_LARGE)
    assert ("want", execution.pk) not in heard
    assert ports.sent[-1] == (execution.device_id, m.Cancel(execution=execution.pk))


def test_a_key_and_a_bundle_come_together_and_while_running(
    reach: Reach, injector: Injector
) -> None:
    execution = reach(S.RUNNING)
    bundle = m.Bundle(digest="d" * 64, size=5)
    for state, fields in (
        (S.RUNNING, {"key": bytes(32)}),
        (S.RUNNING, {"bundle": bundle}),
        (S.FAILED, {"key": bytes(32), "bundle": bundle}),
    ):
        assert refused(injector.says, execution, state, **fields) is R.MALFORMED


def test_success_is_the_bundle_not_the_devices_word(reach: Reach, injector: Injector) -> None:
    execution = reach(S.RUNNING)
    assert refused(injector.says, execution, S.SUCCEEDED) is R.ILLEGAL_TRANSITION


def test_the_devices_word_after_the_bundle_changes_nothing(
    reach: Reach, injector: Injector
) -> None:
    execution = reach(S.SUCCEEDED)
    version = execution.version
    injector.says(execution, S.SUCCEEDED)
    assert (execution.version, execution.cancel_owed) == (version, False)
    assert outbound.pending(execution.device) == []


def test_a_device_that_goes_on_after_the_end_is_told_again(
    transactional_db: None, reach: Reach, injector: Injector, ports: Ports
) -> None:
    execution = reach(S.CANCELLED)
    cancel = m.Cancel(execution=execution.pk)
    injector.says_accepted("cancel", execution, m.encode(cancel))
    ports.sent.clear()
    injector.says(execution, S.RUNNING)
    assert execution.state == S.CANCELLED
    assert ports.sent == [(execution.device_id, cancel)]
    assert outbound.pending(execution.device) == [cancel]
    injector.says(execution, S.CANCELLED)
    assert outbound.pending(execution.device) == []


def test_a_running_job_is_sent_again_to_a_device_that_connects(reach: Reach) -> None:
    """So that one that restarted offers its bundle again."""
    execution = reach(S.RUNNING)
    [owed] = outbound.pending(execution.device)
    assert m.encode(owed) == bytes(execution.message)


def test_the_tick_reminds_of_bundles_that_are_due(
    transactional_db: None,
    reach: Reach,
    injector: Injector,
    heard: list[tuple[str, str]],
    device: Device,
    now: datetime,
) -> None:
    execution = reach(S.RUNNING)
    services.tick(now)
    assert heard == []
    injector.announces(execution, bundle_for(execution, samples=1))
    heard.clear()
    services.tick(now)
    assert heard == [("remind", execution.pk)]
    Device.objects.update(online=False)
    services.tick(now)
    assert heard == [("remind", execution.pk)]


def test_inbound_refuses_what_it_was_not_sent(reach: Reach, injector: Injector) -> None:
    execution = reach(S.QUEUED)
    message = m.Accepted(**injector.stamp(), of="end", ref=execution.pk, digest="d" * 64)
    assert refused(inbound.accepted, execution.device, message, injector.now) is (
        R.UNKNOWN_REFERENCE
    )
