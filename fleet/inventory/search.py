"""Finding devices: a search over what is written on them and where they stand, and filters."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Self

from django.db.models import Q, QuerySet
from django.utils.translation import gettext as _

from agent.wire.catalogue import ClinicalState, ProductLineCode
from fleet.accounts.models import User
from fleet.accounts.permissions import Action, restrict
from fleet.core.errors import Invalid
from fleet.inventory.models import Device, Site

MAX_QUERY = 80  # characters
_SITES_NAMED = 20
_SEARCHED = ("serial", "room", "asset_number", "site__name", "site__city")


@dataclass(frozen=True, slots=True)
class DeviceFilter:
    """What to look for; an empty field does not filter. `online` is "yes", "no" or empty."""

    q: str = ""
    product_line: str = ""
    site: str = ""
    state: str = ""
    online: str = ""

    @classmethod
    def read(cls, params: Mapping[str, str]) -> Self:
        """From query parameters or a form; what is too long or unknown is cut or ignored."""
        fields = {name: str(params.get(name, "")).strip()[:MAX_QUERY] for name in cls.__slots__}
        if fields["online"] not in ("yes", "no"):
            fields["online"] = ""
        return cls(**fields)

    @classmethod
    def checked(cls, params: Mapping[str, str], user: User) -> Self:
        """As `read`, where a mistake must not find other devices than were meant. Raises Invalid,
        naming what there is."""
        if len(str(params.get("q", "")).strip()) > MAX_QUERY:
            raise Invalid(_("Search for at most %(most)d characters.") % {"most": MAX_QUERY})
        online = str(params.get("online", "")).strip()
        if online not in ("", "yes", "no"):
            raise Invalid(_("“online” is yes or no."))
        wanted = cls.read(params)
        states, lines = [state.value for state in ClinicalState], [c.value for c in ProductLineCode]
        if wanted.state and wanted.state not in states:
            raise Invalid(
                _("There is no such state. The states are: %(states)s.")
                % {"states": ", ".join(states)}
            )
        if wanted.product_line and wanted.product_line not in lines:
            raise Invalid(
                _("There is no such product line. The product lines are: %(lines)s.")
                % {"lines": ", ".join(lines)}
            )
        if wanted.site:
            _check_site(wanted.site, user)
        return wanted

    def chosen(self) -> dict[str, str]:
        """The fields that filter."""
        return {name: value for name, value in asdict(self).items() if value}


def _check_site(site: str, user: User) -> None:
    """Another's site is none, like one that is not there."""
    sites = restrict(Site.objects.all(), user, Action.DEVICE_VIEW)
    if sites.filter(pk=site.replace("\0", "")).exists():
        return
    known = sites.order_by("name").values_list("pk", "name")[:_SITES_NAMED]
    raise Invalid(
        _("There is no such site. Your sites are: %(sites)s.")
        % {"sites": ", ".join(f"{pk} ({name})" for pk, name in known) or "–"}
    )


def find(devices: QuerySet[Device], wanted: DeviceFilter) -> QuerySet[Device]:
    """Those of `devices` (already restricted to the reader) that are wanted.

    Every word of `q` must be found in one of serial, room, asset number, site or city. Those that
    are retired are not found.
    """
    devices = devices.filter(retired_at=None)
    for word in wanted.q.replace("\0", "").split()[:8]:
        match = Q()
        for field in _SEARCHED:
            match |= Q(**{f"{field}__icontains": word})
        devices = devices.filter(match)
    if wanted.product_line:
        devices = devices.filter(product_line=wanted.product_line)
    if wanted.site:
        devices = devices.filter(site=wanted.site)
    if wanted.state:
        devices = devices.filter(clinical_state=wanted.state)
    if wanted.online:
        devices = devices.filter(online=wanted.online == "yes")
    return devices
