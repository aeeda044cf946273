"""Which jobs and executions a person sees (R-ACC-2)."""

from collections.abc import Callable
from typing import Any

from agent.wire.catalogue import ExecutionState
from fleet.accounts.models import User
from fleet.accounts.permissions import Action
from fleet.inventory.models import Device
from fleet.jobs import selectors
from fleet.jobs.models import Execution, Job

S = ExecutionState


def test_counts_are_of_what_one_may_see(
    queue: Callable[..., Job],
    device: Device,
    other_device: Device,
    owner: User,
    member: User,
    stranger: User,
) -> None:
    job = queue(devices=[device, other_device])
    Execution.objects.filter(device=device).update(
        state=S.SUCCEEDED.value, bundle_path="bundles/x.zip"
    )
    for user, counts in ((owner, (2, 1, 1)), (member, (1, 0, 1)), (stranger, (1, 1, 0))):
        row: Any = selectors.jobs_for(user).get()
        assert row == job
        assert (row.total, row.open, row.succeeded) == counts


def test_a_stranger_sees_no_job(
    reach: Callable[..., Execution], stranger: User, member: User
) -> None:
    reach(S.QUEUED)
    assert not selectors.jobs_for(stranger).exists()
    assert not selectors.executions_for(stranger).exists()
    assert selectors.executions_for(member).count() == 1
    assert not selectors.executions_for(member, Action.BUNDLE_DOWNLOAD).exists()


def test_a_list_costs_one_query_and_reads_no_keys(
    queue: Callable[..., Job],
    device: Device,
    other_device: Device,
    owner: User,
    django_assert_num_queries: Any,
) -> None:
    queue(devices=[device, other_device])
    with django_assert_num_queries(1):
        for execution in selectors.executions_for(owner):
            assert execution.device.site.name
            assert execution.job.created_by.username
            assert execution.job.kind_label
            assert execution.state_label
            assert execution.reason_label == ""
            assert "private_key" in execution.get_deferred_fields()
