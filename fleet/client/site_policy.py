"""The hospital's own key and policy: what its IT signs, on a machine of its own (R-ACC-7).

A site folder has `site.key` (the private key: keep it off the network), `site.pub` (the raw public
half in base64) and `version`, which only goes up: it is on disk before anything that carries it.
"""

import base64
from datetime import time
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import msgspec

from agent.wire import site_policy as wire
from agent.wire.site_policy import Hours, Rule, SitePolicy
from fleet.client import keys, trust
from fleet.client.errors import ClientError
from fleet.client.i18n import _

KEY, PUBLIC = "site.key", "site.pub"
MAX_BYTES = 64 * 1024
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
_DAYS: tuple[Day, ...] = get_args(Day)


class Written(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Other rules by hour, as people write them; a kind that is left out keeps the policy's."""

    days: Annotated[list[Day], msgspec.Meta(min_length=1, max_length=7)] | None = None
    begins: Annotated[str, msgspec.Meta(pattern=r"^[0-2][0-9]:[0-5][0-9]\Z")]
    ends: Annotated[str, msgspec.Meta(pattern=r"^[0-2][0-9]:[0-5][0-9]\Z")]
    diagnostics: Rule | None = None
    service: Rule | None = None
    os: Literal["ask", "deny"] | None = None
    jobs: Literal["allow", "deny"] | None = None


def new(folder: Path) -> bytes:
    """Make a site folder. Returns the raw public key. Raises ClientError when there is one."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = keys.create(folder / KEY)
    (folder / f"{KEY}.pub").unlink()  # it would be taken for a specialist's
    raw = key.public_key().public_bytes_raw()
    (folder / PUBLIC).write_text(base64.b64encode(raw).decode() + "\n", encoding="ascii")
    return raw


def read(path: Path) -> dict[str, Any]:
    """The policy that somebody wrote, without its version. Raises ClientError that names the place
    in the file."""
    try:
        with path.open("rb") as file:
            wanted = msgspec.json.decode(file.read(MAX_BYTES), type=dict[str, Any])
        hours = msgspec.convert(wanted.pop("hours", []), list[Written])
        made = msgspec.convert({"version": 1, **wanted}, SitePolicy)
        if "version" in wanted:
            raise ValueError(_("the version is counted by the site folder; leave it out"))
        return {**msgspec.structs.asdict(made), "hours": [_hours(made, it) for it in hours]}
    except OSError as error:
        raise ClientError(
            _("{path} cannot be read: {error}.").format(path=path, error=error.strerror)
        ) from error
    except (msgspec.DecodeError, ValueError) as error:
        raise ClientError(
            _("{path} is no site policy ({error}). See docs/access.md for its form.").format(
                path=path, error=error
            )
        ) from error


def _hours(policy: SitePolicy, it: Written) -> Hours:
    def minutes(text: str) -> int:
        at = time.fromisoformat(text)
        return at.hour * 60 + at.minute

    return Hours(
        days=sorted({_DAYS.index(day) + 1 for day in it.days or _DAYS}),
        begins=minutes(it.begins),
        ends=minutes(it.ends),
        diagnostics=it.diagnostics or policy.diagnostics,
        service=it.service or policy.service,
        os=it.os or policy.os,
        jobs=it.jobs or policy.jobs,
    )


def sign(folder: Path, written: dict[str, Any]) -> dict[str, str]:
    """The signed policy as an injector takes it. Raises ClientError."""
    key = keys.load(folder / KEY)
    version = trust.next_version(folder)
    try:
        policy = msgspec.convert(msgspec.to_builtins({**written, "version": version}), SitePolicy)
    except msgspec.ValidationError as error:
        raise ClientError(_("This is no site policy: {error}.").format(error=error)) from error
    data, signature = wire.sign(key, policy)
    parts = {
        "policy": data, "key": key.public_key().public_bytes_raw(), "signature": signature,
    }  # fmt: skip
    return {name: base64.b64encode(part).decode() for name, part in parts.items()}


def show(path: Path) -> dict[str, Any]:
    """What a signed file says, its signature verified. Raises ClientError."""
    try:
        with path.open("rb") as file:
            parts = msgspec.json.decode(file.read(MAX_BYTES), type=dict[str, bytes])
        key = parts["key"]
        policy = wire.verify(parts["policy"], parts["signature"], key=key, version=0)
    except OSError as error:
        raise ClientError(
            _("{path} cannot be read: {error}.").format(path=path, error=error.strerror)
        ) from error
    except (msgspec.DecodeError, KeyError, ValueError) as error:
        raise ClientError(
            _("{path} is no signed site policy ({error}).").format(path=path, error=error)
        ) from error
    return {"fingerprint": wire.fingerprint(key), **msgspec.to_builtins(policy)}
