"""The demo's organisations, sites and users, and the specialists' keys and profiles."""

import base64
import json
import subprocess
import sys
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.core.management import call_command

from fleet.accounts import factors
from fleet.accounts import services as accounts
from fleet.accounts.models import Organisation, Role, User
from fleet.accounts.selectors import live_token
from fleet.client import keys
from fleet.client.errors import ClientError
from fleet.client.profile import Profile
from fleet.core import clock
from fleet.core.errors import Conflict
from fleet.core.files import write_private
from fleet.demo.plan import Plan, UserPlan
from fleet.demo.reading import damaged, start_afresh
from fleet.enrolment import ca
from fleet.inventory.models import Site

TOKEN_LIFE = timedelta(days=90)
TRAINED_FOR = timedelta(days=365)
ENTITLED_FOR = timedelta(days=365)
_TRUST_S = 60.0
_KEY_BYTES = 32  # Ed25519


@dataclass(frozen=True, slots=True)
class Person:
    """A user with what it takes to be them."""

    user: User
    plan: UserPlan
    token: str


def organisations(plan: Plan) -> dict[str, Site]:
    """Make what is missing. Returns the sites by their key."""
    sites: dict[str, Site] = {}
    for wanted in plan.organisations:
        organisation, _made = Organisation.objects.get_or_create(
            name=wanted.name, defaults={"kind": wanted.kind, "language": wanted.language}
        )
        for place in wanted.sites:
            sites[place.key], _made = Site.objects.get_or_create(
                organisation=organisation, name=place.name, defaults={"city": place.city}
            )
    return sites


def people(plan: Plan, earlier: dict[str, str]) -> list[Person]:
    """The users; `earlier` are the tokens of the last start, which go on while they live."""
    names = {organisation.key: organisation.name for organisation in plan.organisations}
    found = []
    for wanted in plan.users:
        user = User.objects.filter(username=wanted.username).first()
        if user is None:
            user = User.objects.create_user(
                wanted.username,
                password=plan.password,
                first_name=wanted.first_name,
                last_name=wanted.last_name,
                organisation=Organisation.objects.get(name=names[wanted.organisation]),
                role=wanted.role.value,
                language=wanted.language,
            )
        if wanted.totp is not None and not factors.has(user):
            factors.set_up_totp(user, wanted.totp)
        found.append(Person(user, wanted, _token(user, earlier.get(user.username))))
    return found


def _token(user: User, earlier: str | None) -> str:
    if earlier:
        known = live_token(earlier, now=clock.now() + timedelta(days=1))
        if known is not None and known.user == user:
            return earlier
    return accounts.issue_token(user, "demo", TOKEN_LIFE)


# --- specialists: keys, profiles, the roster ----------------------------------------------------


def profiles(everybody: list[Person], data: Path, url: str) -> dict[str, bytes]:
    """A profile folder for each specialist. Returns the raw public keys by user name."""
    public: dict[str, bytes] = {}
    for person in everybody:
        if person.user.role != Role.SPECIALIST or person.plan.profile is None:
            continue
        folder = data / person.plan.profile
        path = folder / "id_ed25519"
        try:
            key = keys.load(path) if path.exists() else keys.create(path)
        except ClientError as error:
            raise start_afresh(path, error.message) from error
        folder.chmod(0o700)
        write_private(folder / "device-root.pem", ca.pem("device-root").encode())
        Profile(folder=folder, url=url, token=person.token, specialist=person.user.username).save()
        raw = key.public_key().public_bytes_raw()
        accounts.add_key(person.user, raw)
        public[person.user.username] = raw
    return public


def trust_key(data: Path) -> bytes:
    """The raw public trust key; its folder is made at the first start."""
    folder = data / "trust"
    if not (folder / "trust.key").exists():
        _patency("trust", "new", str(folder))
    path = folder / "trust.pub"
    try:
        key = base64.b64decode(path.read_text(encoding="ascii").strip(), validate=True)
    except ValueError as error:
        raise damaged(path) from error
    if len(key) != _KEY_BYTES:
        raise damaged(path)
    return key


def roster(everybody: list[Person], public: dict[str, bytes], plan: Plan, data: Path) -> None:
    """Have the trust key sign the specialists, and import what it signed.

    The signing is a process of its own that reads the trust folder and a members file: in life it
    runs on another machine.
    """
    folder = data / "trust"
    passkeys = _passkeys(folder / "members.json")
    members = [
        {**_member(person, public[person.user.username], plan),
         "passkeys": passkeys.get(person.user.username, [])}
        for person in everybody if person.user.username in public
    ]  # fmt: skip
    write_private(folder / "members.json", json.dumps(members, indent=1).encode())
    signed = folder / "roster.json"
    _patency(
        "trust", "sign", "--trust", str(folder), "--members", str(folder / "members.json"),
        "-o", str(signed), "--yes",
    )  # fmt: skip
    key = (folder / "trust.pub").read_text(encoding="ascii").strip()
    with Path("/dev/null").open("w") as nowhere:
        call_command("roster", "import", str(signed), "--trust-key", key, stdout=nowhere)


def _passkeys(path: Path) -> dict[str, Any]:
    """The access passkeys that were put into the members file by hand, by person."""
    try:
        return {line["id"]: line["passkeys"] for line in json.loads(path.read_text("utf-8"))}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError) as error:
        raise damaged(path) from error


def entitlements(plan: Plan, data: Path) -> None:
    """Have the trust key entitle every injector of the plan, and import what it signed."""
    folder, today = data / "trust", clock.now().date()
    grants = [
        {
            "product_line": device.product_line.value,
            "serial": device.serial,
            "level": "os",
            "begins": today.isoformat(),
            "ends": (today + ENTITLED_FOR).isoformat(),
        }
        for device in plan.devices
    ]
    write_private(folder / "grants.json", json.dumps(grants, indent=1).encode())
    signed = folder / "entitlements.json"
    _patency(
        "trust", "entitle", "--trust", str(folder), "--grants", str(folder / "grants.json"),
        "-o", str(signed),
    )  # fmt: skip
    key = (folder / "trust.pub").read_text(encoding="ascii").strip()
    with Path("/dev/null").open("w") as nowhere:
        call_command("entitlement", "import", str(signed), "--trust-key", key, stdout=nowhere)


def _member(person: Person, key: bytes, plan: Plan) -> dict[str, Any]:
    return {
        "id": person.user.username,
        "name": person.user.display_name,
        "keys": [base64.b64encode(key).decode()],
        "level": "os",
        "patient_data": True,
        "product_lines": sorted({device.product_line.value for device in plan.devices}),
        "until": (clock.now() + TRAINED_FOR).date().isoformat(),
    }


def command(name: str) -> Path:
    """A command of this installation, beside the Python that runs."""
    return Path(sys.executable).parent / name


def _patency(*arguments: str) -> None:
    done = subprocess.run(
        [str(command("patency")), *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_TRUST_S,
        check=False,
    )
    if done.returncode != 0:
        raise Conflict(f"patency {' '.join(arguments[:2])}: {done.stderr.strip()}")
