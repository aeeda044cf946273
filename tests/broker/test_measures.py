"""What a gate and its link count, read from outside. Requirements: R-CON-5, R-PRV-1."""

import asyncio
import ssl
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from broker.link.wire import Certificates
from broker.measures import GateCollector, UplinkCollector
from tests.broker import raw
from tests.broker.conftest import A, Recorder, Running
from tests.broker.linked import Linked, come_true
from tests.broker.raw import Raw
from tests.tls import Authority, Files, Issued, LinkAuthority

EVENT = f"pat/1/{A}/up/event/1"


def _registry(*collectors: GateCollector | UplinkCollector) -> CollectorRegistry:
    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(collector)
    return registry


async def test_a_gates_counts_are_what_happened(running: Running) -> None:
    registry = _registry(GateCollector(running.gate))

    def of(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"patency_gate_{name}", labels)

    assert of("devices") == of("connects_total") == 0
    async with await running.live(A) as device:
        device.send(raw.publish(EVENT, b"12345", first=0x32, id=1))
        assert (await device.packet())[0] == 0x40
        device.send(raw.publish(f"pat/1/{A}/up/s", b"123"))
        await device.ping()
        assert running.gate.publish(f"pat/1/{A}/dn/job/1", b"1234567")
        await device.message()
        assert (of("devices"), of("sockets"), of("connects_total")) == (1, 1, 1)
        assert of("messages_total", direction="up") == 1
        assert of("message_bytes_total", direction="up") == 5
        assert of("frames_total", direction="up") == 1
        assert of("frame_bytes_total", direction="up") == 3
        assert of("messages_total", direction="down") == 1
        assert of("message_bytes_total", direction="down") == 7
        assert of("acknowledged_total") == 1
        text = generate_latest(registry).decode()
        assert A not in text
        assert device_address(device) not in text
    await running.handler.told("disconnected", A)
    assert of("devices") == 0
    async with await running.raw(A) as stranger:
        stranger.send(raw.connect("device-bbbb"))
        await stranger.ended()
    assert of("refused_total", reason="client_id") == 1
    assert sum(m.value for f in registry.collect() for m in f.samples if "ended" in m.name) >= 2


def device_address(device: Raw) -> str:
    port = device.writer.get_extra_info("sockname")[1]
    return f":{port}"


async def test_it_may_be_read_beside_the_loop(running: Running) -> None:
    """While devices come and go: another thread reads, and nothing is torn."""
    registry, reads = _registry(GateCollector(running.gate)), 0

    async def read() -> None:
        nonlocal reads
        while True:
            await asyncio.to_thread(generate_latest, registry)
            reads += 1

    reading = asyncio.create_task(read())
    for _ in range(15):
        async with await running.live(A):
            pass
    assert not reading.done()
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    assert reads > 5


async def test_a_links_counts(
    files: Files, authority: Authority, identities: dict[str, Issued], tmp_path: Path
) -> None:
    east, portal = Linked(files, LinkAuthority(), tmp_path / "east"), Recorder(acks=False)
    registry = _registry(UplinkCollector(east.uplink, Certificates(server=2e9, link=3e9)))

    def of(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"patency_{name}", labels)

    await east.start()
    try:
        assert (of("uplink_up"), of("uplink_links_total")) == (0, 0)
        remote = await east.linked(portal)
        assert (of("uplink_up"), of("uplink_links_total"), remote.links) == (1, 1, 1)
        device = await Raw.open(east.gate.port, authority, identities[A])
        async with await device.live(A):
            device.send(raw.publish(EVENT, b"12345", first=0x32, id=1))
            await portal.until(lambda: len(portal.deliveries) == 1)
            assert (of("uplink_waiting_messages"), of("uplink_waiting_bytes")) == (1, 5)
            assert remote.undecided == 1
            portal.deliveries[0].ack()
            await device.packet()
            assert (of("uplink_waiting_messages"), remote.undecided) == (0, 0)
        east.cut()
        await portal.until(lambda: remote.links == 2)
        assert remote.failures == {"lost": 1}
        assert of("uplink_links_total") == 2
        with pytest.raises(ssl.SSLError):  # it believes no link authority
            await Raw.open(east.uplink.port, authority, identities[A])
        await come_true(lambda: of("uplink_strangers_total") == 1)
        assert of("certificate_end_seconds", certificate="server") == 2e9
        assert of("certificate_end_seconds", certificate="link") == 3e9
    finally:
        await east.stop()
