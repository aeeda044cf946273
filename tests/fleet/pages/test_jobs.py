"""Jobs in a browser: made for one or for a filter, followed, cancelled, downloaded (R-MNT-3)."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from django.test import Client
from pytest_django import DjangoAssertNumQueries
from rest_framework.test import APIClient

from agent.wire.catalogue import ExecutionState
from fleet.accounts.models import User
from fleet.audit.models import Entry
from fleet.core import clock
from fleet.inventory.models import Device, Site
from fleet.jobs.models import Execution, Job
from fleet.jobs.transitions import move

JOB = {"kind": "collect-diagnostics", "hours": "24"}


def test_a_job_for_one_injector(
    device: Device, owner: User, browser: Callable[[User], Client]
) -> None:
    client = browser(owner)
    page = client.get(f"/jobs/new/?device={device.pk}").content.decode()
    assert "New job for SN-TEST" in page
    response = client.post("/jobs/new/", {**JOB, "device": device.pk})
    job = Job.objects.get()
    assert response.headers["Location"] == f"/jobs/{job.pk}/"
    assert [e.device_id for e in job.executions.all()] == [device.pk]


def test_a_job_for_what_a_filter_finds(
    device: Device,
    make_device: Callable[..., Device],
    site: Site,
    owner: User,
    browser: Callable[[User], Client],
) -> None:
    make_device(site, serial="SN-AWAY", online=False)
    client = browser(owner)
    headers = {"HX-Request": "true", "HX-Target": "targets"}
    preview = client.get("/jobs/new/?online=yes", headers=headers).content.decode()
    assert "SN-TEST" in preview
    assert "SN-AWAY" not in preview
    client.post("/jobs/new/", {**JOB, "online": "yes"})
    job = Job.objects.get()
    assert job.filter == {"online": "yes"}
    assert [e.device.serial for e in job.executions.all()] == ["SN-TEST"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hours": "5000"}, "Select a valid choice"),
        ({"kind": "format-disk"}, "Select a valid choice"),
        ({"q": "nothing like this"}, "Choose at least one"),
        ({"device": "not-there"}, "Choose at least one"),
        ({"devices": "zz"}, "This form has no “devices”"),
        ({"online": "zz"}, "yes or no"),
        ({"state": "zz"}, "no such state"),
        ({"site": "zz"}, "no such site"),
        ({"product_line": "zz"}, "no such product line"),
        ({"once": "zz"}, "This form has been changed"),
    ],
)
def test_a_wrong_job_is_told_and_not_made(
    change: dict[str, str],
    said: str,
    device: Device,
    owner: User,
    browser: Callable[[User], Client],
) -> None:
    response = browser(owner).post("/jobs/new/", {**JOB, **change})
    assert response.status_code == 400
    assert said in response.content.decode()
    assert not Job.objects.exists()


def test_a_form_sent_twice_makes_one_job(
    device: Device, owner: User, browser: Callable[[User], Client]
) -> None:
    client = browser(owner)
    page = client.get(f"/jobs/new/?device={device.pk}").content.decode()
    found = re.search(r'name="once" value="([0-9a-f]{32})"', page)
    assert found is not None
    sent = {**JOB, "device": device.pk, "once": found[1]}
    answers = [client.post("/jobs/new/", sent) for _time in range(2)]
    assert answers[0].headers["Location"] == answers[1].headers["Location"]
    assert Job.objects.count() == 1
    other = client.post("/jobs/new/", {**sent, "hours": "1"})
    assert other.status_code == 409
    assert "has made a job already" in other.content.decode()
    assert Job.objects.count() == 1
    assert found[1] not in client.get("/jobs/new/").content.decode()


def test_the_page_follows_its_executions(
    execution: Execution, owner: User, member: User, browser: Callable[[User], Client]
) -> None:
    path = f"/jobs/{execution.job_id}/"
    text = browser(owner).get(path).content.decode()
    assert f"execution.{execution.pk}" in text
    assert "Queued" in text
    assert f"/executions/{execution.pk}/cancel/" in text
    assert "/cancel/" not in browser(member).get(path).content.decode()
    part = browser(owner).get(path, headers={"HX-Request": "true", "HX-Target": "job"})
    assert "<html" not in part.content.decode()


def test_cancelling(
    execution: Execution, owner: User, member: User, browser: Callable[[User], Client]
) -> None:
    path = f"/executions/{execution.pk}/cancel/"
    assert browser(member).post(path).status_code == 404
    assert browser(owner).get(path).status_code == 405
    assert browser(owner).post(path).status_code == 302
    execution.refresh_from_db()
    assert execution.state == ExecutionState.CANCELLED


def test_downloading_a_bundle_is_recorded(
    execution: Execution,
    owner: User,
    member: User,
    browser: Callable[[User], Client],
    api: Callable[[User], APIClient],
    portal_data: Path,
) -> None:
    path = f"/executions/{execution.pk}/bundle/"
    early = browser(owner).post(path)
    assert early.status_code == 409
    assert "no bundle yet" in early.content.decode()

    now = clock.now()
    Execution.objects.filter(pk=execution.pk).update(bundle_size=3, bundle_digest="0f" * 32)
    move(execution, ExecutionState.RUNNING, actor="x", now=now)
    name = f"bundles/{execution.pk}.zip"
    move(execution, ExecutionState.SUCCEEDED, actor="x", now=now, bundle_path=name)
    (portal_data / "bundles").mkdir(parents=True)
    (portal_data / name).write_bytes(b"zip")

    response = browser(owner).post(path)
    assert b"".join(response.streaming_content) == b"zip"  # type: ignore[attr-defined]
    named = response.headers["Content-Disposition"]
    assert "SN-TEST" in named
    again = api(owner).get(f"/api/v1{path}")
    assert again.headers["Content-Disposition"] == named
    b"".join(again.streaming_content)  # type: ignore[attr-defined]  # which closes the file
    assert Entry.objects.filter(action="bundle:download", execution=execution.pk).count() == 2
    assert browser(member).post(path).status_code == 404


def test_the_list_does_not_ask_more_for_more(
    device: Device,
    owner: User,
    browser: Callable[[User], Client],
    django_assert_max_num_queries: DjangoAssertNumQueries,
) -> None:
    client = browser(owner)
    for _each in range(4):
        client.post("/jobs/new/", {**JOB, "device": device.pk})
    with django_assert_max_num_queries(6):
        assert client.get("/jobs/").content.decode().count('<tr id="row-') == 4
