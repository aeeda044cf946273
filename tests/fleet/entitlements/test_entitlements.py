"""Entitlements at the portal: taken in as signed, sent on, asked before a request (R-ACC-9)."""

import base64
import json
from datetime import datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.core.management import CommandError, call_command

from agent.wire import entitlement as wire
from agent.wire import messages as m
from agent.wire.catalogue import Level
from fleet.access import services as access
from fleet.accounts.models import User
from fleet.audit.models import Entry
from fleet.core import clock
from fleet.core.errors import Conflict, Invalid, MessageRefused
from fleet.entitlements import inbound, outbound, selectors, services
from fleet.entitlements.models import Entitlement
from fleet.inventory.models import Device
from tests.conftest import Ports
from tests.entitled import SOMEBODY, entitlement
from tests.fleet.access.injector import Injector

TRUST = SOMEBODY.public_key().public_bytes_raw()


def signed(device: Device, now: datetime, **changes: Any) -> services.Signed:
    it = entitlement("ct-dual", device.serial, clock.to_ms(now), **changes)
    return (it, *wire.sign(SOMEBODY, it))


def document(*found: services.Signed) -> bytes:
    rows = [
        {
            "entitlement": base64.b64encode(data).decode(),
            "signature": base64.b64encode(signature).decode(),
        }
        for _it, data, signature in found
    ]
    return json.dumps({"entitlements": rows}).encode()


def take_in(device: Device, **changes: Any) -> tuple[int, int]:
    now = clock.now()
    return services.take_in([signed(device, now, **changes)], actor="portal", now=now)


def test_a_newer_one_goes_to_the_injector_and_into_the_audit(
    device: Device, owner: User, ports: Ports, transactional_db: None
) -> None:
    before = Entry.objects.count()
    now = clock.now()
    new = signed(device, now, version=7, level=Level.SERVICE)
    assert services.take_in([new], actor="portal", now=now) == (1, 1)
    (sent,) = ports.sent
    assert isinstance(sent[1], m.EntitlementUpdate)
    assert wire.decode(sent[1].entitlement).level is Level.SERVICE
    assert [it.version for it in Entitlement.objects.all()] == [7, 1]
    assert Entry.objects.count() > before
    assert services.take_in([new], actor="portal", now=now) == (0, 0)  # the same one again


def test_an_older_one_is_refused_and_leaves_nothing(device: Device, db: None) -> None:
    take_in(device, version=7)
    for version in (6, 7):
        with pytest.raises(Conflict, match="not newer"):
            take_in(device, version=version, grace_days=1)
    assert Entitlement.objects.count() == 2


def test_all_or_nothing(device: Device, other_device: Device, db: None) -> None:
    now = clock.now()
    with pytest.raises(Conflict):
        services.take_in(
            [signed(device, now, version=9), signed(other_device, now, version=1, grace_days=1)],
            actor="portal",
            now=now,
        )
    assert not Entitlement.objects.filter(version=9).exists()


@pytest.mark.parametrize(
    "data",
    [
        b"", b"[]", b"{}", b'{"entitlements": [{}]}', b'{"entitlements": {"entitlement": "AA"}}',
        b"[" * 100_000,
    ],
)  # fmt: skip
def test_what_is_no_entitlement_is_told(data: bytes) -> None:
    with pytest.raises(Invalid, match="patency trust entitle"):
        services.read(data, trust_key=None)


def test_a_signature_that_injectors_would_refuse_is_found(device: Device, db: None) -> None:
    it = entitlement("ct-dual", device.serial, clock.to_ms(clock.now()))
    forged = (it, *wire.sign(Ed25519PrivateKey.generate(), it))
    assert services.read(document(forged), trust_key=None)
    with pytest.raises(Invalid, match="would refuse"):
        services.read(document(forged), trust_key=TRUST)
    good = signed(device, clock.now())
    assert services.read(document(good), trust_key=TRUST) == [good]


def test_at_hello_an_injector_gets_what_it_lacks(device: Device, db: None) -> None:
    (owed,) = outbound.pending(device)
    assert isinstance(owed, m.EntitlementUpdate)
    device.entitlement_version = 1
    assert list(outbound.pending(device)) == []


def test_what_the_injector_holds_is_noted(device: Device, injector: Injector) -> None:
    row = selectors.newest(device)
    assert row is not None
    inbound.accepted(
        device, injector.accepted("entitlement", "1", outbound.message(row)), clock.now()
    )
    device.refresh_from_db()
    assert device.entitlement_version == 1
    stranger = m.EntitlementUpdate(entitlement=b"{}", signature=bytes(64))
    with pytest.raises(MessageRefused):
        inbound.accepted(device, injector.accepted("entitlement", "1", stranger), clock.now())


def test_the_portal_refuses_what_the_injector_would(owner: User, device: Device, db: None) -> None:
    """R-ACC-9: no request leaves for a customer who is not entitled, and that is on record."""

    def ask(level: str, service: str) -> None:
        access.request(
            actor=owner, device=device, level=level, services=[service], reason="repair",
            ticket="T-1", note="", life=timedelta(minutes=30), now=clock.now(),
        )  # fmt: skip

    take_in(device, version=2, level=Level.SERVICE)
    with pytest.raises(Conflict, match="not entitled") as caught:
        ask("os", "ssh")
    assert caught.value.reason == "not_entitled"
    assert any(it.entry.get("reason") == "not_entitled" for it in Entry.objects.all())
    ask("service", "web")


def test_the_command(device: Device, other_device: Device, tmp_path: Path, db: None) -> None:
    file, out = tmp_path / "e.json", StringIO()
    file.write_bytes(document(signed(device, clock.now(), version=2)))
    trust = base64.b64encode(TRUST).decode()
    call_command("entitlement", "import", str(file), "--trust-key", trust, stdout=out)
    assert out.getvalue() == "1 entitlements, 1 of them new; sent to 1 devices.\n"
    for arguments, says in (
        ([str(tmp_path / "none")], "Cannot read"),
        ([str(file), "--trust-key", "?"], "base64"),
    ):
        with pytest.raises(CommandError, match=says):
            call_command("entitlement", "import", *arguments)
    out = StringIO()
    call_command("entitlement", "wanted", stdout=out)
    rows = json.loads(out.getvalue())
    assert {row["serial"] for row in rows} == {device.serial, other_device.serial}
    assert rows[0]["ends"] is not None
    out = StringIO()
    call_command("entitlement", "wanted", "--within", "7", stdout=out)
    assert json.loads(out.getvalue()) == []
