"""Signed rosters: taken in whole, never going back, handed on (R-ACC-4, R-ACC-9)."""

import base64
import hashlib
import json
from datetime import datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.core.management import CommandError, call_command

from agent.wire import messages as m
from agent.wire import roster as rosters
from agent.wire import sshsig
from agent.wire.catalogue import Level, ProductLineCode, RefusalReason
from fleet.access import inbound, outbound
from fleet.access import rosters as service
from fleet.access.models import Roster
from fleet.accounts.models import Organisation
from fleet.audit.models import Entry
from fleet.core import clock
from fleet.core.errors import Conflict, Invalid, MessageRefused
from fleet.inventory.models import Device
from tests.conftest import Ports
from tests.fleet.access.injector import Injector

TRUST = Ed25519PrivateKey.from_private_bytes(b"\x09" * 32)


def signed(
    version: int, now: datetime, life: timedelta = timedelta(days=7), name: str = "O"
) -> Any:
    member = rosters.Member(
        id="owner", name=name, keys=[sshsig.public_blob(bytes(32))], level=Level.OS,
        patient_data=True,
        product_lines=[ProductLineCode.CT_DUAL], until=clock.to_ms(now + timedelta(days=99)),
    )  # fmt: skip
    return rosters.sign(
        TRUST,
        rosters.Roster(
            version=version,
            issued_at=clock.to_ms(now),
            expires_at=clock.to_ms(now + life),
            members=[member],
        ),
    )


def document(roster: bytes, signature: bytes) -> bytes:
    encoded = [base64.b64encode(part).decode() for part in (roster, signature)]
    return json.dumps(dict(zip(("roster", "signature"), encoded, strict=True))).encode()


def take_in(version: int, now: datetime, **fields: Any) -> tuple[Roster, int]:
    roster, signature = signed(version, now, **fields)
    return service.take_in(roster=roster, signature=signature, actor="portal", now=now)


def test_a_roster_goes_to_devices_on_line_that_have_an_older_one(
    transactional_db: None,
    vendor: Organisation,
    device: Device,
    other_device: Device,
    injector: Injector,
    ports: Ports,
    now: datetime,
) -> None:
    Device.objects.filter(pk=other_device.pk).update(online=False)
    kept, sent = take_in(3, now)
    roster, signature = signed(3, now)
    update = m.RosterUpdate(roster=roster, signature=signature)
    assert (kept.version, kept.members, sent) == (3, 1, 1)
    assert ports.sent == [(device.pk, update)]
    assert outbound.pending(other_device) == [update]
    injector.says_accepted("roster", "3", update)
    device.refresh_from_db()
    assert device.roster_version == 3
    assert outbound.pending(device) == []
    entry = Entry.objects.get(organisation=vendor)
    assert entry.action == "roster:import"
    assert entry.entry["digest"] == hashlib.sha256(m.encode(update)).hexdigest()


def test_versions_never_go_back(db: None, now: datetime) -> None:
    take_in(3, now)
    assert take_in(3, now)[0].version == 3  # the same file again
    with pytest.raises(Conflict, match="older than version 3"):
        take_in(2, now)
    with pytest.raises(Conflict, match="another roster with version 3"):
        take_in(3, now, name="Somebody else")
    take_in(4, now)
    assert [row.version for row in Roster.objects.all()] == [4, 3]


def test_a_device_cannot_accept_a_roster_that_is_not_ours(
    injector: Injector, now: datetime
) -> None:
    take_in(3, now)
    with pytest.raises(MessageRefused) as caught:
        injector.says_accepted("roster", "9", b"other bytes")
    assert caught.value.reason is RefusalReason.UNKNOWN_REFERENCE


def test_files_that_are_no_signed_roster(now: datetime) -> None:
    roster, signature = signed(1, now)
    spaced = roster.replace(b'"v":1', b'"v": 1')
    for data in (
        b"", b"[]", b"{}", b"\xff", b"[" * 100_000, b'{"roster": 1, "signature": 2}',
        document(b"{}", signature), document(roster, b"short"), document(spaced, signature),
        document(roster, signature).replace(b'"', b"'"), bytes(600_000),
    ):  # fmt: skip
        with pytest.raises(Invalid, match="no signed roster"):
            service.read(data, trust_key=None, now=now)


def test_a_roster_that_devices_would_refuse(now: datetime) -> None:
    roster, signature = signed(1, now)
    trust = TRUST.public_key().public_bytes_raw()
    assert service.read(document(roster, signature), trust_key=trust, now=now)
    with pytest.raises(Invalid, match="has expired"):
        service.read(document(roster, signature), trust_key=trust, now=now + timedelta(days=7))
    with pytest.raises(Invalid, match="not signed by the trust key"):
        service.read(document(roster, bytes(64)), trust_key=trust, now=now)
    with pytest.raises(Invalid, match="seven days"):
        service.read(document(*signed(1, now, timedelta(days=8))), trust_key=trust, now=now)
    with pytest.raises(Invalid, match="Devices would refuse"):
        service.read(document(roster, signature), trust_key=b"short", now=now)


def test_the_command(db: None, device: Device, tmp_path: Path) -> None:
    file, out = tmp_path / "roster.json", StringIO()
    file.write_bytes(document(*signed(5, clock.now())))
    trust = base64.b64encode(TRUST.public_key().public_bytes_raw()).decode()
    call_command("roster", "import", str(file), "--trust-key", trust, stdout=out)
    assert out.getvalue() == "Roster 5 with 1 members is in use; sent to 1 devices.\n"
    for arguments, says in (
        ([str(tmp_path / "none")], "Cannot read"),
        ([str(file), "--trust-key", "?"], "base64"),
        ([str(tmp_path)], "Cannot read"),
    ):
        with pytest.raises(CommandError, match=says):
            call_command("roster", "import", *arguments)
    file.write_bytes(document(*signed(4, clock.now())))
    with pytest.raises(CommandError, match="older than version 5"):
        call_command("roster", "import", str(file))


def test_only_the_last_few_rosters_are_recognised(injector: Injector, now: datetime) -> None:
    for version in range(1, 6):
        take_in(version, now)
    old = m.RosterUpdate(roster=signed(1, now)[0], signature=signed(1, now)[1])
    with pytest.raises(MessageRefused):
        inbound.accepted(injector.device, injector.accepted("roster", "1", old), now)
