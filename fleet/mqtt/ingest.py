"""Ingest: one thread decides on what devices send, a batch for each commit.

Theory of operation. The gate delivers on the event loop into a bounded queue. The writer thread
takes what waits (up to a few hundred messages), decides on each inside one transaction, commits
once, and only then are they acknowledged: PUBACK means *decided*. Every message has a savepoint of
its own, so that one which cannot be applied is refused without spoiling its neighbours; a refusal
is recorded as key, type, reason, length and digest, never the payload, and told to the device.
Messages in a row whose handler takes them `Together` share a savepoint; when that fails, each of
them gets its own after all.

The same key with the same digest was decided before: acknowledged again, nothing done. The same key
with another digest is an alarm. When the database cannot be written nothing is acknowledged and the
batch is tried again, with a growing pause; the queue fills, the gate pauses its devices, and they
keep everything in their outboxes.

Numbers of an outbox follow each other, and the mark that a device is told is the highest one
decided: a number that is skipped would count as decided. So a message above mark + 1 is left alone
and its device is sent away once, to come back, hear the mark and send from there. If it then begins
above the gap again, it no longer has what is missing: that is an alarm, and the outbox goes on.
Source: R-CON-5, R-MNT-3, the wire's rules on durable messages.
"""

import contextlib
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime

from django.db import DatabaseError, connection, transaction

from agent.wire import messages
from agent.wire.catalogue import RefusalReason
from agent.wire.messages import Durable, Hello, MessageError, Refused, Up
from fleet.core import clock, ports
from fleet.core.errors import MessageRefused
from fleet.inventory.models import Device
from fleet.mqtt import metrics
from fleet.mqtt.alarms import alarm
from fleet.mqtt.book import Book, Entry, Gap, Key, Past, examine
from fleet.mqtt.handlers import Handler, Together
from fleet.mqtt.queue import IngestQueue, Item
from fleet.mqtt.trouble import is_trouble

KEY_CONFLICT = "message:key_conflict"
OUTBOX_GAP = "outbox:gap"
BATCH = 512  # messages in one commit at most
HOLD_S = 0.02  # of the write lock at a time: a person's request waits no longer for it
TOGETHER = 128  # messages in a row applied at once: well within HOLD_S
IDLE_S = 0.5
PAUSE_LEAST_S, PAUSE_MOST_S = 0.05, 5.0

Ack = Callable[[], None]
Greet = Callable[[Device, Hello, int, datetime], None]

log = logging.getLogger(__name__)


class Writer:
    """The thread. `acked` gets the acknowledgements of a commit, `room` is called when the queue
    can take messages again; both are called in this thread and must hand over to the event loop."""

    def __init__(
        self,
        queue: IngestQueue,
        handlers: Mapping[type[Up], Handler],
        *,
        greet: Greet,
        acked: Callable[[Sequence[Ack]], None],
        room: Callable[[], None],
    ) -> None:
        self._queue = queue
        self._handlers = handlers
        self._greet = greet
        self._acked = acked
        self._room = room
        self._book = Book()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ingest", daemon=True)
        self.healthy = True  # the last write worked

    # --- life ----------------------------------------------------------------------------------

    def start(self) -> None:
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def stop(self, timeout: float) -> None:
        """Finish the batch under way, give up the rest (unacknowledged, so it comes again)."""
        self._stopping.set()
        self._queue.close()
        self._thread.join(timeout)

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                load, room = self._queue.take(BATCH, IDLE_S)
                if room:
                    self._room()
                metrics.DEPTH.set(len(self._queue) + len(load.items))
                for work in load.work:
                    self._do(work)
                if load.items:
                    self.settle(load.items)
        finally:
            connection.close()

    def _do(self, work: Callable[[], object]) -> None:
        """Presence and ticks: periodic or reconciled later, so a failure is logged and over."""
        try:
            work()
            self.healthy = True
        except DatabaseError as error:
            self._in_trouble(error)
        except Exception:
            log.exception("work of the writer failed")

    # --- a batch -------------------------------------------------------------------------------

    def settle(self, items: Sequence[Item]) -> None:
        """Decide on the items, however long the database needs, unless the thread is to stop."""
        pause = PAUSE_LEAST_S
        while items and not self._stopping.is_set():
            try:
                decided = self.commit(items)
            except Exception as error:
                if not is_trouble(error):
                    self._singly(items, error)
                    return
                self._in_trouble(error)
                self._stopping.wait(random.uniform(pause / 2, pause))  # noqa: S311
                pause = min(PAUSE_MOST_S, pause * 2)
            else:
                items = items[decided:]
                pause = PAUSE_LEAST_S

    def _in_trouble(self, error: BaseException) -> None:
        if self.healthy:
            log.error("the database cannot be written, trying again: %s", error)
        self.healthy = False
        metrics.TROUBLE.inc()
        connection.close()

    def _singly(self, items: Sequence[Item], error: BaseException) -> None:
        """The batch failed as a whole, for a reason of ours: find the message that does it."""
        if len(items) > 1:
            log.warning("a batch failed (%s); its messages are decided one by one", type(error))
            for item in items:
                self.settle([item])
            return
        item = items[0]
        log.error("cannot decide on a %s of %s", item.type, item.device, exc_info=error)

    def commit(self, items: Sequence[Item]) -> int:
        """Decide on the first of the items in one transaction, as many as HOLD_S allows, then
        acknowledge them. Returns how many. Raises what the database raises; then none is."""
        started = time.perf_counter()
        entries = [examine(item) for item in items]
        acks: list[Ack] = []
        book = self._book
        with self._remembering(), transaction.atomic():
            begun = time.perf_counter()
            book.open(entries)
            row = _Row()
            for decided, entry in enumerate(entries, 1):  # noqa: B007  (returned)
                if self._decide(book, entry, row):
                    acks.append(entry.item.ack)
                if len(row.messages) >= TOGETHER:
                    self._apply_row(book, row)
                if time.perf_counter() - begun > HOLD_S:
                    break
            self._apply_row(book, row)
            book.save()
        self.healthy = True
        metrics.BATCH.observe(decided)
        metrics.COMMIT.observe(time.perf_counter() - started)
        if acks:
            self._acked(acks)
        return decided

    @contextlib.contextmanager
    def _remembering(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._book.forget()
            raise

    # --- one message ---------------------------------------------------------------------------

    def _decide(self, book: Book, entry: Entry, row: "_Row") -> bool:
        """Decide on one message; what is done about it may wait in the row. False leaves it
        unacknowledged: there is nobody to decide for."""
        item = entry.item
        if not row.takes(item):
            self._apply_row(book, row)
        device = book.device(item.device)
        if device is None:
            log.error("a certified device is not in the inventory: %s", item.device)
            ports.kick(item.device)
            return False
        if item.qos and entry.key is not None and not self._follows(book, device, entry, entry.key):
            return False
        try:
            message = messages.decode_up(item.type, item.version, item.payload)
        except MessageError as error:
            self._refuse(book, device, entry, error.reason)
        except RecursionError:  # nested deeper than the decoder goes
            self._refuse(book, device, entry, RefusalReason.MALFORMED)
        else:
            if not isinstance(message, Durable):
                self._pass(book, device, entry, message)
            elif entry.key is None:
                self._refuse(book, device, entry, RefusalReason.MALFORMED)
            else:
                past = book.decided_before(device.pk, entry.key)
                if past is not None:
                    self._again(book, device, entry, past)
                elif isinstance(self._handlers.get(type(message)), Together):
                    row.add(entry, device, message)
                    book.decide(entry, None, item.received_at)
                else:
                    self._apply_durable(book, device, entry, message)
        return True

    def _apply_row(self, book: Book, row: "_Row") -> None:
        """Apply what is in the row, at once or, when that fails, one by one."""
        if not row.entries:
            return
        entries, received = row.empty()
        handler = self._handlers[type(received[0][1])]
        assert isinstance(handler, Together)  # noqa: S101  (only such messages get into a row)
        refused = 0
        try:
            with transaction.atomic():
                handler.apply(received)
        except Exception as error:
            if is_trouble(error):
                raise
            for entry, (device, message, _at) in zip(entries, received, strict=True):
                reason = self._apply(book, device, entry, message)
                if reason is not None:
                    refused += 1
                    metrics.REFUSED_MESSAGES.labels(entry.item.type, reason.value).inc()
                    book.refuse_after_all(entry, reason)
                    self._tell(device, entry, reason)
        kind = entries[0].item.type
        metrics.DECIDED.labels(kind, "refused").inc(refused)
        metrics.DECIDED.labels(kind, "applied").inc(len(entries) - refused)

    def _follows(self, book: Book, device: Device, entry: Entry, key: Key) -> bool:
        """Whether it may be decided now: none is missing before it, or what is missing is lost."""
        gap = book.gap(device.pk, key)
        if gap is Gap.FOUND:
            log.warning("messages of %s are missing before %d; asking again", device.pk, key.seq)
            metrics.GAPS.labels("found").inc()
            ports.kick(device.pk)
        elif gap is Gap.LOST:
            first = book.high(device.pk, key.outbox) + 1
            log.error("messages %d to %d of %s are lost", first, key.seq - 1, device.pk)
            metrics.GAPS.labels("lost").inc()
            now = entry.item.received_at
            alarm(device, OUTBOX_GAP, reason="lost", digest=entry.digest, now=now)
        return gap in (Gap.NONE, Gap.LOST)

    def _apply_durable(self, book: Book, device: Device, entry: Entry, message: Durable) -> None:
        reason = self._apply(book, device, entry, message)
        if reason is not None:
            self._refuse(book, device, entry, reason)
            return
        book.decide(entry, None, entry.item.received_at)
        metrics.DECIDED.labels(entry.item.type, "applied").inc()

    def _pass(self, book: Book, device: Device, entry: Entry, message: Up) -> None:
        """A message that no outbox holds: hello, heartbeat."""
        item = entry.item
        reason = self._apply(book, device, entry, message)
        if reason is not None:
            self._refuse(book, device, entry, reason)
            return
        metrics.DECIDED.labels(item.type, "applied").inc()
        if isinstance(message, Hello):
            book.greeted(device.pk, message.outbox)
            self._greet(device, message, book.high(device.pk, message.outbox), item.received_at)

    def _apply(self, book: Book, device: Device, entry: Entry, message: Up) -> RefusalReason | None:
        """Let the app act on it, in a savepoint. Returns why it must be refused, or None."""
        handler = self._handlers.get(type(message))
        if handler is None:
            return RefusalReason.UNKNOWN_TYPE
        at = entry.item.received_at
        try:
            with transaction.atomic():
                handler(device, message, at)
        except MessageRefused as refusal:
            fresh = book.fresh_device(device.pk)
            if refusal.alarm is not None and fresh is not None:
                alarm(fresh, refusal.alarm, reason=refusal.reason, digest=entry.digest, now=at)
            return refusal.reason
        except Exception as error:
            if is_trouble(error):
                raise
            # Ours: the log says where. The payload is in neither the log nor the record.
            log.exception("the handler of %s failed", entry.item.type)
            book.fresh_device(device.pk)
            return RefusalReason.INTERNAL
        return None

    def _refuse(self, book: Book, device: Device, entry: Entry, reason: RefusalReason) -> None:
        item = entry.item
        metrics.DECIDED.labels(_known(item.type), "refused").inc()
        metrics.REFUSED_MESSAGES.labels(_known(item.type), reason.value).inc()
        if item.qos == 0:
            return  # nobody waits for an answer, and a flood of it must not fill the disk
        past = book.decided_before(device.pk, entry.key) if entry.key is not None else None
        if past is not None:
            self._again(book, device, entry, past)
            return
        book.decide(entry, reason, item.received_at)
        self._tell(device, entry, reason)

    def _again(self, book: Book, device: Device, entry: Entry, past: Past) -> None:
        """A key that was decided before."""
        if past.digest in ("", entry.digest):
            metrics.DECIDED.labels(_known(entry.item.type), "duplicate").inc()
            if past.reason:
                self._tell(device, entry, RefusalReason(past.reason))
            return
        metrics.DECIDED.labels(_known(entry.item.type), "conflict").inc()
        now = entry.item.received_at
        reason = RefusalReason.KEY_CONFLICT
        if alarm(device, KEY_CONFLICT, reason=reason, digest=entry.digest, now=now):
            log.warning("two messages under one key from %s", device.pk)
            book.decide(entry, reason, now, keyed=False)
        self._tell(device, entry, reason)

    def _tell(self, device: Device, entry: Entry, reason: RefusalReason) -> None:
        if entry.key is not None:
            refused = Refused(outbox=entry.key.outbox, seq=entry.key.seq, reason=reason)
            ports.send_down(device.pk, refused)


class _Row:
    """Messages of one type that came one after another; they are applied together."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.messages: list[tuple[Device, Durable, datetime]] = []

    def takes(self, item: Item) -> bool:
        """Whether the item may be decided before the row is applied: another type might need it."""
        return not self.entries or item.type == self.entries[0].item.type

    def add(self, entry: Entry, device: Device, message: Durable) -> None:
        self.entries.append(entry)
        self.messages.append((device, message, entry.item.received_at))

    def empty(self) -> tuple[list[Entry], list[tuple[Device, Durable, datetime]]]:
        """What is in it; it is empty then."""
        found = self.entries, self.messages
        self.entries, self.messages = [], []
        return found


_TYPES = frozenset(kind.TYPE for kind in messages.UP)


def _known(type: str) -> str:
    """The type as a label: devices do not choose how many series there are."""
    return type if type in _TYPES else "unknown"


def received(device: str, type: str, version: int, payload: bytes, *, qos: int, ack: Ack) -> Item:
    """An item as of now."""
    return Item(
        device=device,
        type=type,
        version=version,
        payload=payload,
        received_at=clock.now(),
        qos=qos,
        ack=ack,
    )
