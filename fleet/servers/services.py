"""Writes of access servers: by an administrator, audited; and their health, by the links.

Notice (R-CON-3): what a firewall must let through is published before it is used, and stays
published until the notice of its end is over. The period is `PATENCY_NOTICE_DAYS`; it binds once an
injector is enrolled.
"""

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils.translation import gettext as _

from agent.wire.catalogue import Outcome
from fleet.accounts.models import User
from fleet.accounts.permissions import Action, everywhere, require
from fleet.audit import services as audit
from fleet.core.addresses import parse_address
from fleet.core.errors import Conflict, Invalid, NotAllowed, NotFound
from fleet.inventory.models import Device
from fleet.servers.models import AccessServer

ADDED = "server:add"
CHANGED = "server:change"
ENABLED = "server:enable"
DISABLED = "server:disable"
RETIRED = "server:retire"
RESERVED = frozenset({"local", "portal"})
# What may change without another row: nothing that a firewall knows.
CHANGEABLE = ("place", "region", "link", "position")


def manager(user: Any) -> User:
    """The user, if they run access servers. Raises NotAllowed."""
    found = require(user, Action.SERVER_MANAGE)
    if not everywhere(found):
        raise NotAllowed(_("Access servers are the vendor’s. Ask the vendor."))
    return found


def earliest(today: date) -> date:
    """The first day on which a change may take effect."""
    if not Device.objects.exists():
        return today
    return today + timedelta(days=settings.PATENCY_NOTICE_DAYS)


def _check_notice(on: date, today: date) -> None:
    if on < earliest(today):
        raise Invalid(
            _("Hospitals need notice: the earliest day for this change is %(day)s.")
            % {"day": earliest(today).isoformat()}
        )


def add(*, actor: User, fields: Mapping[str, Any], listed_on: date, now: datetime) -> AccessServer:
    """A new access server. `fields`: name, host, address, port, place, region, link, position.

    Raises NotAllowed, Invalid, Conflict."""
    manager(actor)
    row = AccessServer(listed_on=listed_on, created_at=now, **fields)
    _check_notice(listed_on, now.date())
    if row.name in RESERVED:
        raise Invalid(
            _("“%(name)s” is the portal’s own name. Choose another.") % {"name": row.name}
        )
    _clean(row)
    with transaction.atomic():
        taken = AccessServer.objects.filter(name=row.name).exists()
        if taken or AccessServer.objects.filter(host=row.host, port=row.port).exists():
            raise Conflict(
                _("There is an access server of this name, or at this host and port, already.")
            )
        row.save(force_insert=True)
        _record(actor, ADDED, now)
    return row


def change(*, actor: User, name: str, fields: Mapping[str, Any], now: datetime) -> AccessServer:
    """Change what no firewall knows: place, region, link, position. Raises NotAllowed, NotFound,
    Invalid."""
    manager(actor)
    if unknown := sorted(set(fields) - set(CHANGEABLE)):
        raise Invalid(
            _(
                "%(fields)s cannot change: firewalls know it. Add another access server, and retire"
                " this one."
            )
            % {"fields": ", ".join(unknown)}
        )
    with transaction.atomic():
        row = get(name)
        for field, value in fields.items():
            setattr(row, field, value)
        _clean(row)
        row.save(update_fields=list(fields))
        _record(actor, CHANGED, now)
    return row


def set_enabled(*, actor: User, name: str, enabled: bool, now: datetime) -> None:
    """Use it, or stop using it at once: devices are told the others.

    Raises NotAllowed, NotFound."""
    manager(actor)
    with transaction.atomic():
        row = get(name)
        if row.enabled is not enabled:
            row.enabled = enabled
            row.save(update_fields=["enabled"])
            _record(actor, ENABLED if enabled else DISABLED, now)


def retire(*, actor: User, name: str, on: date, now: datetime) -> None:
    """From this day on hospitals need not let it through. Raises NotAllowed, NotFound, Invalid."""
    manager(actor)
    _check_notice(on, now.date())
    with transaction.atomic():
        row = get(name)
        if on <= row.listed_on:
            raise Invalid(_("It is listed from %(day)s on.") % {"day": row.listed_on.isoformat()})
        row.unlisted_on = on
        row.save(update_fields=["unlisted_on"])
        _record(actor, RETIRED, now)


def update(*, actor: User, name: str, asked: Mapping[str, Any], now: datetime) -> AccessServer:
    """All that may be asked of an access server at once: the fields of `change`, `enabled`, and
    `unlisted_on`. Raises as they do; then nothing is changed."""
    with transaction.atomic():
        fields = {name: asked[name] for name in CHANGEABLE if name in asked}
        if fields:
            change(actor=actor, name=name, fields=fields, now=now)
        if "enabled" in asked:
            set_enabled(actor=actor, name=name, enabled=asked["enabled"], now=now)
        if asked.get("unlisted_on") is not None:
            retire(actor=actor, name=name, on=asked["unlisted_on"], now=now)
        return get(name)


def get(name: str) -> AccessServer:
    """Raises NotFound."""
    row = AccessServer.objects.filter(name=name).first()
    if row is None:
        raise NotFound(
            _("There is no such access server. The access servers are: %(names)s.")
            % {"names": ", ".join(AccessServer.objects.values_list("name", flat=True)) or "–"}
        )
    return row


def _clean(row: AccessServer) -> None:
    parse_address(row.link)
    try:
        row.full_clean(validate_unique=False, validate_constraints=False)
    except ValidationError as error:
        problems = [f"{field}: {' '.join(texts)}" for field, texts in error.message_dict.items()]
        raise Invalid("; ".join(problems)) from error
    if not 1 <= row.port <= 65535:
        raise Invalid(_("A port is a number from 1 to 65535."))


def _record(actor: User, action: str, now: datetime) -> None:
    audit.record(
        organisation=actor.organisation,
        actor=actor,
        action=action,
        outcome=Outcome.ALLOWED,
        now=now,
    )


def note_health(
    name: str,
    *,
    linked: bool,
    trouble: str,
    devices: int,
    now: datetime,
    certificates_end_at: datetime | None = None,
) -> None:
    """What the link to it says. `last_seen_at` is when there last was one; the end of its
    certificates stays what it was when nothing is said of it."""
    fields: dict[str, Any] = {"linked": linked, "trouble": trouble, "devices": devices}
    if linked:
        fields["last_seen_at"] = now
    if certificates_end_at is not None:
        fields["certificates_end_at"] = certificates_end_at
    AccessServer.objects.filter(name=name).update(**fields)


def all_unlinked() -> None:
    """At start: links of an earlier process are gone."""
    AccessServer.objects.update(linked=False, devices=0, trouble="")
