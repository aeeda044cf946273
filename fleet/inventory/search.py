"""Finding devices: a search over what is written on them and where they stand, and filters."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Self

from django.db.models import Q, QuerySet

from fleet.inventory.models import Device

MAX_QUERY = 80  # characters
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

    def chosen(self) -> dict[str, str]:
        """The fields that filter."""
        return {name: value for name, value in asdict(self).items() if value}


def find(devices: QuerySet[Device], wanted: DeviceFilter) -> QuerySet[Device]:
    """Those of `devices` (already restricted to the reader) that are wanted.

    Every word of `q` must be found in one of serial, room, asset number, site or city.
    """
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
