"""Whatever is done to a chain is found, and the first bad index named (R-ACC-10)."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.core.management import call_command
from django.db.models import F

from agent.wire import chain
from agent.wire.catalogue import Outcome
from fleet.accounts.models import Organisation
from fleet.audit import inbound, services, verification
from fleet.audit.models import DeviceEntry, DeviceHead, Entry, HeadLink
from fleet.core import clock
from fleet.inventory.models import Device
from tests.fleet.audit.chains import DeviceChain


@pytest.fixture
def chains(
    device: Device,
    hospital: Organisation,
    other_hospital: Organisation,
    audit_key: Ed25519PrivateKey,
) -> DeviceChain:
    """Six entries of each: two organisations and a device."""
    own = DeviceChain(device.pk, audit_key)
    for number in range(6):
        for organisation in (hospital, other_hospital):
            services.record(
                organisation=organisation,
                actor="portal",
                action="access:request",
                outcome=Outcome.ALLOWED,
                session=f"{number:032x}",
            )
        own.add(session=f"{number:032x}")
    inbound.audit(device, own.message(), clock.now(), owner=lambda entry: device.organisation_id)
    return own


def _bad() -> dict[str, int | None]:
    return {v.chain: v.bad for v in verification.verify_everything() if not v.good}


def test_whole_chains_are_found_whole(chains: DeviceChain) -> None:
    verdicts = list(verification.verify_everything())
    assert [(v.chain, v.kind, v.entries, v.bad) for v in verdicts] == [
        ("north", "organisation", 6, None),
        ("sud", "organisation", 6, None),
        ("device-0001", "device", 6, None),
        ("heads", "heads", 12, None),
    ]


def _edit(model: Any, index: int, **changes: Any) -> None:
    row = model.objects.filter(**({"organisation": "north"} if model is Entry else {})).get(
        index=index
    )
    row.entry = {**row.entry, **changes}
    row.save()


def _rehash(model: Any, index: int, **changes: Any) -> None:
    """An attacker who knows the rules makes the entry's own hash right again."""
    _edit(model, index, **changes)
    row = model.objects.filter(**({"organisation": "north"} if model is Entry else {})).get(
        index=index
    )
    row.entry["hash"] = row.hash = chain.entry_hash(row.entry)
    row.save()


def _reorder() -> None:
    Entry.objects.filter(organisation="north", index=2).update(index=99)
    Entry.objects.filter(organisation="north", index=3).update(index=2)
    Entry.objects.filter(organisation="north", index=99).update(index=3)


def _close_ranks() -> None:
    Entry.objects.filter(organisation="north", index=2).delete()
    for index in (3, 4, 5):
        Entry.objects.filter(organisation="north", index=index).update(index=F("index") - 1)


ATTACKS: list[tuple[str, Callable[[], object], dict[str, int]]] = [
    ("flip", lambda: _edit(Entry, 2, actor="mallory"), {"north": 2}),
    ("flip and rehash", lambda: _rehash(Entry, 2, actor="mallory"), {"north": 3}),
    ("flip the last and rehash", lambda: _rehash(Entry, 5, actor="mallory"), {"north": 5}),
    ("delete", lambda: Entry.objects.filter(organisation="north", index=2).delete(), {"north": 2}),
    ("delete and close ranks", _close_ranks, {"north": 2}),
    ("reorder", _reorder, {"north": 2}),
    (
        "truncate",
        lambda: Entry.objects.filter(organisation="north", index__gte=4).delete(),
        {"north": 4},
    ),
    (
        "hide a session",
        lambda: Entry.objects.filter(organisation="north", index=1).update(session=""),
        {"north": 1},
    ),
    ("heads: flip", lambda: _edit(HeadLink, 4, chain_hash="0" * 64), {"north": 2, "heads": 4}),
    ("device: flip", lambda: _edit(DeviceEntry, 3, actor="mallory"), {"device-0001": 3}),
    (
        "device: truncate",
        lambda: DeviceEntry.objects.filter(index__gte=4).delete(),
        {"device-0001": 4},
    ),
    ("device: forged head", lambda: DeviceHead.objects.update(hash="0" * 64), {"device-0001": 5}),
]


@pytest.mark.parametrize(("attack", "found"), [a[1:] for a in ATTACKS], ids=[a[0] for a in ATTACKS])
def test_an_attack_is_found(
    chains: DeviceChain, attack: Callable[[], object], found: dict[str, int]
) -> None:
    attack()
    assert _bad() == found


def test_a_rewritten_past_does_not_match_the_head_that_a_device_holds(
    chains: DeviceChain, hospital: Organisation
) -> None:
    """The server rewrites everything, heads included: only what left the building shows it."""
    from fleet.audit import keys

    keys.create()
    held = services.server_head(hospital.pk)
    assert held is not None
    Entry.objects.all().delete()
    HeadLink.objects.all().delete()
    for _ in range(6):
        services.record(
            organisation=hospital, actor="portal", action="access:end", outcome=Outcome.ALLOWED
        )
    assert _bad() == {}
    assert Entry.objects.get(organisation=hospital, index=held.index).hash != held.hash


def test_the_command(chains: DeviceChain, capsys: pytest.CaptureFixture[str]) -> None:
    call_command("audit", "verify")
    assert "6 entries, whole" in capsys.readouterr().out
    _edit(Entry, 2, actor="mallory")
    with pytest.raises(SystemExit) as ended:
        call_command("audit", "verify", "-o", "json")
    assert ended.value.code == 1
    [north, *_rest] = json.loads(capsys.readouterr().out)
    assert (north["chain"], north["bad"], north["good"]) == ("north", 2, False)
