"""A device's audit entries: kept when whole, refused when forged or forked (R-ACC-10)."""

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.wire.catalogue import RefusalReason
from agent.wire.messages import Audit
from fleet.audit import inbound
from fleet.audit.models import DeviceEntry, DeviceHead, Entry
from fleet.core import clock
from fleet.core.errors import MessageRefused
from fleet.inventory.models import Device
from tests.fleet.audit.chains import DeviceChain


@pytest.fixture
def own(device: Device, audit_key: Ed25519PrivateKey) -> DeviceChain:
    made = DeviceChain(device.pk, audit_key)
    for number in range(6):
        made.add(session=f"{number // 3:032x}")
    return made


def _take(device: Device, message: Audit) -> None:
    inbound.audit(device, message, clock.now(), owner=lambda entry: device.organisation_id)


def _refused(device: Device, message: Audit) -> str | None:
    with pytest.raises(MessageRefused) as caught:
        _take(device, message)
    assert caught.value.reason is RefusalReason.CHAIN_BROKEN
    return caught.value.alarm


def test_entries_come_in_parts_and_again(device: Device, own: DeviceChain) -> None:
    _take(device, own.message(0, 2))
    _take(device, own.message(1, 4))  # an overlap is no news
    _take(device, own.message(4))
    rows = DeviceEntry.objects.filter(device=device)
    assert [row.hash for row in rows] == [entry.hash for entry in own.entries]
    assert [row.session[-1] for row in rows] == ["0", "0", "0", "1", "1", "1"]
    assert DeviceHead.objects.count() == 3
    assert not Entry.objects.exists()


def test_a_gap_is_kept_with_an_alarm(device: Device, own: DeviceChain) -> None:
    _take(device, own.message(0, 2))
    _take(device, own.message(4))
    assert DeviceEntry.objects.count() == 4
    assert Entry.objects.get().action == "audit:gap"


@pytest.mark.parametrize("field", ["action", "actor", "outcome", "previous", "hash"])
def test_an_edited_entry_is_refused(device: Device, own: DeviceChain, field: str) -> None:
    values = {
        "action": "session:end",
        "actor": "nobody",
        "outcome": "refused",
        "previous": "1" * 64,
        "hash": "2" * 64,
    }
    forged = msgspec.structs.replace(own.entries[1], **{field: values[field]})
    entries = [own.entries[0], forged, *own.entries[2:]]
    message = msgspec.structs.replace(own.message(), entries=entries)
    assert _refused(device, message) == "audit:forged"
    assert not DeviceEntry.objects.exists()


def test_another_history_is_a_fork(
    device: Device, own: DeviceChain, audit_key: Ed25519PrivateKey
) -> None:
    _take(device, own.message(0, 4))
    other = DeviceChain(device.pk, audit_key)
    for _ in range(6):
        other.add(actor="somebody-else")
    assert _refused(device, other.message(0, 4)) == "audit:fork"
    assert _refused(device, other.message(4)) == "audit:fork"  # its joint does not fit


def test_heads_must_be_the_devices_own(device: Device, own: DeviceChain) -> None:
    foreign = DeviceChain(device.pk, Ed25519PrivateKey.generate())
    foreign.entries = own.entries
    assert _refused(device, foreign.message()) == "audit:forged"
    elsewhere = DeviceChain("device-9999", own.key)
    elsewhere.entries = own.entries
    assert _refused(device, elsewhere.message()) == "audit:forged"
    device.audit_key = b""
    assert _refused(device, own.message()) == "audit:forged"


def test_two_heads_for_one_index_are_a_fork(
    device: Device, own: DeviceChain, audit_key: Ed25519PrivateKey
) -> None:
    """The server lost entries (an old backup) and the device another history: the heads tell."""
    inbound.keep_head(device, own.head(), clock.now())
    other = DeviceChain(device.pk, audit_key)
    for _ in range(6):
        other.add(actor="somebody-else")
    with pytest.raises(MessageRefused) as caught:
        inbound.keep_head(device, other.head(), clock.now())
    assert caught.value.alarm == "audit:fork"
