"""The words of a request: each checked, and put into the message that the device gets."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
from django.utils.translation import gettext as _

from agent.wire import messages
from agent.wire.catalogue import ClientKind, Level, RequestReason, SessionReason
from agent.wire.messages import AccessRequest
from fleet.accounts.models import User
from fleet.core import clock
from fleet.core.errors import Conflict, Invalid
from fleet.core.ids import new_hex32
from fleet.inventory.models import Device

MIN_LIFE = timedelta(minutes=1)
MAX_LIFE = timedelta(hours=8)
MAX_SERVICES = 8


def message(
    *,
    actor: User,
    device: Device,
    level: Level | str,
    services: Sequence[str],
    reason: RequestReason | str,
    ticket: str | None,
    note: str,
    life: timedelta,
    now: datetime,
    client: ClientKind = ClientKind.COMMAND_LINE,
) -> AccessRequest:
    """The message, if every part of it is right. Raises Invalid, Conflict."""
    if device.retired_at is not None:
        raise Conflict(_("This injector is retired."))
    if not device.remote_enabled:
        raise Conflict(
            _(
                "Remote connection is switched off at this injector. "
                "Ask the hospital to switch it on."
            ),
            reason=SessionReason.REMOTE_OFF.value,
        )
    wanted = _level(level)
    chosen = _services(services, wanted, device.services)
    _check(life, ticket, note)
    return AccessRequest(
        at=clock.to_ms(now),
        session=new_hex32(),
        device=device.pk,
        specialist=actor.username,
        name=_printable(actor.display_name) or actor.username,
        organisation=_printable(actor.organisation.name) or "-",
        level=wanted,
        services=chosen,
        reason=_reason(reason),
        ticket=ticket,
        note=note,
        client=client,
        break_glass=False,
        life_s=int(life.total_seconds()),
    )


def _check(life: timedelta, ticket: str | None, note: str) -> None:
    if not MIN_LIFE <= life <= MAX_LIFE:
        raise Invalid(_("A session lasts from 1 minute to 8 hours. Choose another time."))
    if ticket is not None and not is_ticket(ticket):
        raise Invalid(
            _(
                "A ticket has letters, digits and “-” only, at most 32. "
                "Leave it empty if it follows."
            )
        )
    if not _reads(messages.Note, note):
        raise Invalid(
            _("A note has at most 200 printable characters on one line. Shorten it or retype it.")
        )


def _level(level: Level | str) -> Level:
    try:
        return Level(level)
    except ValueError:
        raise Invalid(
            _("There is no such level. Choose one of: %(levels)s.") % {"levels": ", ".join(Level)}
        ) from None


def _reason(reason: RequestReason | str) -> RequestReason:
    try:
        return RequestReason(reason)
    except ValueError:
        raise Invalid(
            _("There is no such reason. Choose one of: %(reasons)s.")
            % {"reasons": ", ".join(RequestReason)}
        ) from None


def _services(services: Sequence[str], level: Level, offered: Mapping[str, str]) -> list[str]:
    chosen = list(dict.fromkeys(services))
    if not 1 <= len(chosen) <= MAX_SERVICES:
        raise Invalid(_("Choose from one to eight services."))
    if not offered:
        raise Conflict(
            _("This injector has not said yet what services it has. Try again once it was online."),
            reason="services_unknown",
        )
    for name in chosen:
        if name not in offered:
            raise Invalid(
                _("This injector has no service “%(name)s”. It has: %(offered)s.")
                % {"name": name[:32], "offered": ", ".join(sorted(offered))},
                reason=SessionReason.UNKNOWN_SERVICE.value,
            )
        needed = Level(offered[name])
        if not level.covers(needed):
            raise Invalid(
                _("The service “%(name)s” needs the level “%(level)s”. Ask for that level.")
                % {"name": name, "level": needed.value},
                reason=SessionReason.LEVEL_TOO_LOW.value,
            )
    return chosen


def is_ticket(text: str) -> bool:
    return _reads(messages.Ticket, text)


def _reads(type: Any, value: object) -> bool:
    """Whether the wire's schema takes the value."""
    try:
        msgspec.convert(value, type)
    except msgspec.ValidationError:
        return False
    return True


def _printable(text: str) -> str:
    """A name as the panel may show it."""
    if not _reads(messages.Note, text[:80]):
        text = "".join(c for c in text if _reads(messages.Note, c))
    return text[:80].strip()
