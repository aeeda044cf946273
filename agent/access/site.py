"""The hospital's signed policy at this injector: which one holds, which one waits, and for whom.

The rules, all in this file (R-ACC-7; `agent.wire.site_policy` has the document):

 1. A policy is believed when the key that comes with it signed it, and its version is no lower than
    the highest that ever held here, whatever its key; two of one version are one too many.
 2. From the network, only the key that was accepted at the panel is looked at.
 3. A policy by a new key waits until a person at the panel, who has seen the key's fingerprint,
    accepts it with a PIN. Only the newest one waits.
 4. One by the accepted key holds at once when it allows nothing that what holds does not;
    when it loosens anything it waits for a PIN as well.
 5. A vendor's tightening is joined to what holds, and never loosens it. The last one counts.
 6. What is on disk is verified again when it is read; what cannot be, shuts remote access.

Kept in `site-policy.json` in the state directory. The time at the site is its zone's, by the
injector's own clock; a zone that is not known here makes the strictest of its hours hold.
"""

import hashlib
import logging
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

import msgspec

from agent import posix
from agent.access import policy
from agent.access.policy import Policy
from agent.wire import site_policy as wire
from agent.wire.fields import Count, Key32
from agent.wire.site_policy import SitePolicy, SitePolicyError, Tightening

FILE = "site-policy.json"
MAX_BYTES = 64 * 1024

log = logging.getLogger(__name__)


class Document(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A signed policy as it travels: what `patency site-policy sign` writes."""

    policy: Annotated[bytes, msgspec.Meta(min_length=2, max_length=16 * 1024)]  # canonical bytes
    key: Key32
    signature: Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.policy).hexdigest()

    @property
    def fingerprint(self) -> str:
        return wire.fingerprint(self.key)

    def verified(self, version: int = 0) -> SitePolicy:
        """Raises SitePolicyError."""
        return wire.verify(self.policy, self.signature, key=self.key, version=version)


class Site(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is known of the hospital's policy. Every change is a new one, to be saved."""

    v: Literal[1] = 1
    version: Count = 0  # the highest that ever held
    held: Document | None = None
    waiting: Document | None = None
    tightening: Tightening | None = None
    broken: bool = False  # it could not be read: nothing is allowed until a policy is accepted

    @property
    def policy(self) -> SitePolicy | None:
        return wire.decode(self.held.policy) if self.held else None

    def in_force(self, local: Policy, wall_ms: int) -> Policy:
        """What holds at this moment, `local` being what was set at the panel."""
        held = self.policy
        now: wire.Settings = local
        if held is not None:
            now = held.at(minute_of_week(held.zone, wall_ms))
        for tightening in (self.tightening, SHUT if self.broken else None):
            if tightening is not None:
                now = tightening.on(wire.settings(now))
        return local.within(now)

    def loosened(self, local: Policy, document: Document) -> list[str]:
        """Fields that this policy loosens against what the hospital allows now."""
        return wire.loosened(self.policy or local, wire.decode(document.policy))

    def offered(self, document: Document, local: Policy, *, at_panel: bool) -> "Site":
        """With this policy in force, or waiting, or as it was when it is known already. Raises
        SitePolicyError for one that must not be believed."""
        if document in (self.held, self.waiting):
            return self
        known = self.held is not None and document.key == self.held.key
        if not (known or at_panel):
            raise SitePolicyError("its key was not accepted at the panel")
        new = document.verified(self.version)
        if new.version == self.version:
            raise SitePolicyError(f"there are two of version {new.version}")
        if minute_of_week(new.zone, 0) is None:
            raise SitePolicyError(f"the time zone {new.zone} is not known to this injector")
        if known and not self.loosened(local, document):
            return self._with(document)
        if self.waiting is not None and not at_panel and self._newer_waits(new.version):
            return self
        return msgspec.structs.replace(self, waiting=document)

    def accepted(self, digest: str) -> "Site":
        """A person at the panel accepts the policy that waits, which they have seen."""
        if self.waiting is None or self.waiting.digest != digest:
            raise SitePolicyError("no such policy waits")
        self.waiting.verified(self.version)
        return self._with(self.waiting)

    def _newer_waits(self, version: int) -> bool:
        return self.waiting is not None and wire.decode(self.waiting.policy).version > version

    def _with(self, document: Document) -> "Site":
        new = wire.decode(document.policy)
        still = self.waiting if self._newer_waits(new.version) else None
        return msgspec.structs.replace(
            self, version=new.version, held=document, waiting=still, broken=False
        )


SHUT = Tightening(diagnostics=wire.Rule.DENY, service=wire.Rule.DENY, os="deny", jobs="deny")
BROKEN = Site(broken=True)


def load(state: Path) -> Site:
    path = state / FILE
    try:
        with path.open("rb") as file:
            found = msgspec.json.decode(file.read(MAX_BYTES), type=Site)
        for document in filter(None, (found.held, found.waiting)):
            document.verified()
        if found.policy is not None and found.policy.version != found.version:
            raise SitePolicyError("it is not the version that held last")
    except FileNotFoundError:
        return Site()
    except (OSError, ValueError, msgspec.DecodeError):
        log.exception("%s cannot be used: remote access is off until it is set at the panel", path)
        return BROKEN
    return found


def save(state: Path, site: Site) -> None:
    """Durable when it returns. Raises OSError."""
    posix.write_private(state / FILE, msgspec.json.encode(site))


def in_force(state: Path, wall_ms: int) -> Policy:
    """What holds at an injector at this moment, from its files."""
    return load(state).in_force(policy.load(state), wall_ms)


def read_document(data: bytes) -> Document:
    """Raises SitePolicyError."""
    try:
        return msgspec.json.decode(data, type=Document)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise SitePolicyError(f"this is no signed site policy ({error})") from error


@lru_cache(maxsize=8)
def _zone(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError):  # ZoneInfoNotFoundError is a KeyError
        return None


def minute_of_week(zone: str, wall_ms: int) -> int | None:
    """At the site, 0 being Monday 00:00; None when its zone is not known here."""
    known = _zone(zone)
    if known is None:
        return None
    local = datetime.fromtimestamp(wall_ms / 1000, UTC).astimezone(known)
    return local.weekday() * wire.DAY + local.hour * 60 + local.minute
