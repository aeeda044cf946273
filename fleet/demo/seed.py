"""What the demo consists of: two hospitals, their people, twelve injectors ready to enrol.

Everything is made once and kept under $PATENCY_DATA; a second start finds it and goes on.

    ca/  trust/  portal.db                 as in production; `trust` is kept apart from the portal
    profiles/<username>/                   a specialist's profile: token, key, the device root
    devices/<serial>/                      the state directory of an injector's agent
    demo.json                              what scripts need; docs/cli.md describes it
"""

import base64
import io
import json
import random
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from django.conf import settings
from django.core.management import call_command
from django.utils.translation import gettext as _

from agent.wire.catalogue import ProductLineCode
from fleet.accounts import services as accounts
from fleet.accounts.models import Organisation, Role, User
from fleet.client import keys
from fleet.client.profile import Profile
from fleet.core import clock
from fleet.core.errors import Conflict
from fleet.core.files import write_private
from fleet.enrolment import ca, selectors
from fleet.enrolment import services as enrolment
from fleet.inventory.models import ProductLine, Site

CATALOGUE = Path(__file__).with_name("catalogue.json")
PIN = "2580"
TOKEN_LIFE = timedelta(days=90)
TRAINED_FOR = timedelta(days=365)
# Below the range from which the kernel takes ports for outgoing connections.
PORTS = range(21_000, 31_000)
SERVICES = ("ssh", "console", "web")


@dataclass
class Seeded:
    """The demo as it stands before its agents run."""

    data: Path
    users: list[dict[str, Any]] = field(default_factory=list)
    devices: list[dict[str, Any]] = field(default_factory=list)
    profile: Path = Path()

    @property
    def states(self) -> list[Path]:
        return [Path(device["state_dir"]) for device in self.devices]


def seed() -> Seeded:
    """Make what is missing. Raises Conflict when the data directory is in two minds."""
    data = Path(settings.PATENCY_DATA)
    catalogue = json.loads(CATALOGUE.read_text(encoding="utf-8"))
    seeded = Seeded(data)
    if not ca.exists():
        ca.init(now=clock.now())
    trust_key = _trust_key()
    organisations, sites = _places(catalogue)
    known = _known(data)
    for line in catalogue["users"]:
        seeded.users.append(_user(line, organisations[line["organisation"]], known))
    specialists = [line for line in catalogue["users"] if line["role"] == Role.SPECIALIST]
    for line in specialists:
        _profile(data, line["username"], seeded)
    seeded.profile = data / "profiles" / specialists[0]["username"]
    for line in catalogue["devices"]:
        seeded.devices.append(_device(line, sites[line["site"]], trust_key, data))
    _roster(specialists)
    return seeded


def write(seeded: Seeded, devices: dict[str, str]) -> Path:
    """demo.json, once the device id of every serial is known."""
    host, _colon, port = settings.PATENCY_HTTP.rpartition(":")
    name = "localhost" if host == "127.0.0.1" else host
    path = seeded.data / "demo.json"
    content = {
        "url": f"http://{name}:{port}",
        "users": seeded.users,
        "devices": [
            {**line, "device": devices[line["serial"]], "pin": PIN} for line in seeded.devices
        ],
        "cli": str(command("patency")),
        "profile": str(seeded.profile),
    }
    write_private(path, json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n")
    return path


def command(name: str) -> Path:
    """A command of this installation."""
    return Path(sys.executable).parent / name


def _trust_key() -> bytes:
    folder = ca.offline_folder()
    public = folder / "trust.pub"
    if not public.exists():
        _patency("trust", "new", str(folder))
    return base64.b64decode(public.read_text().strip())


def _patency(*arguments: str) -> None:
    """The trust ceremony is a command apart from the portal, in the demo as well."""
    subprocess.run(
        [str(command("patency")), *arguments], check=True, timeout=60, stdout=subprocess.DEVNULL
    )


def _places(catalogue: dict[str, Any]) -> tuple[dict[str, Organisation], dict[str, Site]]:
    for line in catalogue["product_lines"]:
        ProductLine.objects.update_or_create(
            pk=line["code"], defaults={"name": line["name"], "modality": line["modality"]}
        )
    organisations: dict[str, Organisation] = {}
    sites: dict[str, Site] = {}
    for line in catalogue["organisations"]:
        organisation, _made = Organisation.objects.get_or_create(
            name=line["name"], defaults={"kind": line["kind"], "language": line["language"]}
        )
        organisations[line["key"]] = organisation
        for place in line["sites"]:
            sites[place["key"]], _made = Site.objects.get_or_create(
                organisation=organisation, name=place["name"], defaults={"city": place["city"]}
            )
    return organisations, sites


def _known(data: Path) -> dict[str, str]:
    """The tokens that an earlier start wrote down."""
    try:
        users = json.loads((data / "demo.json").read_text(encoding="utf-8"))["users"]
    except FileNotFoundError:
        return {}
    return {user["username"]: user["token"] for user in users}


def _user(
    line: dict[str, Any], organisation: Organisation, known: dict[str, str]
) -> dict[str, Any]:
    username = line["username"]
    # The demo listens on loopback only; nobody should have to look a password up.
    password = f"{username}-demo"
    user = User.objects.filter(username=username).first()
    if user is None:
        user = User.objects.create_user(
            username=username,
            password=password,
            first_name=line["first"],
            last_name=line["last"],
            organisation=organisation,
            role=line["role"],
            language=line["language"],
        )
    now = clock.now()
    token = known.get(username)
    if token is None or accounts.use_token(token, now=now) is None:
        token = accounts.issue_token(user, "demo", TOKEN_LIFE, now=now)
    return {
        "username": username,
        "password": password,
        "role": line["role"],
        "organisation": organisation.name,
        "token": token,
    }


def _profile(data: Path, username: str, seeded: Seeded) -> None:
    """A profile with which `patency` works without signing in first."""
    folder = data / "profiles" / username
    key = folder / "id_ed25519"
    if not key.exists():
        keys.create(key)
    accounts.add_key(User.objects.get(username=username), _public(key).public_bytes_raw())
    (folder / "device-root.pem").write_text(ca.pem("device-root"))
    token = next(user["token"] for user in seeded.users if user["username"] == username)
    Profile(
        folder=folder, url=f"http://{settings.PATENCY_HTTP}", token=token, specialist=username
    ).save()


def _public(key: Path) -> Ed25519PublicKey:
    return keys.load(key).public_key()


def _device(line: dict[str, Any], site: Site, trust_key: bytes, data: Path) -> dict[str, Any]:
    state = data / "devices" / line["serial"]
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    provision = state / "provision.json"
    if not provision.exists():
        claim = enrolment.create_claim(
            serial=line["serial"],
            product_line=ProductLine.objects.get(pk=line["product_line"]),
            site=site,
            asset_number=line["asset_number"],
            room=line["room"],
            now=clock.now(),
        )
        bundle = selectors.provisioning_bundle(
            serial=line["serial"],
            product_line=line["product_line"],
            claim=claim,
            trust_key=trust_key,
        )
        write_private(provision, json.dumps(bundle).encode())
    return {
        "serial": line["serial"],
        "product_line": line["product_line"],
        "organisation": site.organisation.name,
        "site": site.name,
        "state_dir": str(state),
        "services": _services(state, line["serial"], site.organisation.language),
    }


def _services(state: Path, serial: str, language: str) -> dict[str, int]:
    """The ports of the simulated injector: chosen once, so that what is noted stays true."""
    path = state / "driver.json"
    if not path.exists():
        ports = dict(zip(SERVICES, _free_ports(len(SERVICES)), strict=True))
        driver = {
            "driver": "simulator",
            "services": ports,
            "language": "fr-CA" if language == "fr-ca" else "en",
            "seed": int.from_bytes(serial.encode()[-4:], "big"),
            "pace": 1.0,
        }
        write_private(path, json.dumps(driver).encode())
    services: dict[str, int] = json.loads(path.read_text())["services"]
    return services


_given: set[int] = set()


def _free_ports(count: int) -> list[int]:
    found: list[int] = []
    candidates = [port for port in PORTS if port not in _given]
    for port in random.sample(candidates, len(candidates)):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            _given.update(found)
            return found
    raise Conflict(_("No free ports between 21000 and 31000. Stop some programs and try again."))


def _roster(specialists: list[dict[str, Any]]) -> None:
    """Signed anew at each start, so that it is always within its seven days."""
    folder = ca.offline_folder()
    members = [
        {
            "id": line["username"],
            "name": f"{line['first']} {line['last']}",
            "keys": [_raw_key(line["username"])],
            "level": line["level"],
            "product_lines": [code.value for code in ProductLineCode],
            "until": (date.today() + TRAINED_FOR).isoformat(),  # noqa: DTZ011
        }
        for line in specialists
    ]
    listed, signed = folder / "members.json", folder / "roster.json"
    write_private(listed, json.dumps(members, ensure_ascii=False).encode())
    _patency("trust", "sign", "--trust", str(folder), "--members", str(listed), "-o", str(signed))
    call_command("roster", "import", str(signed), stdout=io.StringIO())


def _raw_key(username: str) -> str:
    key = Path(settings.PATENCY_DATA) / "profiles" / username / "id_ed25519"
    return base64.b64encode(_public(key).public_bytes_raw()).decode()
