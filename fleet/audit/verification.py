"""Walking every chain that is held here, and naming the first bad entry of each (R-ACC-10).

Three kinds. An organisation's chain is checked link by link, then against the chain of heads, which
has one link for each of its entries: rewriting an organisation's past means rewriting everybody's.
A device's chain, as far as it came, is checked link by link and against every head that the device
signed. What a row shows beside the hashed entry (its session, its action) must say the same.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from agent.wire import chain
from agent.wire.messages import SignedHead
from fleet.audit.models import DeviceEntry, DeviceHead, Entry, HeadLink
from fleet.audit.services import HEADS
from fleet.core import clock


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found of one chain. `bad` is the index of the first entry that does not fit."""

    chain: str  # an organisation's or a device's id, or "heads"
    kind: str  # "organisation", "device" or "heads"
    entries: int
    bad: int | None

    @property
    def good(self) -> bool:
        return self.bad is None


def verify_everything() -> Iterator[Verdict]:
    """Every chain, one after the other: organisations, devices, heads."""
    for organisation in _names(Entry, "organisation"):
        yield verify_organisation(organisation)
    for device in _names(DeviceEntry, "device"):
        yield verify_device(device)
    yield verify_heads()


def _names(model: Any, field: str) -> list[str]:
    return list(model.objects.order_by(field).values_list(field, flat=True).distinct())


def verify_organisation(organisation: str) -> Verdict:
    rows = Entry.objects.filter(organisation=organisation).order_by("index")
    seen = _Seen(rows.iterator(chunk_size=2000), _organisation_row)
    count, bad = chain.verify(seen)
    if bad is None:
        # The heads know every entry there ever was: also those cut off the end.
        links = HeadLink.objects.filter(entry__chain=organisation).order_by("index")
        for position, link in enumerate(links.values_list("entry", flat=True).iterator()):
            index, hash = link.get("chain_index"), link.get("chain_hash")
            if index != position or seen.hash_at(position) != hash:
                bad = position
                break
        else:
            expected = links.count()
            bad = min(expected, count) if expected != count else None
    return Verdict(organisation, "organisation", count, bad)


def verify_device(device: str) -> Verdict:
    rows = DeviceEntry.objects.filter(device=device).order_by("index")
    seen = _Seen(rows.iterator(chunk_size=2000), _device_row)
    count, bad = chain.verify(seen)
    if bad is None:
        for head in DeviceHead.objects.filter(device=device).select_related("device"):
            if not _signed(head):
                bad = head.index
            elif seen.hash_at(head.index) != head.hash:
                bad = min(head.index, count)
            if bad is not None:
                break
    return Verdict(device, "device", count, bad)


def verify_heads() -> Verdict:
    rows = HeadLink.objects.order_by("index").iterator(chunk_size=2000)
    count, bad = chain.verify(_Seen(rows, lambda row: row.index == row.entry.get("index")))
    return Verdict(HEADS, "heads", count, bad)


class _Seen:
    """The entries of rows, in order; remembers their hashes. A row that says something else than
    its entry is shown as an empty one, which fits nowhere."""

    def __init__(self, rows: Iterator[Any], agrees: Any) -> None:
        self._rows = rows
        self._agrees = agrees
        self._hashes: list[str] = []

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        for row in self._rows:
            entry = row.entry
            if (
                not isinstance(entry, dict)
                or row.hash != entry.get("hash")
                or not self._agrees(row)
            ):
                entry = {}
            self._hashes.append(row.hash)
            yield entry

    def hash_at(self, index: int) -> str | None:
        return self._hashes[index] if index < len(self._hashes) else None


def _organisation_row(row: Entry) -> bool:
    entry = row.entry
    return _common(row) and (row.organisation_id, row.previous, row.device) == (
        entry.get("chain"),
        entry.get("previous"),
        entry.get("device") or "",
    )


def _device_row(row: DeviceEntry) -> bool:
    return _common(row)


def _common(row: Any) -> bool:
    entry = row.entry
    return (row.index, row.action, row.session, row.execution) == (
        entry.get("index"),
        entry.get("action"),
        entry.get("session") or "",
        entry.get("execution") or "",
    )


def _signed(head: DeviceHead) -> bool:
    key = bytes(head.device.audit_key)
    if len(key) != 32:
        return False
    signed = SignedHead(
        chain=head.device_id,
        index=head.index,
        hash=head.hash,
        at=clock.to_ms(head.at),
        signature=bytes(head.signature),
    )
    return chain.head_is_signed_by(signed, Ed25519PublicKey.from_public_bytes(key))
