"""The trust ceremony: a key outside the portal signs who an injector may believe (R-ACC-4).

The trust folder belongs on a machine apart from the portal. It holds `trust.key` (Ed25519, OpenSSH
format, 0600), `trust.pub` (the raw key in base64, for provisioning bundles), `version`, which only
goes up: it is on disk before anything that carries it exists; and `checked.json`: which fingerprint
was compared with whom, and when, so that each is asked about once and not every week.
"""

import base64
import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from agent.wire import entitlement, roster, sshsig
from agent.wire.catalogue import Level, ProductLineCode
from agent.wire.messages import Name, PersonId
from fleet.client import keys
from fleet.client.errors import ClientError
from fleet.client.i18n import _

Row = TypeVar("Row", bound=msgspec.Struct)

KEY, PUBLIC, VERSION, CHECKED = "trust.key", "trust.pub", "version", "checked.json"


class Line(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One specialist in the members file; `until`, the last day of vetting and training."""

    id: PersonId
    name: Name
    keys: Annotated[list[str], msgspec.Meta(max_length=2)] = []  # lines of .pub files
    passkeys: Annotated[list[roster.Passkey], msgspec.Meta(max_length=2)] = []
    level: Level
    patient_data: bool = False
    product_lines: Annotated[list[ProductLineCode], msgspec.Meta(min_length=1, max_length=16)]
    until: date


def new(folder: Path) -> bytes:
    """Make a trust folder. Returns the raw public key. Raises ClientError when there is one."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = keys.create(folder / KEY)
    (folder / f"{KEY}.pub").unlink()  # it would be taken for a specialist's
    raw = key.public_key().public_bytes_raw()
    (folder / PUBLIC).write_text(base64.b64encode(raw).decode() + "\n", encoding="ascii")
    return raw


def _rows(path: Path, kind: type[Row], unlike: str) -> list[Row]:
    """The list in a JSON file. Raises ClientError, in the words of `unlike` when it is no such."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[kind])  # type: ignore[valid-type]
    except OSError as error:
        raise ClientError(
            _("{path} cannot be read: {error}.").format(path=path, error=error.strerror)
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ClientError(unlike.format(path=path, error=error)) from error


def read_members(path: Path) -> list[roster.Member]:
    """Raises ClientError that names the place in the file."""
    unlike = _("{path} is not a list of members ({error}). See docs/cli.md for its form.")
    lines = _rows(path, Line, unlike)
    ids = [line.id for line in lines]
    if len(set(ids)) < len(ids):
        raise ClientError(
            _("{path} names somebody twice. Give each specialist one entry.").format(path=path)
        )
    return [_member(path, line) for line in lines]


def _member(path: Path, line: Line) -> roster.Member:
    if line.level is Level.OS and not line.patient_data:
        raise ClientError(
            _(
                "{path}: {id} has the level os, which can see patient data, without "
                '"patient_data": true. Grant it, or lower the level.'
            ).format(path=path, id=line.id)
        )
    try:
        return roster.Member(
            id=line.id,
            name=line.name,
            keys=[_key(text) for text in line.keys],
            passkeys=line.passkeys,
            level=line.level,
            patient_data=line.patient_data,
            product_lines=line.product_lines,
            until=_millis(datetime.combine(line.until, time.max, UTC)),
        )
    except ValueError as error:
        raise ClientError(
            _("{path}: {id}: {error}. See docs/cli.md for its form.").format(
                path=path, id=line.id, error=error
            )
        ) from error


def _key(text: str) -> bytes:
    """A line of a `.pub` file, or the 32 bytes of an Ed25519 key in base64. Raises ValueError."""
    with contextlib.suppress(ValueError):
        raw = base64.b64decode(text, validate=True)
        if len(raw) == 32:
            return sshsig.public_blob(raw)
    return sshsig.public_line(text)


def prints(member: roster.Member) -> list[str]:
    """What must have been compared with its owner, for each key and passkey."""
    return [
        *map(keys.fingerprint, member.keys),
        *map(passkey_fingerprint, member.passkeys),
    ]


def shown(member: roster.Member) -> str:
    """A line for whoever signs."""
    lines = ",".join(member.product_lines)
    data = "  patient-data" if member.patient_data else ""
    return f"{member.id}  {member.name}  {member.level}{data}  {lines}  {' '.join(prints(member))}"


class Checked:
    """Which fingerprints were compared with their owners, outside the portal."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / CHECKED
        self._known: dict[str, dict[str, str]] = {}
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
            self._known = {str(print): dict(entry) for print, entry in found.items()}
        except FileNotFoundError:
            pass
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise ClientError(
                _(
                    "{path} cannot be read ({error}). Move it away, and compare every fingerprint "
                    "with its owner again."
                ).format(path=self._path, error=error)
            ) from error

    def missing(self, members: list[roster.Member]) -> list[tuple[roster.Member, str]]:
        """Who still has to be asked for which fingerprint. A key that changes hands is asked for
        again."""
        return [
            (member, print)
            for member in members
            for print in prints(member)
            if self._known.get(print, {}).get("id") != member.id
        ]

    def add(self, member: roster.Member, print: str, on: date) -> None:
        """On disk when it returns."""
        self._known[print] = {"id": member.id, "on": on.isoformat()}
        write(self._path, self._known)


def passkey_fingerprint(passkey: roster.Passkey) -> str:
    """SHA-256 of credential id and public key, as the access origin shows it when it is made."""
    digest = hashlib.sha256(passkey.id + passkey.key).hexdigest()[:40]
    return "passkey:" + "-".join(digest[at : at + 5] for at in range(0, 40, 5))


def sign(
    folder: Path,
    members: list[roster.Member],
    *,
    now: datetime,
    life: timedelta = roster.MAX_LIFE,
) -> dict[str, str]:
    """The signed roster as `manage.py roster import` takes it. Raises ClientError."""
    if not timedelta(0) < life <= roster.MAX_LIFE:
        raise ClientError(_("A roster lives seven days at most."))
    key = keys.load(folder / KEY)
    version = next_version(folder)
    data, signature = roster.sign(
        key,
        roster.Roster(
            version=version,
            issued_at=_millis(now),
            expires_at=_millis(now + life),
            members=members,
        ),
    )
    return {
        "roster": base64.b64encode(data).decode(),
        "signature": base64.b64encode(signature).decode(),
    }


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """One injector in a grants file; other fields (`manage.py entitlement wanted` gives some) are
    for its reader."""

    product_line: ProductLineCode
    serial: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]{1,64}\Z")]
    level: Level
    begins: date
    ends: date  # the last day, before the grace
    grace_days: Annotated[int, msgspec.Meta(ge=0, le=entitlement.MAX_GRACE_DAYS)] = 30


def read_grants(path: Path) -> list[Grant]:
    """Raises ClientError that names the place in the file."""
    unlike = _("{path} is not a list of grants ({error}). See docs/cli.md for its form.")
    grants = _rows(path, Grant, unlike)
    if len({(it.product_line, it.serial) for it in grants}) < len(grants):
        raise ClientError(
            _("{path} names an injector twice. Give each one entry.").format(path=path)
        )
    for it in grants:
        if it.ends < it.begins:
            raise ClientError(
                _("{path}: {serial} ends before it begins.").format(path=path, serial=it.serial)
            )
    return grants


def entitle(folder: Path, grants: list[Grant]) -> dict[str, list[dict[str, str]]]:
    """The signed entitlements as `manage.py entitlement import` takes them. Raises ClientError."""
    key = keys.load(folder / KEY)
    version = next_version(folder)
    made = (
        entitlement.sign(
            key,
            entitlement.Entitlement(
                version=version,
                product_line=it.product_line,
                serial=it.serial,
                level=it.level,
                starts_at=_millis(datetime.combine(it.begins, time.min, UTC)),
                ends_at=_millis(datetime.combine(it.ends, time.max, UTC)),
                grace_days=it.grace_days,
            ),
        )
        for it in grants
    )
    return {
        "entitlements": [
            {
                "entitlement": base64.b64encode(data).decode(),
                "signature": base64.b64encode(signature).decode(),
            }
            for data, signature in made
        ]
    }


def write(path: Path, signed: dict[str, Any]) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(json.dumps(signed, indent=1) + "\n", encoding="ascii")
    aside.replace(path)


def _millis(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def next_version(folder: Path) -> int:
    """The next of this folder, which is on disk before anything carries it. Raises ClientError."""
    with _locked(folder):
        return _counted(folder)


def _counted(folder: Path) -> int:
    path = folder / VERSION
    try:
        version = int(path.read_text(encoding="ascii")) + 1
    except FileNotFoundError:
        version = 1
    except ValueError:
        raise ClientError(
            _(
                "{path} is damaged. Write into it the highest version ever signed; injectors "
                "refuse a lower one."
            ).format(path=path)
        ) from None
    aside = path.with_name(f".{VERSION}.new")
    with aside.open("w", encoding="ascii") as file:
        file.write(f"{version}\n")
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
    return version
