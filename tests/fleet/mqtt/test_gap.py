"""Numbers that are missing in a device's outbox are noticed, asked for, and told when they are lost
(R-CON-5)."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError

from agent.wire.catalogue import EVENT_PRIORITY, EventCode, EventPhase
from agent.wire.messages import Event as EventMessage
from fleet.accounts.models import User
from fleet.audit.models import Entry
from fleet.core import clock
from fleet.enrolment import ca, limits
from fleet.inventory.models import Device, ProductLine, Site
from fleet.mqtt.models import Decision, Outbox
from fleet.mqtt.queue import IngestQueue
from fleet.telemetry.models import Event
from tests.conftest import Ports
from tests.fleet.mqtt.test_ingest import make_writer
from tests.fleet.mqtt.test_server import in_thread, until
from tests.fleet.mqtt.wire import Sender
from tests.whole import WITHIN_S, whole

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def sender(device: Device) -> Sender:
    return Sender(device.pk)


def _alarms() -> list[str]:
    return [each.entry["reason"] for each in Entry.objects.filter(action="outbox:gap")]


def _decided() -> list[int]:
    return sorted(seq for seq in Decision.objects.values_list("seq", flat=True) if seq is not None)


def test_what_is_missing_is_asked_for_once_and_heals_without_an_alarm(
    sender: Sender, ports: Ports
) -> None:
    writer = make_writer()
    writer.settle([sender.event(seq=seq) for seq in (1, 2, 5, 6)])
    assert sender.acked == [0, 1]
    assert ports.kicked == [sender.device]
    assert Outbox.objects.get().high == 2
    writer.settle([sender.hello(high=6)])
    writer.settle([sender.event(seq=seq) for seq in (3, 4, 5, 6)])
    assert _decided() == [1, 2, 3, 4, 5, 6]
    assert Event.objects.count() == 6
    assert (len(ports.kicked), _alarms()) == (1, [])


def test_what_the_device_no_longer_has_is_an_alarm_and_the_outbox_goes_on(
    sender: Sender, ports: Ports
) -> None:
    writer = make_writer()
    writer.settle([sender.event(seq=1), sender.event(seq=4)])
    writer.settle([sender.hello(high=5), sender.event(seq=4), sender.event(seq=5)])
    assert _decided() == [1, 4, 5]
    assert (len(ports.kicked), _alarms()) == (1, ["lost"])
    writer.settle([sender.event(seq=6)])
    assert _alarms() == ["lost"]


def test_only_a_device_that_heard_the_mark_can_say_that_something_is_lost(
    sender: Sender, ports: Ports
) -> None:
    """What is left of the old connection proves nothing."""
    make_writer().settle([sender.event(seq=seq) for seq in (1, 4, 5, 6, 7)])
    assert _decided() == [1]
    assert (len(ports.kicked), _alarms()) == (1, [])


def test_another_gap_is_asked_for_again(sender: Sender, ports: Ports) -> None:
    writer = make_writer()
    for first in (1, 11):
        writer.settle([sender.event(seq=first), sender.event(seq=first + 2)])
        writer.settle([sender.hello()])
        writer.settle([sender.event(seq=seq) for seq in range(first + 1, first + 10)])
    assert _decided() == list(range(1, 21))
    assert (len(ports.kicked), _alarms()) == (2, [])


def test_after_a_rollback_the_device_is_asked(
    sender: Sender, ports: Ports, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fleet.mqtt.book import Book

    writer, save, tries = make_writer(), Book.save, []

    def once(book: Book) -> None:
        tries.append(book)
        if len(tries) == 2:
            raise OperationalError("the disk is away")
        save(book)

    monkeypatch.setattr(Book, "save", once)
    writer.settle([sender.event(seq=1)])
    writer.settle([sender.event(seq=3)])
    assert len(tries) == 3
    assert ports.kicked == [sender.device]
    writer.settle([sender.hello()])
    writer.settle([sender.event(seq=2), sender.event(seq=3)])
    assert _decided() == [1, 2, 3]


def test_an_outbox_of_which_nothing_is_known_begins_anywhere(sender: Sender, ports: Ports) -> None:
    make_writer(IngestQueue()).settle([sender.event(seq=40), sender.event(seq=41)])
    assert _decided() == [40, 41]
    assert (ports.kicked, _alarms()) == ([], [])


@pytest.fixture
def here(
    tmp_path: Path,
    settings: Any,
    owner: User,
    colleague: User,
    product_line: ProductLine,
    site: Site,
) -> Iterator[Any]:
    interval = sys.getswitchinterval()
    limits.enrolments.clear()
    ca.init(now=clock.now())
    yield whole(tmp_path, settings, people=(owner, colleague), line=product_line, site=site)
    sys.setswitchinterval(interval)


async def test_a_message_that_vanished_on_the_way_comes_after_all(here: Any) -> None:
    """With a whole agent at the real gate: its connection loses one message of six."""
    async with here as running:
        agent = running.first.agent
        link = agent._connection._link
        publish, vanished = link.publish, []

        def lossy(topic: str, payload: bytes, token: object = None, **options: Any) -> None:
            if "/up/event/" in topic and not vanished and token is not None:
                vanished.append(token)
                return
            publish(topic, payload, token, **options)

        link.publish = lossy
        made = []
        for code in (102, 103, 104, 105, 106, 201):
            named = EventCode(code)
            raised = {"priority": EVENT_PRIORITY[named], "phase": EventPhase.RAISED}
            made.append(await agent.emit(EventMessage, code=named, **raised))
        wanted = {each.seq for each in made}
        assert vanished

        def there() -> bool:
            rows = Event.objects.filter(outbox=agent.outbox.id, seq__in=wanted)
            return set(rows.values_list("seq", flat=True)) == wanted

        await until(there, WITHIN_S)
        assert await in_thread(_alarms) == []
