"""Where the gate's connections, messages and frames go."""

from typing import Any

import pytest

from agent.wire import messages
from agent.wire.messages import Live
from broker.errors import Reason
from broker.lanes import ConnectionInfo, Delivery
from fleet.audit.models import Entry
from fleet.inventory.models import Device
from fleet.mqtt import lanes as module
from fleet.mqtt.lanes import PortalLanes
from fleet.mqtt.queue import IngestQueue
from fleet.telemetry.models import Sample
from tests.conftest import Ports
from tests.fleet.mqtt.wire import BOOT

INFO = ConnectionInfo("127.0.0.1:5", "TLSv1.3", "x", "1", 0.0, 10)


@pytest.fixture
def queue() -> IngestQueue:
    return IngestQueue(depth=2)


@pytest.fixture
def frames() -> list[tuple[str, bytes]]:
    return []


@pytest.fixture
def lanes(queue: IngestQueue, frames: list[tuple[str, bytes]]) -> PortalLanes:
    return PortalLanes(queue, lambda device, frame: frames.append((device, frame)))


def _work(queue: IngestQueue) -> None:
    load, _room = queue.take(100, 0)
    for work in load.work:
        work()


def _delivery(type: str, payload: bytes, acked: list[int], qos: int = 1) -> Delivery:
    return Delivery("device-0001", type, 1, payload, qos, lambda: acked.append(1))


def test_presence_goes_through_the_writer_and_the_last_word_counts(
    device: Device, lanes: PortalLanes, queue: IngestQueue
) -> None:
    lanes.connected(device.pk, INFO)
    assert lanes.snapshot() == {device.pk: "local"}
    lanes.disconnected(device.pk, Reason.LOST)
    assert lanes.snapshot() == {}
    _work(queue)
    assert not Device.objects.get(pk=device.pk).online


def test_live_samples_are_shown_and_never_stored(
    device: Device, lanes: PortalLanes, queue: IngestQueue, ports: Ports
) -> None:
    live = Live(
        at=5,
        boot=BOOT,
        uptime_ms=1,
        state="idle",
        values={"fan_rpm": 9.0},  # type: ignore[arg-type, dict-item]
    )
    live = messages.decode_up("live", 1, messages.encode(live))  # type: ignore[assignment]
    acked: list[int] = []
    assert lanes.up(_delivery("live", messages.encode(live), acked))
    assert lanes.up(_delivery("live", b"?", acked))
    assert acked == [1, 1]
    assert len(queue) == 0
    assert ports.hints == [
        (
            "device.device-0001",
            {"kind": "live", "at": 5, "state": "idle", "values": {"fan_rpm": 9.0}},
        )
    ]
    assert not Sample.objects.exists()


def test_a_full_queue_says_so_and_acknowledges_nothing(
    lanes: PortalLanes, queue: IngestQueue
) -> None:
    acked: list[int] = []
    taken = [lanes.up(_delivery("event", b"{}", acked)) for _ in range(3)]
    assert taken == [True, True, False]
    assert acked == []


def test_frames_go_to_the_hub(lanes: PortalLanes, frames: list[tuple[str, bytes]]) -> None:
    lanes.stream("device-0001", b"frame")
    assert frames == [("device-0001", b"frame")]


def test_a_silent_device_is_found(
    lanes: PortalLanes, monkeypatch: pytest.MonkeyPatch, queue: IngestQueue
) -> None:
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    for name in ("device-0001", "device-0002"):
        lanes.connected(name, INFO)
    now[0] = 130.0
    lanes.up(_delivery("heartbeat", b"{}", [], qos=0))
    now[0] = 140.0
    assert lanes.silent_for(35.0) == ["device-0002"]


def test_what_the_gate_refuses_is_audited_without_flooding(
    device: Device, lanes: PortalLanes, queue: IngestQueue, caplog: Any
) -> None:
    for _ in range(3):
        lanes.refused("127.0.0.1:5", device.pk, Reason.FILTER)
        _work(queue)
    lanes.refused("127.0.0.1:5", None, Reason.HANDSHAKE)
    lanes.refused("127.0.0.1:5", "device-unknown", Reason.TOPIC)
    _work(queue)
    entry = Entry.objects.get()
    assert (entry.action, entry.entry["reason"]) == ("gate:refused", "filter")
