"""One way to one server, and how far an attempt on it came."""

from dataclasses import dataclass
from enum import IntEnum, StrEnum

from agent.identity import Server
from agent.network.settings import Proxy
from agent.wire import carrier as wire


class Carrier(StrEnum):
    """What carries MQTT over TLS."""

    MQTT = "mqtt"
    WEBSOCKET = "websocket"

    @property
    def other(self) -> "Carrier":
        return Carrier.WEBSOCKET if self is Carrier.MQTT else Carrier.MQTT

    @property
    def alpn(self) -> list[str]:
        return list(wire.RAW if self is Carrier.MQTT else wire.WEBSOCKET)


class Stage(IntEnum):
    """What an attempt is at, in order."""

    NAME = 1
    TCP = 2
    PROXY = 3
    TLS = 4
    UPGRADE = 5  # of HTTP to a websocket
    MQTT = 6  # TLS stands and CONNECT is on its way
    LINK = 7  # the server has accepted


@dataclass(frozen=True, slots=True)
class Route:
    server: Server
    carrier: Carrier = Carrier.MQTT
    proxy: Proxy | None = None

    @property
    def first_hop(self) -> tuple[str, int]:
        """Whom to call: the proxy where there is one."""
        hop = self.proxy or self.server
        return hop.host, hop.port
