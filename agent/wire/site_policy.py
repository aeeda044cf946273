"""The site's policy: what the hospital allows at its injectors, signed by its own key (R-ACC-7).

Versioned, never going back. The hospital's key (Ed25519) is no anchor of the vendor's: an injector
accepts it once, at its panel, after a person there has seen its fingerprint. A kind of action is
allowed, needs a person at the injector who approves, or is denied; hours, in the site's own time,
may say otherwise. The first hours that hold count; outside all of them the policy's own rules do.

Two policies are compared, and a vendor's tightening is joined to one, by `stricter`, field by
field: what it gives allows nothing that either does not. Pure; whoever asks says which minute of
the week it is at the site, 0 being Monday 00:00; None, when nobody knows, gives the strictest.
"""

import hashlib
from enum import StrEnum
from typing import Annotated, Any, Literal

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from agent.wire.catalogue import ClientKind, Level
from agent.wire.chain import canonical
from agent.wire.fields import Seq

DAY, WEEK = 24 * 60, 7 * 24 * 60  # minutes
MAX_HOURS = 16
_PURPOSE = b"patency site policy 1\n"


class SitePolicyError(ValueError):
    """A site policy that must not be used; the text names the field."""


class Rule(StrEnum):
    ALLOW = "allow"
    ASK = "ask"  # a person at the injector approves
    DENY = "deny"


class Rules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One rule for each kind of action."""

    diagnostics: Rule = Rule.ALLOW
    service: Rule = Rule.ALLOW
    os: Literal["ask", "deny"] = "ask"  # never allowed without a person (R-ACC-6)
    jobs: Literal["allow", "deny"] = "allow"  # they run by themselves, so nobody can be asked


class Settings(Rules, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What holds at one moment. Times in seconds."""

    approval_wait_s: Annotated[int, msgspec.Meta(ge=60, le=600)] = 300
    idle_s: Annotated[int, msgspec.Meta(ge=60, le=3600)] = 900
    renewal_s: Annotated[int, msgspec.Meta(ge=300, le=1800)] = 1800  # of presence
    in_use: Literal["hold", "end"] = "hold"  # a running session, when the injector comes into use
    sessions: Annotated[int, msgspec.Meta(ge=1, le=4)] = 1  # at a time
    command_line_only: bool = False  # a browser's answer is not taken at any level
    browser_os: bool = False  # nor at `os`, unless the site opts in
    four_eyes: bool = False  # where a person is asked, two are
    ticket_h: Annotated[int, msgspec.Meta(ge=0, le=8)] = 0  # one consent may cover a ticket

    def rule(self, level: Level) -> Rule:
        return Rule(
            {Level.DIAGNOSTICS: self.diagnostics, Level.SERVICE: self.service}.get(level, self.os)
        )

    @property
    def approvers(self) -> int:
        """How many people at the injector must approve where one is asked."""
        return 2 if self.four_eyes else 1

    def takes(self, client: ClientKind, level: Level) -> bool:
        """Whether a specialist may work with this at this level."""
        if client is ClientKind.COMMAND_LINE:
            return True
        return not self.command_line_only and (level is not Level.OS or self.browser_os)


class Hours(Rules, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Other rules, from one minute of the day to another; past midnight when that is not later."""

    days: Annotated[list[Annotated[int, msgspec.Meta(ge=1, le=7)]], msgspec.Meta(min_length=1)]
    begins: Annotated[int, msgspec.Meta(ge=0, lt=DAY)]
    ends: Annotated[int, msgspec.Meta(ge=0, lt=DAY)]

    def hold(self, minute: int) -> bool:
        """Whether they do at this minute of the week; `days` are those on which they begin."""
        length = (self.ends - self.begins) % DAY or DAY
        return any((minute - (day - 1) * DAY - self.begins) % WEEK < length for day in self.days)


class SitePolicy(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    v: Literal[1] = 1
    version: Seq
    zone: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+){0,2}\Z")] = "UTC"
    hours: Annotated[list[Hours], msgspec.Meta(max_length=MAX_HOURS)] = []

    def at(self, minute: int | None) -> Settings:
        """What holds at this minute of the week at the site."""
        base = settings(self)
        if minute is None:
            for hours in self.hours:
                base = stricter(base, _with(base, hours))
            return base
        return next((_with(base, hours) for hours in self.hours if hours.hold(minute)), base)

    def turns(self) -> set[int]:
        """The minutes of the week at which something else may begin to hold."""
        days = [(hours, (day - 1) * DAY) for hours in self.hours for day in hours.days]
        begins = {(start + hours.begins) % WEEK for hours, start in days}
        ends = {
            (start + hours.begins + ((hours.ends - hours.begins) % DAY or DAY)) % WEEK
            for hours, start in days
        }
        return {0} | begins | ends


class Tightening(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the vendor asks for on top, unsigned; None leaves it to the site."""

    diagnostics: Rule | None = None
    service: Rule | None = None
    os: Literal["ask", "deny"] | None = None
    jobs: Literal["allow", "deny"] | None = None
    approval_wait_s: Annotated[int, msgspec.Meta(ge=60, le=600)] | None = None
    idle_s: Annotated[int, msgspec.Meta(ge=60, le=3600)] | None = None
    renewal_s: Annotated[int, msgspec.Meta(ge=300, le=1800)] | None = None
    in_use: Literal["hold", "end"] | None = None
    sessions: Annotated[int, msgspec.Meta(ge=1, le=4)] | None = None
    command_line_only: bool | None = None
    browser_os: bool | None = None
    four_eyes: bool | None = None
    ticket_h: Annotated[int, msgspec.Meta(ge=0, le=8)] | None = None

    def on(self, site: Settings) -> Settings:
        """The site's settings, made stricter."""
        wanted = {
            name: value for name, value in msgspec.structs.asdict(self).items() if value is not None
        }
        return stricter(site, msgspec.structs.replace(site, **wanted))


# The values of each field that are codes, from lax to strict; of the others, the direction.
_CODES: dict[str, tuple[Any, ...]] = {
    "diagnostics": tuple(Rule),
    "service": tuple(Rule),
    "os": ("ask", "deny"),
    "jobs": ("allow", "deny"),
    "in_use": ("hold", "end"),
    "command_line_only": (False, True),
    "browser_os": (True, False),
    "four_eyes": (False, True),
}
_FIELDS = Settings.__struct_fields__


def settings(policy: Settings) -> Settings:
    """The settings alone, of whatever has them."""
    return Settings(**{name: getattr(policy, name) for name in _FIELDS})


def _with(base: Settings, rules: Rules) -> Settings:
    return msgspec.structs.replace(
        base, **{name: getattr(rules, name) for name in Rules.__struct_fields__}
    )


def _stricter(name: str, one: Any, other: Any) -> Any:
    codes = _CODES.get(name)
    return max(one, other, key=codes.index) if codes else min(one, other)


def stricter(one: Settings, other: Settings) -> Settings:
    """Allows nothing that either does not."""
    return Settings(
        **{name: _stricter(name, getattr(one, name), getattr(other, name)) for name in _FIELDS}
    )


def loosened(old: Settings, new: SitePolicy) -> list[str]:
    """Fields in which `new` ever allows what `old` does not; in the order of the fields. Two that
    keep other time are compared at their laxest and strictest."""
    found: set[str] = set()
    for before, after in _moments(old, new):
        both = stricter(before, after)
        found |= {name for name in _FIELDS if getattr(both, name) != getattr(after, name)}
    return [name for name in _FIELDS if name in found]


def _moments(old: Settings, new: SitePolicy) -> list[tuple[Settings, Settings]]:
    """Every pair of what may hold before and after at one moment."""
    if not isinstance(old, SitePolicy) or not old.hours:
        return [(settings(old), new.at(minute)) for minute in sorted(new.turns())]
    if not new.hours or old.zone == new.zone:
        minutes = sorted(old.turns() | new.turns())
        return [(old.at(minute), new.at(minute)) for minute in minutes]
    return [(old.at(m), new.at(n)) for m in sorted(old.turns()) for n in sorted(new.turns())]


def fingerprint(key: bytes) -> str:
    """Of a hospital's key, as its command line and the panel show it: eight groups of five."""
    digest = hashlib.sha256(b"patency site key 1\n" + key).hexdigest()[:40]
    return "-".join(digest[at : at + 5] for at in range(0, 40, 5))


def sign(key: Ed25519PrivateKey, policy: SitePolicy) -> tuple[bytes, bytes]:
    """Canonical bytes and their signature."""
    data = canonical(policy)
    return data, key.sign(_PURPOSE + data)


_decoder = msgspec.json.Decoder(SitePolicy)


def decode(data: bytes) -> SitePolicy:
    """Read it, whoever signed. Raises SitePolicyError unless the bytes are exactly canonical."""
    try:
        policy = _decoder.decode(data)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise SitePolicyError(str(error)) from error
    if canonical(policy) != data:
        raise SitePolicyError("the site policy is not in canonical form")
    return policy


def verify(data: bytes, signature: bytes, *, key: bytes, version: int) -> SitePolicy:
    """The policy, if the hospital's key (raw) signed it and it is no older than `version`. Raises
    SitePolicyError."""
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, _PURPOSE + data)
    except (InvalidSignature, ValueError):
        raise SitePolicyError("the site policy is not signed by the hospital's key") from None
    policy = decode(data)
    if policy.version < version:
        raise SitePolicyError(
            f"site policy {policy.version} is older than {version}, which is known"
        )
    return policy
