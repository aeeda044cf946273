"""State directories as manufacture leaves them: made once, kept, and pointed where the gate is."""

import json
import shlex
import socket
from pathlib import Path
from typing import Any

import pytest
from django.test.utils import override_settings

from fleet.core import clock
from fleet.core.errors import Conflict
from fleet.demo import injectors, people
from fleet.demo.plan import plan
from fleet.enrolment import ca
from fleet.enrolment.models import Claim
from fleet.inventory import catalogue
from fleet.inventory.models import ProductLine, Site

pytestmark = pytest.mark.django_db

TRUST_KEY = bytes(range(32))


@pytest.fixture
def sites(portal_data: Path) -> dict[str, Site]:
    ca.init(now=clock.now())
    catalogue.load()
    return people.organisations(plan())


def prepare(sites: dict[str, Site], data: Path) -> list[injectors.Injector]:
    return injectors.prepare(plan(), sites, data, TRUST_KEY)


def read(injector: injectors.Injector, name: str = "driver.json") -> dict[str, object]:
    found: dict[str, object] = json.loads((injector.state_dir / name).read_bytes())
    return found


def test_twelve_directories_with_a_claim_each(sites: dict[str, Site], portal_data: Path) -> None:
    made = prepare(sites, portal_data)
    assert len(made) == 12
    assert Claim.objects.filter(used_at=None, revoked_at=None).count() == 12
    assert {i.plan.process for i in made} == {"ct-multi", "ct-dual", "mr-dual", "shared"}
    assert len({read(i)["seed"] for i in made}) == 12
    languages = {i.plan.serial: read(i)["language"] for i in made}
    assert set(languages.values()) == {"en", "fr-CA"}
    ports = [port for i in made for port in i.ports.values()]
    assert len(set(ports)) == 36
    for injector in made:
        assert injector.state_dir.stat().st_mode & 0o777 == 0o700
        assert read(injector, "provision.json")["serial"] == injector.plan.serial


def test_a_second_start_changes_nothing(sites: dict[str, Site], portal_data: Path) -> None:
    first = prepare(sites, portal_data)
    before = {p: p.read_bytes() for i in first for p in i.state_dir.iterdir()}
    assert prepare(sites, portal_data) == first
    assert {p: p.read_bytes() for i in first for p in i.state_dir.iterdir()} == before
    assert Claim.objects.count() == 12


def test_a_claim_that_was_not_written_down_is_made_again(
    sites: dict[str, Site], portal_data: Path
) -> None:
    (injector, *_others) = prepare(sites, portal_data)
    (injector.state_dir / "provision.json").unlink()
    prepare(sites, portal_data)
    serial = injector.plan.serial
    assert Claim.objects.filter(serial=serial, revoked_at=None).count() == 1
    assert Claim.objects.filter(serial=serial).count() == 2


def test_a_gate_that_moved_is_told_to_the_injectors(
    sites: dict[str, Site], portal_data: Path
) -> None:
    (injector, *_others) = prepare(sites, portal_data)
    servers = injector.state_dir / "servers.json"
    servers.write_text(json.dumps([{"host": "127.0.0.1", "port": 1}]))
    with override_settings(PATENCY_MQTT="127.0.0.1:28443"):
        prepare(sites, portal_data)
    here = {"host": "127.0.0.1", "port": 28443}
    assert read(injector, "provision.json")["enrol"] == here
    assert json.loads(servers.read_bytes()) == [here]


def test_what_cannot_go_on_says_how_to_start_afresh(
    sites: dict[str, Site], portal_data: Path, authority_leaf: bytes
) -> None:
    (injector, other, *_others) = prepare(sites, portal_data)
    (injector.state_dir / "device.pem").write_bytes(authority_leaf)
    with pytest.raises(Conflict, match=r"has expired. Start afresh with: rm -r"):
        prepare(sites, portal_data)
    (injector.state_dir / "device.pem").unlink()
    (other.state_dir / "driver.json").write_text("{")
    with pytest.raises(Conflict, match="Start afresh"):
        prepare(sites, portal_data)


@pytest.mark.parametrize("garbage", [b"garbage", b"[]", b"\xff", b"[" * 5000])
@pytest.mark.parametrize("name", ["driver.json", "provision.json", "device.pem"])
def test_a_damaged_file_is_named_with_a_command_that_works(
    sites: dict[str, Site], portal_data: Path, settings: Any, name: str, garbage: bytes
) -> None:
    data = portal_data.with_name("a b; $HOME")
    settings.PATENCY_DATA = data
    ca.init(now=clock.now())
    (injector, *_others) = prepare(sites, data)
    (injector.state_dir / name).write_bytes(garbage)
    with pytest.raises(Conflict) as caught:
        prepare(sites, data)
    said = caught.value.message
    assert str(injector.state_dir / name) in said
    assert shlex.split(said.partition("with: ")[2]) == ["rm", "-r", str(data)]


def test_damaged_driver_settings_and_servers(sites: dict[str, Site], portal_data: Path) -> None:
    (injector, *_others) = prepare(sites, portal_data)
    servers = injector.state_dir / "servers.json"
    servers.write_bytes(b"garbage")
    prepare(sites, portal_data)
    assert isinstance(json.loads(servers.read_bytes()), list)
    (injector.state_dir / "driver.json").write_text('{"services": {"ssh": "x"}}')
    with pytest.raises(Conflict, match=r"driver\.json: it is damaged"):
        prepare(sites, portal_data)


@pytest.fixture
def authority_leaf(sites: dict[str, Site]) -> bytes:
    """A certificate issued forty days ago."""
    from datetime import timedelta

    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding

    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    leaf = ca.issue_device("device-0001", key, now=clock.now() - timedelta(days=40))
    return leaf.public_bytes(Encoding.PEM)


def test_a_port_in_use_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(injectors, "PORTS", range(port, port + 1))
        assert list(injectors._free_ports(set())) == []


@pytest.mark.parametrize("pace", ["0", "-1", "nan", "quick", ""])
def test_a_pace_that_is_none_is_refused(pace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATENCY_DEMO_PACE", pace)
    with pytest.raises(Conflict, match="Give a number"):
        injectors._pace()


def test_the_names_of_products_are_data_and_nowhere_in_code(sites: dict[str, Site]) -> None:
    """R-CON-1: their owner's trademarks stand in the catalogue alone."""
    names = [line.name.split()[-1] for line in ProductLine.objects.all()]
    assert len(names) == 3
    root = Path(__file__).parents[3]
    for folder in ("agent", "broker", "fleet", "templates"):
        for path in (root / folder).rglob("*"):
            if path.suffix in (".py", ".html", ".js"):
                text = path.read_text(encoding="utf-8")
                assert not any(name in text for name in names), path
