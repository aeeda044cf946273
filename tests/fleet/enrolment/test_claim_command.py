"""manage.py claim: the bundle that is placed at manufacture (R-CON-2)."""

import base64
import json
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from fleet.core import clock
from fleet.enrolment import ca
from fleet.enrolment.models import Claim
from fleet.inventory.models import Device, ProductLine, Site

TRUST = bytes(range(32))


@pytest.fixture
def trust_key(tmp_path: Path) -> Path:
    path = tmp_path / "trust.pub"
    path.write_text(base64.b64encode(TRUST).decode() + "\n")
    return path


def _run(tmp_path: Path, trust_key: Path, *extra: str, site: str = "Main") -> Path:
    output = tmp_path / "provision.json"
    call_command(
        "claim", "SN-1", "--product-line", "ct-dual", "--site", site, "--trust-key",
        str(trust_key), "-o", str(output), *extra,
    )  # fmt: skip
    return output


def test_the_bundle_is_what_the_agent_reads(
    tmp_path: Path, trust_key: Path, site: Site, product_line: ProductLine
) -> None:
    from agent import identity

    ca.init(now=clock.now())
    output = _run(tmp_path, trust_key, "--room", "CT 1", "--asset-number", "A 7")
    assert output.stat().st_mode & 0o777 == 0o600
    bundle = identity.load_provision(tmp_path)  # the agent's own reader
    assert (bundle.serial, bundle.product_line) == ("SN-1", "ct-dual")
    assert bundle.anchors.trust_key == TRUST
    assert json.loads(output.read_text())["enrol"] == {"host": "127.0.0.1", "port": 8443}
    claim = Claim.objects.get()
    assert (claim.room, claim.asset_number, claim.organisation_id) == ("CT 1", "A 7", "north")
    assert bundle.claim not in claim.digest


def test_what_is_missing_is_named(
    tmp_path: Path, trust_key: Path, site: Site, product_line: ProductLine
) -> None:
    with pytest.raises(CommandError, match="ca init"):
        _run(tmp_path, trust_key)
    ca.init(now=clock.now())
    with pytest.raises(CommandError, match=f"{site.pk} \\(Main\\)"):
        _run(tmp_path, trust_key, site="Elsewhere")
    with pytest.raises(CommandError, match="patency trust new"):
        _run(tmp_path, tmp_path / "nothing")
    trust_key.write_text("AAAA")
    with pytest.raises(CommandError, match="Ed25519"):
        _run(tmp_path, trust_key)
    product_line.delete()
    trust_key.write_text(base64.b64encode(TRUST).decode())
    with pytest.raises(CommandError, match="product line"):
        _run(tmp_path, trust_key)
    assert not Claim.objects.exists()


def test_again_for_one_that_is_enrolled(tmp_path: Path, trust_key: Path, device: Device) -> None:
    ca.init(now=clock.now())
    output = tmp_path / "provision.json"
    common = ["--product-line", "ct-dual", "--trust-key", str(trust_key), "-o", str(output)]
    call_command("claim", device.serial, "--again", *common)
    claim = Claim.objects.get()
    assert (claim.device, claim.site) == (device, device.site)
    assert json.loads(output.read_text())["serial"] == device.serial
    with pytest.raises(CommandError, match="not enrolled"):
        call_command("claim", "SN-NOBODY", "--again", *common)
    with pytest.raises(CommandError, match="--again"):
        call_command("claim", device.serial, "--site", "Main", *common)
