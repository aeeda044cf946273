"""What a gate and its link counted, as metrics: read when somebody asks, so that a message pays
nothing for it. Counts and sums only: no device, no peer, no person.

May be called from any thread, beside the loop that counts.
"""

from collections.abc import Iterable, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from broker.link.uplink import Uplink
from broker.link.wire import Certificates
from broker.server import Gate


def counter(
    name: str, told: str, label: str = "", values: Mapping[str, float] | float = 0
) -> Metric:
    """A counter since the start, by the values of one label or without any."""
    family = CounterMetricFamily(name, told, labels=[label] if label else [])
    return _filled(family, values)


def gauge(name: str, told: str, label: str = "", values: Mapping[str, float] | float = 0) -> Metric:
    """A measure as of now, by the values of one label or without any."""
    family = GaugeMetricFamily(name, told, labels=[label] if label else [])
    return _filled(family, values)


def _filled(
    family: CounterMetricFamily | GaugeMetricFamily, values: Mapping[str, float] | float
) -> Metric:
    if isinstance(values, Mapping):
        for label, value in values.items():
            family.add_metric([label], value)
    else:
        family.add_metric([], values)
    return family


class GateCollector(Collector):
    """Of the gate in this process."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def collect(self) -> Iterable[Metric]:
        stats = self._gate.stats()
        counted = stats.counters
        yield gauge("patency_gate_devices", "Devices on line at this gate", values=stats.devices)
        yield gauge(
            "patency_gate_sockets",
            "Connections of devices, whatever their state",
            values=stats.connections,
        )
        yield gauge("patency_gate_handshaking", "TLS handshakes under way", values=stats.handshakes)
        yield gauge(
            "patency_gate_waiting_messages",
            "Messages at QoS 1 that wait for ingest or for the link",
            values=stats.waiting,
        )
        yield gauge(
            "patency_gate_buffered_bytes",
            "Bytes on their way to devices that the kernel has not taken",
            values=stats.buffered_bytes,
        )
        for name, told in _COUNTERS.items():
            yield counter(f"patency_gate_{name}", told, values=counted[name])
        for name, told, up, down in _BOTH_WAYS:
            ways = {"up": counted[up], "down": counted[down]}
            yield counter(f"patency_gate_{name}", told, "direction", ways)
        for name, told in _REASONS.items():
            yield counter(f"patency_gate_{name}", told, "reason", counted[name])


_COUNTERS = {
    "accepted": "Connections accepted, of devices, browsers and strangers",
    "handshakes": "TLS handshakes of devices that succeeded",
    "connects": "Devices that came on line",
    "acknowledged": "Messages at QoS 1 that were decided and acknowledged",
    "messages_dropped": "Messages at QoS 0 that found no room",
}
_BOTH_WAYS = (
    ("messages", "Messages other than stream frames", "messages_up", "messages_down"),
    ("message_bytes", "Bytes of their payloads", "bytes_up", "bytes_down"),
    ("frames", "Stream frames", "frames_up", "frames_down"),
    ("frame_bytes", "Bytes of stream frames", "frame_bytes_up", "frame_bytes_down"),
)
_REASONS = {
    "ended": "Connections of devices that ended, by reason",
    "refused": "What was refused (connections, subscriptions, messages), by reason",
}


class UplinkCollector(Collector):
    """Of an access server's link to the portal, and of the certificates it has loaded."""

    def __init__(self, uplink: Uplink, ends: Certificates) -> None:
        self._uplink = uplink
        self._ends = ends

    def collect(self) -> Iterable[Metric]:
        uplink = self._uplink
        yield gauge("patency_uplink_up", "1 while the portal is linked", values=uplink.linked)
        yield gauge(
            "patency_uplink_waiting_messages",
            "Messages that the portal has not decided on",
            values=uplink.waiting,
        )
        yield gauge("patency_uplink_waiting_bytes", "Bytes of them", values=uplink.waiting_bytes)
        yield counter("patency_uplink_links", "Links that came up", values=uplink.links)
        yield counter(
            "patency_uplink_strangers",
            "Connections to the link's door that got no link",
            values=uplink.strangers,
        )
        yield counter(
            "patency_uplink_frames_dropped",
            "Stream frames that found no link or no room; their ends notice and ask again",
            values=uplink.frames_dropped,
        )
        yield gauge(
            "patency_certificate_end_seconds",
            "When a certificate must be replaced, seconds since 1970",
            "certificate",
            {"server": self._ends.server, "link": self._ends.link},
        )
