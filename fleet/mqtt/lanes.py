"""The portal's side of its gates: where connections, messages and frames go.

Every method is called on the event loop and returns at once; what needs the database goes to the
writer thread.
"""

import logging
import time
from collections.abc import Callable
from functools import partial

from agent.wire import messages
from agent.wire.messages import Live, MessageError
from broker.errors import Reason
from broker.lanes import ConnectionInfo, Delivery
from fleet.core import clock, ports
from fleet.enrolment import alarms, credentials
from fleet.enrolment.clones import Takeovers
from fleet.enrolment.models import AlarmKind
from fleet.inventory import services as inventory
from fleet.inventory.models import Device
from fleet.mqtt import metrics
from fleet.mqtt.alarms import alarm
from fleet.mqtt.ingest import received
from fleet.mqtt.queue import IngestQueue

log = logging.getLogger(__name__)

GATE_REFUSED = "gate:refused"


class PortalLanes:
    """A broker.lanes.Handler. `frame` takes what comes on the stream lane."""

    def __init__(self, queue: IngestQueue, frame: Callable[[str, bytes], None]) -> None:
        self._queue = queue
        self.stream = frame  # no call in between
        self._heard: dict[str, float] = {}  # connected device -> monotonic seconds
        self._takeovers = Takeovers()
        self._servers: dict[str, str] = {}  # connected device -> access server

    # --- connections ---------------------------------------------------------------------------

    def connected(self, device: str, info: ConnectionInfo) -> None:
        self._heard[device] = time.monotonic()
        self._servers[device] = info.server
        metrics.CONNECTED.set(len(self._heard))
        work = partial(inventory.set_online, device, now=clock.now(), access_server=info.server)
        self._queue.submit(f"presence {device}", work)
        work = partial(credentials.used, device, info.certificate, clock.now())
        self._queue.submit(f"credential {device}", work)
        address = info.peer.rpartition(":")[0]
        if self._takeovers.came(device, address, self._heard[device]):
            work = partial(alarms.of, device, AlarmKind.CLONED, clock.now())
            self._queue.submit(f"cloned {device}", work)

    def disconnected(self, device: str, reason: Reason) -> None:
        self._heard.pop(device, None)
        self._servers.pop(device, None)
        self._takeovers.ended(device, taken_over=reason is Reason.TAKEN_OVER)
        metrics.CONNECTED.set(len(self._heard))
        work = partial(inventory.set_offline, [device], now=clock.now())
        self._queue.submit(f"presence {device}", work)

    def silent_for(self, seconds: float) -> list[str]:
        """Connected devices that have said nothing for so long, heartbeats included."""
        before = time.monotonic() - seconds
        return [device for device, heard in self._heard.items() if heard < before]

    def snapshot(self) -> dict[str, str]:
        """Connected devices, each with its access server."""
        return dict(self._servers)

    # --- what they send ------------------------------------------------------------------------

    def up(self, delivery: Delivery) -> bool:
        """Take a message; False when the queue is full, and the gate offers it again later."""
        if delivery.device in self._heard:
            self._heard[delivery.device] = time.monotonic()
        if delivery.type == Live.TYPE:
            self._live(delivery)
            return True
        item = received(
            delivery.device,
            delivery.type,
            delivery.version,
            delivery.payload,
            qos=delivery.qos,
            ack=delivery.ack,
        )
        taken = self._queue.offer(item)
        if not taken:
            metrics.PAUSED.inc()
        return taken

    def _live(self, delivery: Delivery) -> None:
        """A sample at the fast rate goes to whoever watches and is never stored."""
        delivery.ack()  # at QoS 1 too: there is nothing to decide
        try:
            message = messages.decode_up(delivery.type, delivery.version, delivery.payload)
        except (MessageError, RecursionError):
            metrics.DECIDED.labels(Live.TYPE, "refused").inc()
            return
        if not isinstance(message, Live):
            return
        ports.hint_now(
            f"device.{delivery.device}",
            {
                "kind": "live",
                "at": message.at,
                "state": message.state.value,
                "values": {metric.value: value for metric, value in message.values.items()},
            },
        )

    def refused(self, peer: str, device: str | None, reason: Reason) -> None:
        metrics.REFUSED.labels(reason.value).inc()
        log.warning("the gate refused %s (%s): %s", peer, device or "unknown", reason.value)
        if device is not None:
            work = partial(_audit_refusal, device, reason)
            self._queue.submit(f"refused {device}", work)


def _audit_refusal(device_id: str, reason: Reason) -> None:
    device = Device.objects.select_related("organisation").filter(pk=device_id).first()
    if device is None:
        return
    alarm(device, GATE_REFUSED, reason=reason.value, digest=None, now=clock.now())
    if reason is Reason.DENIED:
        credentials.shown_in_vain(device, clock.now())
