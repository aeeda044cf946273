"""The API of jobs, executions and bundles, with the owner, a member and a stranger (R-MNT-3)."""

import io
import zipfile
from collections.abc import Callable
from typing import Any

import pytest
from rest_framework.test import APIClient

from agent.wire.catalogue import ExecutionState
from fleet.accounts.models import User
from fleet.audit.models import Entry
from fleet.inventory.models import Device
from fleet.jobs import bundles
from fleet.jobs.models import Execution, Job

S = ExecutionState
Api = Callable[[User], APIClient]
Reach = Callable[..., Execution]
JOBS, EXECUTIONS = "/api/v1/jobs/", "/api/v1/executions/"
KIND = "collect-diagnostics"


def create(client: APIClient, **body: Any) -> Any:
    return client.post(JOBS, {"kind": KIND, **body}, format="json")


def test_a_job_for_named_devices(api: Api, owner: User, device: Device) -> None:
    answer = create(api(owner), devices=[device.pk], hours=6)
    assert answer.status_code == 201
    body = answer.json()
    assert set(body) == {
        "job", "kind", "hours", "created_by", "created_at", "not_after", "executions",
    }  # fmt: skip
    [execution] = body["executions"]
    assert set(execution) == {
        "execution", "job", "device", "serial", "state", "reason", "bundle", "bundle_size",
        "bundle_digest", "created_at", "started_at", "ended_at", "not_after", "version",
    }  # fmt: skip
    assert (execution["state"], execution["serial"]) == ("queued", "SN-TEST")
    assert (execution["bundle"], execution["reason"]) == (False, None)
    assert api(owner).get(f"{JOBS}{body['job']}/").json() == body
    assert api(owner).get(f"{EXECUTIONS}{execution['execution']}/").json() == execution


def test_a_job_for_a_filter(api: Api, owner: User, device: Device, other_device: Device) -> None:
    def chosen(**wanted: Any) -> set[str]:
        body = create(api(owner), filter=wanted).json()
        return {execution["device"] for execution in body["executions"]}

    assert chosen() == {device.pk, other_device.pk}
    assert chosen(q="SN-TEST") == {device.pk}
    assert chosen(site=other_device.site_id, online="yes") == {other_device.pk}
    assert Job.objects.order_by("created_at").last().filter == {  # type: ignore[union-attr]
        "site": other_device.site_id, "online": "yes",
    }  # fmt: skip
    answer = create(api(owner), filter={"product_line": "mr-dual"})
    assert answer.status_code == 400
    assert "No injector" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"devices": ["device-0001"], "filter": {}}, 400),
        ({"devices": []}, 400),
        ({"devices": ["device-0001"], "kind": "format-disk"}, 400),
        ({"devices": ["device-0001"], "hours": 0}, 400),
        ({"devices": ["device-0001"], "hours": 10**9}, 400),
        ({"devices": "device-0001"}, 400),
        ({"devices": ["device-0001", "device-9999"]}, 404),
        ({"filter": {"state": "sleeping"}}, 400),
        ({"filter": {"online": "perhaps"}}, 400),
        ({"filter": "all"}, 400),
    ],
)
def test_bad_input(
    api: Api, owner: User, device: Device, body: dict[str, Any], status: int
) -> None:
    answer = create(api(owner), **body)
    assert answer.status_code == status
    assert {"error", "detail"} <= set(answer.json())
    assert not Job.objects.exists()


def test_cancelling(api: Api, reach: Reach, owner: User) -> None:
    execution = reach(S.RUNNING)
    answer = api(owner).post(f"{EXECUTIONS}{execution.pk}/cancel/")
    assert answer.json()["state"] == "cancelled"
    done = reach(S.SUCCEEDED)
    assert api(owner).post(f"{EXECUTIONS}{done.pk}/cancel/").status_code == 409


def test_downloading(api: Api, reach: Reach, owner: User) -> None:
    execution = reach(S.SUCCEEDED)
    answer = api(owner).get(f"{EXECUTIONS}{execution.pk}/bundle/")
    assert answer.status_code == 200
    assert answer["Content-Type"] == "application/zip"
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert answer["Content-Disposition"].startswith('attachment; filename="SN-TEST-')
    content = b"".join(answer.streaming_content)  # type: ignore[arg-type]
    assert zipfile.ZipFile(io.BytesIO(content)).testzip() is None
    assert Entry.objects.filter(action="bundle:download").count() == 1
    running = reach(S.RUNNING)
    assert api(owner).get(f"{EXECUTIONS}{running.pk}/bundle/").status_code == 409
    (bundles.folder() / f"{execution.pk}.zip").unlink()
    assert api(owner).get(f"{EXECUTIONS}{execution.pk}/bundle/").status_code == 404


def test_the_member_sees_and_does_nothing(api: Api, reach: Reach, member: User) -> None:
    """The hospital's IT sees its jobs; it neither makes, cancels nor downloads them."""
    execution = reach(S.SUCCEEDED)
    client = api(member)
    assert client.get(JOBS).json()["results"][0]["job"] == execution.job_id
    assert client.get(f"{JOBS}{execution.job_id}/").status_code == 200
    assert client.get(f"{EXECUTIONS}{execution.pk}/").status_code == 200
    assert create(client, devices=[execution.device_id]).status_code == 403
    assert client.post(f"{EXECUTIONS}{execution.pk}/cancel/").status_code == 403
    assert client.get(f"{EXECUTIONS}{execution.pk}/bundle/").status_code == 403
    assert not Entry.objects.filter(action="bundle:download").exists()


def test_a_hospital_sees_only_its_part_of_a_job(
    api: Api,
    queue: Callable[..., Job],
    device: Device,
    other_device: Device,
    member: User,
    stranger: User,
    owner: User,
) -> None:
    job = queue(devices=[device, other_device])
    for user, devices in (
        (member, {device.pk}),
        (stranger, {other_device.pk}),
        (owner, {device.pk, other_device.pk}),
    ):
        body = api(user).get(f"{JOBS}{job.pk}/").json()
        assert {execution["device"] for execution in body["executions"]} == devices


def test_the_stranger_gets_nothing(api: Api, reach: Reach, stranger: User) -> None:
    execution = reach(S.SUCCEEDED)
    client, unknown = api(stranger), "f" * 32
    assert client.get(JOBS).json()["results"] == []
    for method, path in (
        ("get", JOBS + "{}/"),
        ("get", EXECUTIONS + "{}/"),
        ("post", EXECUTIONS + "{}/cancel/"),
        ("get", EXECUTIONS + "{}/bundle/"),
    ):
        own = execution.job_id if path.startswith(JOBS) else execution.pk
        answers = [getattr(client, method)(path.format(pk)) for pk in (own, unknown)]
        assert [answer.status_code for answer in answers] == [404, 404]
        assert answers[0].json() == answers[1].json()


def test_nobody_gets_nothing(reach: Reach) -> None:
    execution = reach(S.SUCCEEDED)
    client = APIClient()
    assert client.get(JOBS).status_code == client.post(JOBS).status_code == 401
    for path in ("", "bundle/"):
        assert client.get(f"{EXECUTIONS}{execution.pk}/{path}").status_code == 401
    assert client.post(f"{EXECUTIONS}{execution.pk}/cancel/").status_code == 401


def test_the_list_does_not_grow_in_queries(
    api: Api,
    queue: Callable[..., Job],
    device: Device,
    other_device: Device,
    owner: User,
    django_assert_max_num_queries: Any,
) -> None:
    for _ in range(3):
        queue(devices=[device, other_device])
    client = api(owner)
    with django_assert_max_num_queries(5):  # token, its use, count, jobs, executions
        assert len(client.get(JOBS).json()["results"]) == 3
