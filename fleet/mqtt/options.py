"""How the server process is set up, and which refusals it makes before it starts."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings
from django.utils.translation import gettext as _

from broker.options import GateOptions, Network
from fleet.core.addresses import Address, parse_address
from fleet.core.errors import Conflict, Invalid
from fleet.enrolment import ca


@dataclass(frozen=True, slots=True)
class ServeOptions:
    http: Address
    mqtt: Address
    gate: bool = True  # False: devices come by access servers alone
    # What must be done within when the process is told to stop.
    shutdown_s: float = 2.5


def from_settings(*, gate: bool = True) -> ServeOptions:
    """Raises Invalid."""
    return ServeOptions(
        http=parse_address(settings.PATENCY_HTTP),
        mqtt=parse_address(settings.PATENCY_MQTT),
        gate=gate,
    )


def parse_networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """Read addresses and networks, such as `10.0.0.5` and `10.1.0.0/16`. Raises Invalid."""
    networks = []
    for text in texts:
        try:
            networks.append(ipaddress.ip_network(text))
        except ValueError:
            raise Invalid(
                _(
                    "PATENCY_PROXIES: “%(text)s” is neither an address nor a network. Write"
                    " 10.0.0.5 or 10.1.0.0/16."
                )
                % {"text": text}
            ) from None
    return tuple(networks)


def gate_options(options: ServeOptions) -> GateOptions:
    """Raises Conflict before `manage.py ca init`; Invalid."""
    folder: Path = ca.folder()
    if not ca.exists():
        raise Conflict(
            _("There are no certificate authorities yet. Make them with: manage.py ca init")
        )
    return GateOptions(
        host=options.mqtt.host,
        port=options.mqtt.port,
        certificate=folder / "server.pem",
        key=folder / "server.key",
        device_ca=(folder / "device-root.pem", *sorted(folder.glob("device-ca*.pem"))),
        proxies=parse_networks(settings.PATENCY_PROXIES),
    )
