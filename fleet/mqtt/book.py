"""The decisions of one batch: what was decided before, what is decided now, who must be told.

Loaded with a few queries for the whole batch and written with a few, inside one transaction.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

import msgspec

from agent.wire.catalogue import RefusalReason
from agent.wire.messages import Hex32, Seq
from fleet.inventory.models import Device
from fleet.mqtt.models import Decision, Outbox
from fleet.mqtt.queue import Item


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


@dataclass(frozen=True, slots=True)
class Past:
    """A decision made before, or earlier in this batch."""

    digest: str
    reason: str


@dataclass(slots=True)
class Entry:
    """An item with what was found out about it before deciding."""

    item: Item
    digest: str
    key: Key | None


@dataclass(slots=True)
class Book:
    devices: dict[str, Device] = field(default_factory=dict)
    past: dict[tuple[str, str, int], Past] = field(default_factory=dict)
    outboxes: dict[tuple[str, str], Outbox] = field(default_factory=dict)
    _new: list[Decision] = field(default_factory=list)
    _moved: set[tuple[str, str]] = field(default_factory=set)

    @classmethod
    def load(cls, entries: Iterable[Entry]) -> "Book":
        book = cls()
        names = {entry.item.device for entry in entries}
        book.devices = Device.objects.select_related("organisation").in_bulk(names)
        wanted: dict[tuple[str, str], set[int]] = defaultdict(set)
        for entry in entries:
            if entry.key is not None and entry.item.device in book.devices:
                wanted[entry.item.device, entry.key.outbox].add(entry.key.seq)
        for (device, outbox), numbers in wanted.items():
            rows = Decision.objects.filter(device=device, outbox=outbox, seq__in=numbers)
            for seq, digest, reason in rows.values_list("seq", "digest", "reason"):
                if seq is not None:
                    book.past[device, outbox, seq] = Past(digest, reason)
            row = Outbox.objects.filter(device=device, outbox=outbox).first()
            if row is not None:
                book.outboxes[device, outbox] = row
        return book

    def fresh_device(self, device: str) -> Device | None:
        """Read the device again: a handler that failed may have left its copy half changed."""
        found = Device.objects.select_related("organisation").filter(pk=device).first()
        if found is None:
            self.devices.pop(device, None)
        else:
            self.devices[device] = found
        return found

    def decided_before(self, device: str, key: Key) -> Past | None:
        """The earlier decision on this key; one with an empty digest has been forgotten since."""
        past = self.past.get((device, key.outbox, key.seq))
        if past is not None:
            return past
        outbox = self.outboxes.get((device, key.outbox))
        return Past("", "") if outbox is not None and key.seq <= outbox.floor else None

    def high(self, device: str, outbox: str) -> int:
        """Everything up to here is decided, this batch included."""
        row = self.outboxes.get((device, outbox))
        if row is None:
            row = Outbox.objects.filter(device=device, outbox=outbox).first()
        return row.high if row is not None else 0

    def decide(
        self, entry: Entry, reason: RefusalReason | None, now: datetime, *, keyed: bool = True
    ) -> None:
        """Note a decision. `keyed` False leaves the key to the message that had it first."""
        item, key = entry.item, entry.key if keyed else None
        self._new.append(
            Decision(
                device_id=item.device,
                outbox=key.outbox if key else None,
                seq=key.seq if key else None,
                type=f"{item.type}/{item.version}",
                digest=entry.digest,
                length=len(item.payload),
                reason=reason.value if reason else "",
                decided_at=now,
            )
        )
        if key is None:
            return
        self.past[item.device, key.outbox, key.seq] = Past(entry.digest, reason or "")
        place = (item.device, key.outbox)
        outbox = self.outboxes.get(place)
        if outbox is None:
            outbox = self.outboxes[place] = Outbox(device_id=item.device, outbox=key.outbox)
        if key.seq > outbox.high:
            outbox.high = key.seq
        self._moved.add(place)

    def save(self) -> None:
        Decision.objects.bulk_create(self._new)
        for place in self._moved:
            outbox = self.outboxes[place]
            if outbox.pk is None:
                outbox.save(force_insert=True)
            else:
                outbox.save(update_fields=["high"])


def examine(item: Item) -> Entry:
    """Digest and key: pure, before the transaction begins."""
    return Entry(
        item=item, digest=hashlib.sha256(item.payload).hexdigest(), key=read_key(item.payload)
    )
