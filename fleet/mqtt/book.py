"""The decisions: what was decided before, what is decided now."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto
from typing import Any

import msgspec
from django.db import connection

from agent.wire.catalogue import RefusalReason
from agent.wire.messages import Hex32, Seq
from fleet.core.rows import Insert, stored
from fleet.inventory.models import Device
from fleet.mqtt.models import Decision, Outbox
from fleet.mqtt.queue import Item

MOST_OUTBOXES = 20_000  # remembered
_DECISIONS = Insert(
    Decision, "device", "outbox", "seq", "type", "digest", "length", "reason", "decided_at"
)


class Key(msgspec.Struct, frozen=True):
    """The outbox key of a message, read even when the rest of it cannot be."""

    outbox: Hex32
    seq: Seq


_key_decoder = msgspec.json.Decoder(Key)


def read_key(payload: bytes) -> Key | None:
    """The key, if the payload is JSON enough to hold one."""
    try:
        return _key_decoder.decode(payload)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError):
        return None


class Past(msgspec.Struct, frozen=True):
    """A decision made before, or earlier in this batch."""

    digest: str
    reason: str


class Gap(Enum):
    """What a key says about those before it: the mark must not pass what was never decided."""

    NONE = auto()
    FOUND = auto()  # the device is to be asked for what is between
    ASKED = auto()  # and has not greeted since
    LOST = auto()  # it has, and begins after the gap again: it no longer has what is missing


@dataclass(slots=True)
class _Asked:
    mark: int
    greeted: bool = False


class Entry(msgspec.Struct, frozen=True):
    """An item with what was found out about it before deciding."""

    item: Item
    digest: str
    key: Key | None


class Book:
    """What the writer knows of decisions. One for the thread, opened for each transaction.

    Outboxes are remembered from one transaction to the next, so that a new message costs no
    look-up: nobody else decides, and `high` says that a higher number is new. After a transaction
    that failed, `forget` what was learned in it.
    """

    def __init__(self) -> None:
        self._devices: dict[str, Device] = {}
        self._past: dict[tuple[str, str, int], Past] = {}
        self._outboxes: dict[tuple[str, str], Outbox] = {}
        self._asked: dict[tuple[str, str], _Asked] = {}
        self._unread: dict[str, int] = {}  # by device: messages whose number could not be read
        self._new: list[tuple[Any, ...]] = []  # rows of decisions
        self._moved: dict[tuple[str, str], Outbox] = {}

    def open(self, entries: Iterable[Entry]) -> None:
        """Begin a transaction about these."""
        names = {entry.item.device for entry in entries}
        self._devices = Device.objects.select_related("organisation").in_bulk(names)
        self._past.clear()
        self._new.clear()
        self._moved.clear()
        if len(self._outboxes) > MOST_OUTBOXES:
            self._outboxes.clear()
        if max(len(self._asked), len(self._unread)) > MOST_OUTBOXES:
            self._asked.clear()
            self._unread.clear()

    def forget(self) -> None:
        """The transaction was rolled back, and nobody was asked."""
        self._outboxes.clear()
        self._asked.clear()
        self._unread.clear()

    def device(self, name: str) -> Device | None:
        return self._devices.get(name)

    def fresh_device(self, name: str) -> Device | None:
        """Read the device again: a handler that failed may have left its copy half changed."""
        found = Device.objects.select_related("organisation").filter(pk=name).first()
        if found is None:
            self._devices.pop(name, None)
        else:
            self._devices[name] = found
        return found

    def decided_before(self, device: str, key: Key) -> Past | None:
        """The earlier decision on this key; one with an empty digest has been forgotten since."""
        past = self._past.get((device, key.outbox, key.seq))
        if past is not None:
            return past
        outbox = self._outbox(device, key.outbox)
        if outbox is None or key.seq > outbox.high:
            return None
        row = (
            Decision.objects.filter(device=device, outbox=key.outbox, seq=key.seq)
            .values_list("digest", "reason")
            .first()
        )
        if row is not None:
            return Past(*row)
        # Housekeeping may have raised the floor since this outbox was remembered.
        floor = Outbox.objects.filter(pk=outbox.pk).values_list("floor", flat=True).first()
        return Past("", "") if floor is not None and key.seq <= floor else None

    def high(self, device: str, outbox: str) -> int:
        """Everything up to here is decided, this transaction included."""
        row = self._outbox(device, outbox)
        return row.high if row is not None else 0

    def gap(self, device: str, key: Key) -> Gap:
        """Whether numbers are missing between the mark and this key.

        An outbox of which nothing is known may begin anywhere, and a message that was refused
        because it could not be read may have had one of the missing numbers.
        """
        place = (device, key.outbox)
        outbox = self._outbox(*place)
        if outbox is None or key.seq <= outbox.high:
            return Gap.NONE
        asked = self._asked.get(place)
        if key.seq - outbox.high - 1 <= self._unread.pop(device, 0):
            self._asked.pop(place, None)
            return Gap.NONE
        if asked is None or asked.mark != outbox.high:
            self._asked[place] = _Asked(outbox.high)
            return Gap.FOUND
        return Gap.LOST if asked.greeted else Gap.ASKED

    def greeted(self, device: str, outbox: str) -> None:
        """The device has said hello, and is told the mark."""
        self._unread.pop(device, None)
        asked = self._asked.get((device, outbox))
        if asked is not None:
            asked.greeted = True

    def decide(
        self, entry: Entry, reason: RefusalReason | None, now: datetime, *, keyed: bool = True
    ) -> None:
        """Note a decision. `keyed` False leaves the key to the message that had it first."""
        item, key = entry.item, entry.key if keyed else None
        if entry.key is None:
            self._unread[item.device] = self._unread.get(item.device, 0) + 1
        self._new.append(
            (
                item.device,
                key.outbox if key else None,
                key.seq if key else None,
                f"{item.type}/{item.version}",
                entry.digest,
                len(item.payload),
                reason.value if reason else "",
                stored(now),
            )
        )
        if key is None:
            return
        self._past[item.device, key.outbox, key.seq] = Past(entry.digest, reason or "")
        place = (item.device, key.outbox)
        outbox = self._outbox(*place)
        if outbox is None:
            outbox = self._outboxes[place] = Outbox(device_id=item.device, outbox=key.outbox)
        if key.seq > outbox.high:
            outbox.high = key.seq
            self._moved[place] = outbox

    def refuse_after_all(self, entry: Entry, reason: RefusalReason) -> None:
        """Change a decision of this transaction: it could not be applied."""
        assert entry.key is not None  # noqa: S101  (it was decided under its key)
        device, outbox, seq = entry.item.device, entry.key.outbox, entry.key.seq
        for at, row in enumerate(self._new):
            if row[:3] == (device, outbox, seq):
                self._new[at] = (*row[:6], reason.value, *row[7:])
        self._past[device, outbox, seq] = Past(entry.digest, reason)

    def save(self) -> None:
        """Write what was decided."""
        _DECISIONS.many(self._new)
        moved = self._moved.values()
        Outbox.objects.bulk_create([row for row in moved if row.pk is None])
        known = [(row.high, row.pk) for row in moved if row.pk is not None]
        if known:
            # One statement for all; the model's own way is one each.
            with connection.cursor() as cursor:
                cursor.executemany("UPDATE mqtt_outbox SET high = %s WHERE id = %s", known)

    def _outbox(self, device: str, outbox: str) -> Outbox | None:
        found = self._outboxes.get((device, outbox))
        if found is None:
            found = Outbox.objects.filter(device=device, outbox=outbox).first()
            if found is not None:
                self._outboxes[device, outbox] = found
        return found


def examine(item: Item) -> Entry:
    """Digest and key: pure, before the transaction begins."""
    return Entry(
        item=item, digest=hashlib.sha256(item.payload).hexdigest(), key=read_key(item.payload)
    )
