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
    metrics: Address | None = None  # where they may be read, beside /metrics on this machine
    # What must be done within when the process is told to stop.
    shutdown_s: float = 2.5

    @property
    def addresses(self) -> list[Address]:
        """All that it listens on."""
        found = [self.http, self.mqtt if self.gate else None, self.metrics]
        return [address for address in found if address is not None]


def from_settings(*, gate: bool = True) -> ServeOptions:
    """Raises Invalid."""
    return ServeOptions(
        http=parse_address(settings.PATENCY_HTTP),
        mqtt=parse_address(settings.PATENCY_MQTT),
        gate=gate,
        metrics=metrics_address(),
    )


def metrics_address() -> Address | None:
    """None when they are off. Raises Invalid for an address that is everybody's."""
    if not settings.PATENCY_METRICS:
        return None
    address = parse_address(settings.PATENCY_METRICS)
    if address.host in ("0.0.0.0", "::", "*"):  # noqa: S104  (refused)
        raise Invalid(
            _(
                "Metrics are for administrators, and %(address)s is open to everybody. Choose the"
                " loopback address, 127.0.0.1:%(port)s, or one of an administrators’ network."
            )
            % {"address": address, "port": address.port}
        )
    return address


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
