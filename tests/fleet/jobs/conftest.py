"""Executions in each of their states."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from agent.wire.catalogue import ExecutionState, JobReason
from fleet.access.hub import Hub
from fleet.accounts.models import User
from fleet.inventory.models import Device
from fleet.jobs import bundles, services
from fleet.jobs.models import Execution, Job
from tests.fleet.jobs.injector import Injector, bundle_for

S = ExecutionState


@pytest.fixture
def now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


@pytest.fixture
def hub() -> Hub:
    return Hub()


@pytest.fixture
def injector(hub: Hub, now: datetime) -> Injector:
    return Injector(hub, now)


@pytest.fixture
def queue(owner: User, device: Device, now: datetime) -> Callable[..., Job]:
    """queue(**changes): the owner creates a job for the device."""

    def make(**changes: Any) -> Job:
        fields: dict[str, Any] = {
            "actor": owner,
            "kind": "collect-diagnostics",
            "hours": 24,
            "devices": [device],
            "now": now,
        }
        return services.create(**{**fields, **changes})

    return make


@pytest.fixture
def reach(
    queue: Callable[..., Job], injector: Injector, owner: User, now: datetime
) -> Callable[..., Execution]:
    """reach(state): an execution that got to this state the legal way."""

    def make(state: ExecutionState, **changes: Any) -> Execution:
        execution = Execution.objects.select_related("device", "organisation").get(
            job=queue(**changes)
        )
        if state is S.SENT:
            injector.says_accepted("job", execution, bytes(execution.message))
        elif state is S.CANCELLED:
            services.cancel(actor=owner, execution=execution, now=now)
        elif state is S.TIMED_OUT:
            services.tick(execution.not_after)
            execution.refresh_from_db()
        elif state in (S.REJECTED, S.FAILED):
            injector.says(execution, state, JobReason.POLICY)
        elif state is S.RUNNING:
            injector.says(execution, S.RUNNING)
        elif state is S.SUCCEEDED:
            data = bundle_for(execution, samples=1)
            injector.announces(execution, data)
            attempt = bundles.begin_attempt(execution.pk)
            assert attempt is not None
            (bundles.folder() / bundles.file_name(execution.pk)).write_bytes(data)
            assert bundles.arrived(attempt, now=now)
            execution.refresh_from_db()
        return execution

    return make
