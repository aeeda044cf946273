"""Certificates of ours that end: told in time, wherever people and programs look.

Requirements: R-CON-5, R-CON-6.
"""

import logging
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.core.management import call_command
from prometheus_client import REGISTRY

from fleet.accounts.models import User
from fleet.core import clock
from fleet.enrolment import ca, endings
from fleet.enrolment.endings import Ending, Endings
from fleet.servers import services
from tests.fleet.servers.making import add

pytestmark = pytest.mark.django_db


@pytest.fixture
def made() -> datetime:
    now = clock.now()
    ca.init(now=now, hosts=["portal.example.org", "192.0.2.1"])
    return now


def _said(now: datetime) -> list[tuple[str, str]]:
    return [(each.what, each.urgency.value) for each in endings.standing(now)]


def test_nothing_is_said_before_there_is_anything() -> None:
    assert endings.standing(clock.now()) == []
    Endings().look(clock.now())


def test_the_portals_own_certificate(made: datetime) -> None:
    end = made + ca.SERVER_LIFE
    assert _said(end - timedelta(days=61)) == []
    assert _said(end - timedelta(days=59)) == [("server", "soon")]
    assert _said(end - timedelta(days=13)) == [("server", "urgent")]
    assert _said(end + timedelta(days=1)) == [("server", "over")]


def test_its_command_makes_the_same_names_again(made: datetime) -> None:
    [ending] = endings.standing(made + ca.SERVER_LIFE - timedelta(days=3))
    program, action, *options = ending.command.split()
    assert program == "manage.py"
    assert options == [
        "renew-server", "--host", "portal.example.org", "--host", "192.0.2.1",
    ]  # fmt: skip
    before = ca.pem("server")
    call_command(action, *options)
    assert ca.pem("server") != before
    [again] = [each for each in endings.own(made) if each.what == endings.SERVER]
    assert again.command == ending.command


def test_an_authority_is_replaced_before_what_it_issues_would_outlive_it(made: datetime) -> None:
    end = made + ca.INTERMEDIATE_LIFE
    ca.issue_server(hosts=["localhost"], now=end - timedelta(days=120))
    assert _said(end - timedelta(days=91)) == []
    assert _said(end - timedelta(days=89)) == [("device_ca", "soon")]
    assert _said(end - timedelta(days=29)) == [("device_ca", "over")]
    [ending] = endings.standing(end - timedelta(days=40))
    assert ending.command == "manage.py ca request -o device-ca.csr"
    assert "docs/ca.md" in ending.remedy


@pytest.fixture
def east(administrator: User, made: datetime) -> datetime:
    """An access server whose certificates end in ten days."""
    add(administrator, "east")
    end = made + timedelta(days=10, hours=1)
    services.note_health(
        "east", linked=True, trouble="", devices=0, now=made, certificates_end_at=end
    )
    return end


def test_of_an_access_server(east: datetime, made: datetime) -> None:
    [ending] = endings.standing(made)
    assert (ending.name, ending.priority) == ("east", "H")
    assert ending.when == f"Until {east:%Y-%m-%d}: 10 days left."
    assert endings.warnings() == ["certificate_urgent:access_server"]
    # A link that is down says nothing, and takes nothing back.
    services.note_health("east", linked=False, trouble="tls", devices=0, now=made)
    assert endings.standing(made) == [ending]


def test_the_log_says_it_once_a_day_and_the_metrics_always(
    east: datetime, made: datetime, caplog: pytest.LogCaptureFixture
) -> None:
    tick = Endings()
    for minutes in range(5):
        tick.look(made + timedelta(seconds=minutes))
    [record] = [r for r in caplog.records if r.name == "fleet.enrolment.endings"]
    assert record.levelno == logging.ERROR
    assert "access server east" in record.getMessage()
    assert "manage.py access-server bundle east --out east" in record.getMessage()
    labels = {"certificate": "access_server", "server": "east"}
    assert REGISTRY.get_sample_value("patency_certificate_end_seconds", labels) == (
        east.timestamp()
    )
    labels = {"certificate": "server", "server": ""}
    shown: Any = REGISTRY.get_sample_value("patency_certificate_end_seconds", labels)
    assert shown == pytest.approx((made + ca.SERVER_LIFE).timestamp(), abs=1)


def test_words_for_one_day_and_for_the_past(made: datetime) -> None:
    def when(left: timedelta) -> str:
        return Ending(endings.SERVER, "", made + left, "", made).when

    assert when(timedelta(days=1, hours=2)).endswith(": 1 day left.")
    assert when(timedelta(hours=2)).endswith(": 0 days left.")
    assert when(-timedelta(hours=30)).startswith("Over since")
