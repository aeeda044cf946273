"""Reading an access server's bundle: see fleet.enrolment.links for what is in it. No database."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from django.conf import settings as django_settings
from django.utils.translation import gettext as _

from broker.link.uplink import UplinkOptions
from broker.options import GateOptions
from fleet.core.addresses import Address, parse_address
from fleet.core.errors import Conflict, Invalid
from fleet.mqtt.options import parse_networks

FILE = "access-server.json"
_FILES = ("server.pem", "server.key", "link.pem", "link.key", "link-ca.pem", "device-root.pem")


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    v: Literal[1]
    name: Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9-]{0,31}\Z")]
    mqtt: str
    link: str


@dataclass(frozen=True, slots=True)
class AccessServerOptions:
    name: str
    gate: GateOptions
    uplink: UplinkOptions


def read(
    folder: Path, name: str, *, mqtt: str | None = None, link: str | None = None
) -> AccessServerOptions:
    """The options of the access server `name`; addresses given here go before the bundle's.

    Raises Invalid, Conflict."""
    path = folder / FILE
    try:
        settings = msgspec.json.decode(path.read_bytes(), type=Settings)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Conflict(
            _(
                "%(path)s cannot be read (%(error)s). Make the bundle at the portal: manage.py"
                " access-server bundle %(name)s --out DIR"
            )
            % {"path": path, "error": error, "name": name}
        ) from error
    if settings.name != name:
        raise Invalid(
            _("%(folder)s is the bundle of %(other)s, not of %(name)s.")
            % {"folder": folder, "other": settings.name, "name": name}
        )
    for missing in (each for each in _FILES if not (folder / each).exists()):
        raise Conflict(
            _("%(path)s is missing. Make the bundle again.") % {"path": folder / missing}
        )
    return _options(
        folder, name, parse_address(mqtt or settings.mqtt), parse_address(link or settings.link)
    )


def _options(folder: Path, name: str, mqtt: Address, link: Address) -> AccessServerOptions:
    gate = GateOptions(
        host=mqtt.host,
        port=mqtt.port,
        certificate=folder / "server.pem",
        key=folder / "server.key",
        device_ca=(folder / "device-root.pem", *sorted(folder.glob("device-ca*.pem"))),
        proxies=parse_networks(django_settings.PATENCY_PROXIES),
    )
    uplink = UplinkOptions(
        host=link.host,
        port=link.port,
        certificate=folder / "link.pem",
        key=folder / "link.key",
        authority=folder / "link-ca.pem",
        state=folder,
    )
    return AccessServerOptions(name, gate, uplink)
