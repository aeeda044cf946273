"""Reads: what devices are told, what the portal links to, what hospitals allow."""

from dataclasses import dataclass
from datetime import date

from django.conf import settings
from django.db.models import Q, QuerySet

from fleet.core.addresses import Address, parse_address
from fleet.servers.models import AccessServer


def public_address() -> Address:
    """Where devices and people reach the main server. Raises Invalid."""
    return parse_address(settings.PATENCY_PUBLIC or settings.PATENCY_MQTT)


def in_use(today: date) -> QuerySet[AccessServer]:
    """Those that devices may be sent to: enabled, and hospitals have had their notice."""
    return AccessServer.objects.filter(
        Q(unlisted_on=None) | Q(unlisted_on__gt=today), enabled=True, listed_on__lte=today
    )


def for_devices(today: date) -> list[Address]:
    """Where devices connect, in order of preference: the access servers, or the main server's own
    gate while there is none."""
    rows = in_use(today).values_list("host", "port")
    return [Address(host, port) for host, port in rows] or [public_address()]


def linked() -> list[AccessServer]:
    """Those to which the portal holds a link: one that is no longer listed may have devices."""
    return list(AccessServer.objects.filter(enabled=True))


@dataclass(frozen=True, slots=True)
class Listed:
    """One line of the allow-list."""

    name: str  # "portal" or the access server's
    host: str
    address: str | None
    port: int
    place: str
    region: str
    listed_on: date | None  # None: from the beginning
    unlisted_on: date | None

    def allowed(self, today: date) -> bool:
        return (self.listed_on is None or self.listed_on <= today) and (
            self.unlisted_on is None or today < self.unlisted_on
        )


@dataclass(frozen=True, slots=True)
class Change:
    """Something that hospitals add or may remove on a day."""

    on: date
    added: bool
    entry: Listed


def listing() -> list[Listed]:
    """Every host that ever was on the list: the main server first, then in order of preference."""
    here = public_address()
    portal = Listed(
        name="portal",
        host=here.host,
        address=settings.PATENCY_PUBLIC_ADDRESS or None,
        port=here.port,
        place=settings.PATENCY_PUBLIC_PLACE,
        region=settings.PATENCY_PUBLIC_REGION,
        listed_on=None,
        unlisted_on=None,
    )
    return [portal] + [
        Listed(
            name=row.name,
            host=row.host,
            address=row.address,
            port=row.port,
            place=row.place,
            region=row.region,
            listed_on=row.listed_on,
            unlisted_on=row.unlisted_on,
        )
        for row in AccessServer.objects.all()
    ]


def changes(entries: list[Listed]) -> list[Change]:
    """Every dated change, newest first; those to come are on top."""
    found = [Change(entry.listed_on, True, entry) for entry in entries if entry.listed_on]
    found += [Change(entry.unlisted_on, False, entry) for entry in entries if entry.unlisted_on]
    return sorted(found, key=lambda change: (change.on, change.entry.name), reverse=True)
