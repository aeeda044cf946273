"""Creating, cancelling, timing out, downloading (R-MNT-3)."""

import hashlib
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from agent.wire import messages as m
from agent.wire.catalogue import ExecutionState, JobKind, JobReason
from fleet.accounts.models import User
from fleet.audit.models import Entry
from fleet.core import clock
from fleet.core.errors import Conflict, Invalid, NotAllowed, NotFound
from fleet.inventory.models import Device
from fleet.jobs import bundles, outbound, services
from fleet.jobs.models import Execution, Job
from tests.conftest import Ports
from tests.fleet.jobs.injector import Injector

S = ExecutionState
Reach = Callable[..., Execution]
Queue = Callable[..., Job]


def audited(execution: Execution) -> list[tuple[str, str, str]]:
    rows = Entry.objects.filter(execution=execution.pk).order_by("index")
    return [(row.action, row.entry["actor"], row.entry["outcome"]) for row in rows]


def test_a_job_is_committed_audited_and_sent(
    transactional_db: None, queue: Queue, device: Device, ports: Ports, now: datetime
) -> None:
    job = queue(hours=48, chosen={"site": "x"})
    execution = job.executions.get()
    [(target, message)] = ports.sent
    assert target == device.pk
    assert isinstance(message, m.Job)
    assert m.encode(message) == bytes(execution.message)
    assert execution.message_digest == hashlib.sha256(bytes(execution.message)).hexdigest()
    assert (message.kind, message.hours) == (JobKind.COLLECT_DIAGNOSTICS, 48)
    assert message.not_after == clock.to_ms(now + timedelta(hours=24))
    private = X25519PrivateKey.from_private_bytes(bytes(execution.private_key))
    assert message.key == private.public_key().public_bytes_raw()
    assert (execution.state, job.filter) == (S.QUEUED, {"site": "x"})
    assert audited(execution) == [("job:create", "owner", "allowed")]
    assert [group for group, _payload in ports.hints] == [
        f"execution.{execution.pk}", f"device.{device.pk}", "organisation.north",
    ]  # fmt: skip


def test_a_job_for_several_devices(queue: Queue, device: Device, other_device: Device) -> None:
    job = queue(devices=[device, other_device])
    first, second = job.executions.order_by("device_id")
    assert (first.organisation_id, second.organisation_id) == ("north", "sud")
    assert bytes(first.private_key) != bytes(second.private_key)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"devices": []}, "No injector"),
        ({"hours": 0}, "1 to 168"),
        ({"hours": 169}, "1 to 168"),
        ({"kind": "format-disk"}, "collect-diagnostics"),
    ],
)
def test_bad_input(queue: Queue, ports: Ports, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(Invalid, match=says):
        queue(**changes)
    assert not Job.objects.exists()
    assert not Entry.objects.exists()


def test_a_device_is_named_once(
    queue: Queue, device: Device, monkeypatch: pytest.MonkeyPatch, other_device: Device
) -> None:
    with pytest.raises(Invalid, match="each once"):
        queue(devices=[device, device])
    monkeypatch.setattr(services, "MAX_DEVICES", 1)
    with pytest.raises(Invalid, match="at most"):
        queue(devices=[device, other_device])


def test_only_people_who_may(
    queue: Queue, member: User, stranger: User, administrator: User
) -> None:
    for actor in (member, stranger):
        with pytest.raises(NotAllowed):
            queue(actor=actor)
    assert queue(actor=administrator).created_by == administrator


def test_many_devices_cost_one_transaction_and_few_queries_each(
    queue: Queue, make_device: Any, site: Any, django_assert_max_num_queries: Any
) -> None:
    devices = [make_device(site) for _ in range(10)]
    with django_assert_max_num_queries(5 + 10 * 6):  # six of each: two links of the audit
        queue(devices=devices)


@pytest.mark.parametrize("state", [s for s in S if not s.over])
def test_cancelling(
    transactional_db: None,
    reach: Reach,
    owner: User,
    ports: Ports,
    now: datetime,
    state: ExecutionState,
) -> None:
    execution = reach(state)
    ports.sent.clear()
    services.cancel(actor=owner, execution=execution, now=now)
    assert (execution.state, execution.ended_at) == (S.CANCELLED, now)
    assert bytes(execution.private_key) == b""
    assert ports.sent == [(execution.device_id, m.Cancel(execution=execution.pk))]
    assert audited(execution)[-1] == ("job:cancel", "owner", "allowed")
    assert services.cancel(actor=owner, execution=execution, now=now).version == execution.version


@pytest.mark.parametrize("state", [S.SUCCEEDED, S.FAILED, S.REJECTED, S.TIMED_OUT])
def test_what_is_over_cannot_be_cancelled(
    reach: Reach, owner: User, now: datetime, state: ExecutionState
) -> None:
    with pytest.raises(Conflict, match="over already"):
        services.cancel(actor=owner, execution=reach(state), now=now)


def test_who_may_not_cancel(reach: Reach, member: User, stranger: User, now: datetime) -> None:
    execution = reach(S.RUNNING)
    for actor in (member, stranger):
        with pytest.raises(NotAllowed):
            services.cancel(actor=actor, execution=execution, now=now)
    assert Execution.objects.get().state == S.RUNNING


@pytest.mark.parametrize("state", [s for s in S if not s.over])
def test_the_deadline(
    transactional_db: None, reach: Reach, ports: Ports, state: ExecutionState
) -> None:
    execution = reach(state)
    services.tick(execution.not_after - timedelta(seconds=1))
    execution.refresh_from_db()
    assert execution.state == state
    services.tick(execution.not_after)
    execution.refresh_from_db()
    assert (execution.state, execution.reason) == (S.TIMED_OUT, JobReason.DEADLINE)
    assert audited(execution)[-1] == ("job:time_out", "portal", "failed")
    assert outbound.pending(execution.device) == [m.Cancel(execution=execution.pk)]


def test_what_a_device_does_not_confirm_goes_out_again(
    transactional_db: None,
    reach: Reach,
    injector: Injector,
    owner: User,
    ports: Ports,
    now: datetime,
) -> None:
    execution = reach(S.QUEUED)
    ports.sent.clear()
    services.tick(now + timedelta(seconds=2))
    assert ports.sent == []
    services.tick(now + timedelta(seconds=3))
    assert [m.encode(message) for _device, message in ports.sent] == [bytes(execution.message)]
    injector.says_accepted("job", execution, bytes(execution.message))
    ports.sent.clear()
    services.tick(now + timedelta(seconds=10))
    assert ports.sent == []
    services.cancel(actor=owner, execution=execution, now=now)
    ports.sent.clear()
    services.tick(now + timedelta(seconds=3))
    cancel = m.Cancel(execution=execution.pk)
    assert ports.sent == [(execution.device_id, cancel)]
    injector.says_accepted("cancel", execution, m.encode(cancel))
    ports.sent.clear()
    services.tick(now + timedelta(seconds=10))
    assert ports.sent == []


def test_a_device_is_not_flooded_with_what_it_is_owed(
    transactional_db: None, queue: Queue, ports: Ports, now: datetime
) -> None:
    for _ in range(12):
        queue()
    ports.sent.clear()
    services.tick(now + timedelta(seconds=5))
    assert len(ports.sent) == 8


def test_a_download_is_recorded(
    reach: Reach, owner: User, administrator: User, now: datetime
) -> None:
    execution = reach(S.SUCCEEDED)
    path = services.download(actor=owner, execution=execution, now=now)
    assert path == bundles.folder() / f"{execution.pk}.zip"
    assert path.stat().st_size == execution.bundle_size
    assert audited(execution)[-1] == ("bundle:download", "owner", "allowed")
    services.download(actor=administrator, execution=execution, now=now)
    assert audited(execution)[-1] == ("bundle:download", "admin", "allowed")


def test_downloads_that_cannot_be(
    reach: Reach, owner: User, member: User, stranger: User, now: datetime
) -> None:
    running = reach(S.RUNNING)
    with pytest.raises(Conflict, match="no bundle yet"):
        services.download(actor=owner, execution=running, now=now)
    execution = reach(S.SUCCEEDED)
    for actor in (member, stranger):
        with pytest.raises(NotAllowed):
            services.download(actor=actor, execution=execution, now=now)
    (bundles.folder() / f"{execution.pk}.zip").unlink()
    with pytest.raises(NotFound, match="no longer kept"):
        services.download(actor=owner, execution=execution, now=now)
    assert not Entry.objects.filter(action="bundle:download").exists()
