"""The three published contacts (R-ASR-3) as every page shows them: a name, the words, a link."""

import re
from dataclasses import dataclass

from django.conf import settings
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

# The panel's words for the same three.
NAMES = {
    "device": _("Device support"),
    "connectivity": _("Connectivity support"),
    "cybersecurity": _("Cybersecurity support"),
}
_TELEPHONE = re.compile(r"[+(]?[0-9][0-9 ().-]{4,}")
_ADDRESS = re.compile(r"[\w.+-]+@[\w.-]+")


@dataclass(frozen=True, slots=True)
class Contact:
    name: str | Promise
    reach: str  # as it is published
    link: str  # empty where it is none that a browser knows


def published() -> list[Contact]:
    """Device, connectivity and cybersecurity support, in this order."""
    return [
        Contact(name, reach := settings.PATENCY_CONTACTS[key], link(reach))
        for key, name in NAMES.items()
    ]


def link(reach: str) -> str:
    """`tel:+18005550142` of a number, `mailto:` of an address, an https address as it is."""
    if _TELEPHONE.fullmatch(reach):
        return f"tel:{re.sub('[^0-9+]', '', reach)}"
    if _ADDRESS.fullmatch(reach):
        return f"mailto:{reach}"
    return reach if reach.startswith("https://") else ""
