"""paho's client over a lane: the one module that knows paho.

`Client` uses two private names of paho-mqtt (`_create_socket`, `_sock_close`); its version is
pinned and tests cover each. paho's own keepalive is not used: the core decides when to ping and
when a link is dead, and pings go through the lane, so that paho neither sends nor sees them.
"""

import re
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, LogLevel

from agent.lane import Lane
from agent.network.findings import Failure, Observation
from agent.network.route import Route, Stage

KEEPALIVE_S = 10  # stated in CONNECT; the gate cuts after 1.5 times this

_ALERT = re.compile(r"\[SSL: ([A-Z0-9_]*ALERT[A-Z0-9_]*)\]")


class Client(paho.Client):
    """Over a connection that is made already."""

    def __init__(self, device: str, route: Route, lane: Lane) -> None:
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id=device,
            clean_session=True,
            reconnect_on_failure=False,
        )
        self.route = route
        self.lane = lane
        self.accepted = False
        self.watched = False  # the loop tells when the socket can be written
        self.trouble = ""  # paho says only in its log what went wrong with the socket
        self.max_inflight_messages_set(0)  # the core's window is the bound
        self.on_log = self._on_trouble

    def _create_socket(self) -> Any:
        return self.lane

    def _on_trouble(self, _client: Any, _data: Any, level: int, text: str) -> None:
        if level == LogLevel.MQTT_LOG_ERR:
            self.trouble = text

    def begin(self) -> None:
        """Send CONNECT."""
        server = self.route.server
        self.connect(server.host, server.port, keepalive=KEEPALIVE_S)

    @property
    def busy(self) -> bool:
        """Something waits for the socket."""
        return self.lane.pending or self.want_write()

    def write(self) -> bool:
        """Write what waits, the lane's before paho's; whether the socket took all of it. Raises
        OSError."""
        if not self.lane.flush():
            return False
        if not self.want_write():
            return True
        self.loop_write()
        return not self.busy

    def drop(self) -> None:
        self._sock_close()

    def seen(self, failure: Failure, detail: str = "") -> Observation:
        """How this connection ends."""
        alert = _ALERT.search(self.trouble)
        return Observation(
            stage=Stage.LINK if self.accepted else Stage.MQTT,
            failure=Failure.ALERT if alert else failure,
            server=str(self.route.server),
            proxy=str(self.route.proxy or ""),
            carrier=self.route.carrier,
            alert=alert[1] if alert else "",
            detail=detail,
        )
