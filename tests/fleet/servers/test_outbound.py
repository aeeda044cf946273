"""Devices are told where to go: at hello, and when it changes. Requirements: R-CON-5, R-CON-8."""

from typing import Any

import pytest

from agent.wire.messages import Servers
from fleet.accounts.models import User
from fleet.core import clock
from fleet.inventory.models import Device
from fleet.servers import services
from fleet.servers.outbound import MOST, Told, pending
from tests.conftest import Ports
from tests.fleet.servers.making import add

KNOWS = {"servers": [1]}


@pytest.fixture
def informed(device: Device, settings: Any) -> Device:
    """`device`, of a release that reads the message."""
    settings.PATENCY_NOTICE_DAYS = 0
    device.knows = KNOWS
    device.save()
    return device


def hosts(message: Any) -> list[str]:
    assert isinstance(message, Servers)
    return [each.host for each in message.servers]


def test_at_hello_and_only_to_those_who_read_it(
    informed: Device, other_device: Device, administrator: User
) -> None:
    add(administrator, "west", position=20)
    add(administrator, "east", position=10)
    [message] = pending(informed)
    assert hosts(message) == ["east.example.org", "west.example.org"]
    assert list(pending(other_device)) == []


def test_at_most_what_the_schema_takes(informed: Device, administrator: User) -> None:
    for number in range(MOST + 1):
        add(administrator, f"s{number}")
    [message] = pending(informed)
    assert len(message.servers) == MOST  # type: ignore[attr-defined]


@pytest.mark.django_db(transaction=True)
def test_when_it_changes_those_on_line_hear_of_it_once(
    informed: Device, other_device: Device, administrator: User, ports: Ports
) -> None:
    told = Told()
    told.tell(clock.now())  # what held before this process began is told at hello
    assert ports.sent == []
    add(administrator, "east")
    told.tell(clock.now())
    told.tell(clock.now())
    [(name, message)] = ports.sent
    assert name == informed.pk
    assert hosts(message) == ["east.example.org"]
    services.set_enabled(actor=administrator, name="east", enabled=False, now=clock.now())
    told.tell(clock.now())
    assert hosts(ports.sent[-1][1]) == ["127.0.0.1"]  # none left: our own gate
