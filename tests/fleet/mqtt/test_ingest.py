"""Deciding on what devices send: once, whatever comes (R-CON-5, R-CON-8)."""

import hashlib
import sqlite3
import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import IntegrityError, OperationalError, connection, transaction
from django.utils import timezone

from agent.wire import messages
from agent.wire.catalogue import RefusalReason
from agent.wire.messages import Event as EventMessage
from agent.wire.messages import Heartbeat, Refused, Welcome
from fleet.audit.models import Entry
from fleet.core.errors import MessageRefused
from fleet.inventory.models import Device
from fleet.mqtt.handlers import HANDLERS, Together
from fleet.mqtt.ingest import Writer
from fleet.mqtt.models import Decision, Outbox
from fleet.mqtt.queue import IngestQueue
from fleet.mqtt.services import DECISIONS_FOR, forget_old_decisions
from fleet.mqtt.trouble import is_trouble
from fleet.telemetry import inbound
from fleet.telemetry.models import Condition, Event, Sample
from tests.conftest import Ports
from tests.fleet.mqtt.wire import OUTBOX, Sender

pytestmark = pytest.mark.django_db(transaction=True)


def _no_greeting(*_: object) -> None:
    return None


def make_writer(
    queue: IngestQueue | None = None, handlers: dict[Any, Any] | None = None, **fields: Any
) -> Writer:
    def acked(acks: Any) -> None:
        for ack in acks:
            ack()

    return Writer(
        IngestQueue() if queue is None else queue,
        {**HANDLERS, **(handlers or {})},
        **{"greet": _no_greeting, "acked": acked, "room": lambda: None, **fields},
    )


@pytest.fixture
def sender(device: Device) -> Sender:
    return Sender(device.pk)


def refusals(ports: Ports) -> list[tuple[int, str]]:
    return [(m.seq, m.reason.value) for _d, m in ports.sent if isinstance(m, Refused)]


def test_a_batch_is_applied_and_acknowledged(sender: Sender, ports: Ports) -> None:
    make_writer().settle([sender.event(), sender.telemetry(samples=3), sender.event(syringe="a")])
    assert sender.acked == [0, 1, 2]
    assert Event.objects.count() == 2
    assert Sample.objects.count() == 3
    assert {c.syringe for c in Condition.objects.all()} == {"", "a"}
    assert Outbox.objects.get().high == 3
    assert all(d.reason == "" for d in Decision.objects.all())
    assert not refusals(ports)
    assert ("fleet", "event") in [(group, hint["kind"]) for group, hint in ports.hints]


def test_a_cleared_event_ends_its_condition(sender: Sender) -> None:
    make_writer().settle([sender.event(), sender.event(phase="cleared")])
    assert Event.objects.count() == 2
    assert not Condition.objects.exists()


def test_the_priority_is_the_catalogues(sender: Sender) -> None:
    make_writer().settle([sender.event(code=101, priority="info")])
    assert Event.objects.get().priority == "H"


def test_the_same_message_counts_once(sender: Sender, ports: Ports) -> None:
    event = sender.event()
    writer = make_writer()
    writer.settle([event, event])  # twice in one batch
    writer.settle([event])  # and again
    assert sender.acked == [0, 0, 0]
    assert Event.objects.count() == 1
    assert Decision.objects.count() == 1
    assert not ports.sent
    assert not Entry.objects.exists()


def test_the_same_key_with_another_content_is_an_alarm(
    device: Device, sender: Sender, ports: Ports
) -> None:
    writer = make_writer()
    writer.settle([sender.event(seq=7, code=103)])
    other = sender.event(seq=7, code=201)
    writer.settle([other, other, sender.event(seq=8)])
    assert sender.acked == [0, 1, 1, 2]
    assert refusals(ports) == [(7, "key_conflict"), (7, "key_conflict")]
    assert sorted(Event.objects.values_list("seq", "code")) == [(7, 103), (8, 103)]
    alarm = Entry.objects.get()  # once, however often it comes
    assert (alarm.action, alarm.organisation_id, alarm.device) == (
        "message:key_conflict",
        device.organisation_id,
        device.pk,
    )
    kept = Decision.objects.get(reason="key_conflict")
    assert (kept.outbox, kept.seq, kept.length) == (None, None, len(other.payload))


POISON = [
    (b"", "event", 1, "malformed"),
    (b"\xff\xfe", "event", 1, "malformed"),
    (b"[" * 100_000, "event", 1, "malformed"),
    (b'{"outbox":"%s","seq":4}' % OUTBOX.encode(), "event", 1, "malformed"),
    (b'{"outbox":"%s","seq":4}' % OUTBOX.encode(), "event", 9, "unknown_version"),
    (b'{"outbox":"%s","seq":4}' % OUTBOX.encode(), "invented", 1, "unknown_type"),
    (b" " * (messages.MAX_PAYLOAD + 1), "event", 1, "too_large"),
]


@pytest.mark.parametrize(("payload", "type", "version", "reason"), POISON)
def test_poison_is_decided_and_the_outbox_behind_it_flows(
    sender: Sender, ports: Ports, payload: bytes, type: str, version: int, reason: str
) -> None:
    poison = sender.item(payload, type, version)
    make_writer().settle([sender.event(seq=3), poison, sender.event(seq=5)])
    assert sender.acked == [1, 0, 2]
    assert sorted(Event.objects.values_list("seq", flat=True)) == [3, 5]
    decision = Decision.objects.get(reason=reason)
    assert decision.type == f"{type}/{version}"
    assert decision.length == len(payload)
    keyed = b"seq" in payload
    assert decision.seq == (4 if keyed else None)
    assert refusals(ports) == ([(4, reason)] if keyed else [])
    assert Outbox.objects.get().high == 5


def test_nothing_of_a_refused_message_is_kept(
    sender: Sender, ports: Ports, caplog: pytest.LogCaptureFixture
) -> None:
    """R-PRV-1: it may hold anything, a name too; its length and digest are the whole record."""
    secret = b"Tremblay, Josephine"
    keyed = b'{"outbox":"%s","seq":4,"remark":"%s"}' % (OUTBOX.encode(), secret)
    poison = [
        sender.item(keyed, "event"),
        sender.item(secret, "telemetry"),
        sender.item(secret, "x"),
    ]
    make_writer().settle(poison)
    assert sorted(sender.acked) == [0, 1, 2]
    connection.ensure_connection()
    everything = "\n".join(connection.connection.iterdump())
    for item in poison:
        assert hashlib.sha256(item.payload).hexdigest() in everything
    for trace in (everything, caplog.text, str(ports.sent), str(ports.hints)):
        assert secret.decode() not in trace


def test_refused_again_when_it_comes_again(sender: Sender, ports: Ports) -> None:
    poison = sender.item(b'{"outbox":"%s","seq":4}' % OUTBOX.encode(), "event")
    writer = make_writer()
    writer.settle([poison])
    writer.settle([poison])
    assert refusals(ports) == [(4, "malformed"), (4, "malformed")]
    assert Decision.objects.count() == 1


def test_bad_messages_at_qos_0_leave_no_trace(sender: Sender) -> None:
    make_writer().settle([sender.item(b"?", "heartbeat", qos=0)])
    assert not Decision.objects.exists()


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (MessageRefused(RefusalReason.ILLEGAL_TRANSITION), "illegal_transition"),
        (ZeroDivisionError(), "internal"),
        (IntegrityError("once only"), "internal"),
        (OverflowError("too large for SQLite"), "internal"),
    ],
)
def test_a_failing_handler_spoils_its_own_message_only(
    sender: Sender, ports: Ports, fault: Exception, reason: str
) -> None:
    real = HANDLERS[EventMessage]

    def handler(device: Device, message: EventMessage, at: Any) -> None:
        real(device, message, at)  # what it wrote is rolled back
        device.room = "half done"
        if message.seq == 2:
            raise fault

    seen: list[str] = []

    def heartbeat(device: Device, message: Heartbeat, at: Any) -> None:
        seen.append(device.room)

    writer = make_writer(handlers={EventMessage: handler, Heartbeat: heartbeat})
    poison = sender.event(seq=2)
    hb = sender.heartbeat()
    writer.settle([sender.event(seq=1), poison, hb, sender.event(seq=3)])
    assert sorted(Event.objects.values_list("seq", flat=True)) == [1, 3]
    assert refusals(ports) == [(2, reason)]
    assert seen == ["CT 2"]  # not the copy that the failing handler changed
    assert len(sender.acked) == 4


def test_a_row_that_fails_is_applied_one_by_one_and_only_the_bad_one_refused(
    sender: Sender, ports: Ports
) -> None:
    """Events are stored by the hundred; one that cannot be must not take the others with it."""

    def picky(received: Any) -> None:
        if any(message.code == 201 for _device, message, _at in received):
            raise ValueError("not this one")
        inbound.events(received)

    writer = make_writer(handlers={EventMessage: Together(picky)})
    items = [sender.event(code=201 if n == 3 else 103) for n in range(6)]
    again = items[1]
    writer.settle([*items[:3], again, *items[3:]])
    assert sorted(sender.acked) == [0, 1, 1, 2, 3, 4, 5]
    assert sorted(Event.objects.values_list("seq", flat=True)) == [1, 2, 3, 5, 6]
    assert list(Decision.objects.exclude(reason="").values_list("seq", "reason")) == [
        (4, "internal")
    ]
    assert refusals(ports) == [(4, "internal")]
    assert Outbox.objects.get().high == 6
    writer.settle([items[3]])  # refused before, and again
    assert refusals(ports) == [(4, "internal"), (4, "internal")]


def test_a_row_ends_where_a_message_of_another_kind_comes(sender: Sender) -> None:
    """What a device says is applied in its order."""
    order: list[tuple[str, int]] = []
    writer = make_writer(
        handlers={
            EventMessage: Together(
                lambda received: order.append(("events", len(received))) or inbound.events(received)  # type: ignore[func-returns-value]
            ),
            Heartbeat: lambda device, message, at: order.append(("heartbeat", 1)),
        }
    )
    writer.settle([sender.event(), sender.event(), sender.heartbeat(), sender.event()])
    assert order == [("events", 2), ("heartbeat", 1), ("events", 1)]


def test_an_alarm_outlives_what_is_rolled_back(sender: Sender) -> None:
    def handler(device: Device, message: EventMessage, at: Any) -> None:
        Condition.objects.all().delete()
        raise MessageRefused(RefusalReason.CHAIN_BROKEN, alarm="audit:fork")

    writer = make_writer()
    writer.settle([sender.event()])
    make_writer(handlers={EventMessage: handler}).settle([sender.event(), sender.event()])
    assert Condition.objects.exists()
    assert [e.action for e in Entry.objects.all()] == ["audit:fork", "audit:fork"]


def test_a_device_that_is_not_in_the_inventory_keeps_what_it_has(
    device: Device, sender: Sender, ports: Ports
) -> None:
    ghost = Sender("ghost-0001")
    make_writer().settle([ghost.event(), sender.event()])
    assert ghost.acked == []
    assert ports.kicked == ["ghost-0001"]
    assert sender.acked == [0]


def _lock(path: str) -> sqlite3.Connection:
    other = sqlite3.connect(path, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    return other


def test_a_locked_database_delays_and_loses_nothing(sender: Sender, ports: Ports) -> None:
    """No acknowledgement while it lasts; everything once afterwards."""
    connection.ensure_connection()
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA busy_timeout=30")
    blocker = _lock(str(connection.settings_dict["NAME"]))
    writer = make_writer()
    tries: list[BaseException] = []
    in_trouble = writer._in_trouble
    original_wait = writer._stopping.wait

    def trouble(error: BaseException) -> None:
        tries.append(error)
        assert sender.acked == []
        assert not writer.healthy or len(tries) == 1
        if len(tries) == 3:
            blocker.rollback()
        in_trouble(error)
        connection.ensure_connection()
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA busy_timeout=30")

    writer._in_trouble = trouble  # type: ignore[method-assign]
    writer._stopping.wait = lambda timeout=None: original_wait(0.01)  # type: ignore[method-assign]
    writer.settle([sender.event(), sender.event()])
    blocker.close()
    assert len(tries) == 3
    assert writer.healthy
    assert sender.acked == [0, 1]
    assert Event.objects.count() == 2


def test_what_is_trouble_and_what_is_poison() -> None:
    def raised(statement: str) -> BaseException:
        try:
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute(statement)
        except Exception as error:
            return error
        raise AssertionError(statement)

    assert is_trouble(OperationalError("server closed the connection"))
    assert is_trouble(raised("SELECT * FROM missing_table"))  # the schema is behind
    assert not is_trouble(raised("SELEC"))
    assert not is_trouble(IntegrityError())
    assert not is_trouble(ValueError())


def test_the_thread_takes_writes_and_ends(sender: Sender) -> None:
    queue = IngestQueue()
    done = threading.Event()

    def acked(acks: Any) -> None:
        for ack in acks:
            ack()
        if len(sender.acked) == 20:
            done.set()

    writer = make_writer(queue, acked=acked)
    writer.start()
    worked: list[int] = []
    queue.submit("work", lambda: worked.append(1))
    for _ in range(20):
        assert queue.offer(sender.event())
    assert done.wait(10)
    writer.stop(5)
    assert not writer.alive
    assert worked == [1]
    assert Event.objects.count() == 20
    assert not queue.offer(sender.event())


def test_failing_work_does_not_stop_the_thread(sender: Sender) -> None:
    queue = IngestQueue()
    writer = make_writer(queue)
    failed = threading.Event()

    def work() -> None:
        failed.set()
        raise ZeroDivisionError

    writer.start()
    queue.submit("broken", work)
    assert failed.wait(5)
    seen = threading.Event()
    queue.submit("next", seen.set)
    assert seen.wait(5)
    writer.stop(5)


def test_hello_is_greeted_with_what_is_decided_in_its_own_batch(sender: Sender) -> None:
    greeted: list[int] = []
    writer = make_writer(greet=lambda device, message, high, at: greeted.append(high))
    writer.settle([sender.hello(), sender.event(), sender.event(), sender.hello()])
    assert greeted == [0, 2]
    device = Device.objects.get(pk=sender.device)
    assert (device.software_version, device.clinical_state) == ("4.2.1", "ready")
    assert (device.services, device.roster_version) == ({"ssh": "os"}, 3)


def test_hello_of_another_product_line_is_an_alarm(sender: Sender) -> None:
    greeted: list[int] = []
    writer = make_writer(greet=lambda *_: greeted.append(1))
    writer.settle([sender.hello(product_line="mr-dual")])
    assert not greeted
    assert Entry.objects.get().action == "device:wrong_line"


def test_welcome_carries_the_server_head_and_what_is_owed(sender: Sender, ports: Ports) -> None:
    from fleet.audit import keys
    from fleet.mqtt.greeting import greet

    keys.create()
    make_writer(greet=greet).settle(
        [sender.hello(product_line="mr-dual"), sender.event(seq=9), sender.hello()]
    )
    [welcome] = [m for _device, m in ports.sent if isinstance(m, Welcome)]
    assert (welcome.outbox, welcome.high) == (OUTBOX, 9)
    assert welcome.head is not None
    assert welcome.head.chain == "north"


def test_heartbeat_updates_the_state_and_hints(sender: Sender, ports: Ports) -> None:
    make_writer().settle([sender.heartbeat("armed"), sender.heartbeat("armed")])
    device = Device.objects.get(pk=sender.device)
    assert (device.clinical_state, device.outbox_depth) == ("armed", 4)
    groups = [group for group, hint in ports.hints if hint["kind"] == "state"]
    assert groups == ["device.device-0001", "organisation.north", "fleet"]  # once: it changed once


def test_forgotten_decisions_stay_decided(sender: Sender, ports: Ports) -> None:
    old = [sender.event() for _ in range(3)]
    writer = make_writer()
    writer.settle(old)
    Decision.objects.filter(seq__lte=2).update(decided_at=timezone.now() - 2 * DECISIONS_FOR)
    assert forget_old_decisions(timezone.now()) == 2
    assert Outbox.objects.get().floor == 2
    writer.settle(old)
    assert Event.objects.count() == 3
    assert len(sender.acked) == 6
    assert not ports.sent


def test_a_batch_that_fails_as_a_whole_is_decided_one_by_one(
    sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fleet.mqtt import ingest

    real: Callable[..., Any] = ingest.examine
    poison = sender.event()

    def examine(item: Any) -> Any:
        if item is poison:
            raise RuntimeError("a fault of ours")
        return real(item)

    monkeypatch.setattr(ingest, "examine", examine)
    make_writer().settle([sender.event(), poison, sender.event()])
    assert len(sender.acked) == 2
    assert Event.objects.count() == 2


def test_500_events_cost_as_many_queries_as_one(
    sender: Sender, django_assert_max_num_queries: Any
) -> None:
    items = [sender.event() for _ in range(500)]
    with django_assert_max_num_queries(60):  # rows of TOGETHER messages, some commits
        make_writer().settle(items)
    assert Event.objects.count() == 500
