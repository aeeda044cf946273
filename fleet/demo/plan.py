"""What the demo consists of, read from plan.json."""

from functools import cache
from pathlib import Path

import msgspec

from agent.wire.catalogue import ProductLineCode
from fleet.accounts.models import Language, OrganisationKind, Role


class SitePlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    key: str
    name: str
    city: str


class OrganisationPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    key: str
    name: str
    kind: OrganisationKind
    language: Language
    sites: tuple[SitePlan, ...]


class UserPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`profile`: the folder of a specialist's command line, under the data directory. `totp`: the
    secret of the authenticator app, base32, of those who need a second factor."""

    username: str
    first_name: str
    last_name: str
    role: Role
    organisation: str
    language: Language
    profile: str | None = None
    totp: str | None = None


class DevicePlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`process`: which agent process it lives in. `pace`: see agent.drivers."""

    serial: str
    product_line: ProductLineCode
    site: str
    room: str
    asset_number: str
    process: str
    pace: float = 1.0


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    password: str
    pin: str
    organisations: tuple[OrganisationPlan, ...]
    users: tuple[UserPlan, ...]
    devices: tuple[DevicePlan, ...]

    @property
    def profile(self) -> str:
        """The profile folder of the first specialist, under the data directory."""
        return next(user.profile for user in self.users if user.profile)

    def organisation_of(self, device: DevicePlan) -> OrganisationPlan:
        return next(o for o in self.organisations if device.site in [s.key for s in o.sites])


@cache
def plan() -> Plan:
    data = (Path(__file__).parent / "plan.json").read_bytes()
    return msgspec.json.decode(data, type=Plan)
