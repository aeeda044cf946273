"""The contract of a transport, the same for every one of them, over real TLS.

Requirements: R-CON-4, R-CON-5, R-CON-9.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker.denied import DenyList, serial
from broker.errors import Reason
from broker.transport import Transport
from tests.broker import raw
from tests.broker.conftest import A, B, Recorder, Running, Start
from tests.broker.linked import Linked
from tests.broker.raw import Raw
from tests.tls import Authority, Files, Issued, LinkAuthority

EVENT = f"pat/1/{A}/up/event/1"


class Carried:
    """A transport, the gate that devices connect to, and who hears of them."""

    def __init__(self, transport: Transport, gate: Running, handler: Recorder) -> None:
        self.transport = transport
        self.gate = gate
        self.handler = handler

    async def live(self, device: str = A) -> Raw:
        """A device that the portal's side knows of."""
        before = sum(entry[:2] == ("connected", device) for entry in self.handler.log)
        made = await self.gate.live(device)
        await self.handler.until(
            lambda: sum(e[:2] == ("connected", device) for e in self.handler.log) > before
        )
        return made


@pytest.fixture(params=["local", "link"])
async def carried(
    request: pytest.FixtureRequest, start: Start, authority: Authority,
    identities: dict[str, Issued], files: Files, tmp_path: Path,
) -> AsyncIterator[Carried]:  # fmt: skip
    if request.param == "local":
        gate = await start()
        yield Carried(gate.gate, gate, gate.handler)
        return
    server, handler = Linked(files, LinkAuthority(), tmp_path / "east"), Recorder()
    await server.start()
    try:
        remote = await server.linked(handler)
        yield Carried(remote, Running(server.gate, handler, authority, identities), handler)
    finally:
        await server.stop()


async def test_acknowledged_when_it_is_committed_and_not_before(carried: Carried) -> None:
    """R-CON-5: what the portal has not decided on stays with the device."""
    carried.handler.acks = False
    async with await carried.live() as device:
        for number in (1, 2):
            device.send(raw.publish(EVENT, b"%d" % number, first=0x32, id=number))
        await carried.handler.until(lambda: len(carried.handler.deliveries) == 2)
        assert [each.payload for each in carried.handler.deliveries] == [b"1", b"2"]
        await device.ping()  # and no PUBACK before the answer
        carried.handler.deliveries[1].ack()
        assert await device.packet() == (0x40, b"\0\x02")
        carried.handler.deliveries[0].ack()
        carried.handler.deliveries[0].ack()
        assert await device.packet() == (0x40, b"\0\x01")
        await device.ping()


async def test_what_a_full_portal_does_not_take_waits_in_order(carried: Carried) -> None:
    carried.handler.full = True
    async with await carried.live() as device:
        for number in range(1, 6):
            device.send(raw.publish(EVENT, b"%d" % number, first=0x32, id=number))
        await device.ping()
        assert await device.quiet()
        carried.handler.full = False
        carried.transport.resume()
        assert [await device.packet() for _ in range(5)] == [
            (0x40, bytes((0, number))) for number in range(1, 6)
        ]
    assert [each.payload for each in carried.handler.deliveries] == [b"%d" % n for n in range(1, 6)]


async def test_down_frames_and_health(carried: Carried) -> None:
    """R-CON-4: pushed, to the one device it is for."""
    async with await carried.live(A) as device, await carried.live(B) as other:
        health = carried.transport.health()
        assert (health.up, health.devices, health.detail) == (True, 2, "")
        assert carried.transport.publish(f"pat/1/{A}/dn/job/1", b"work")
        assert await device.message() == (f"pat/1/{A}/dn/job/1", b"work")
        assert carried.transport.publish(f"pat/1/{B}/dn/s", b"frame")
        assert await other.message() == (f"pat/1/{B}/dn/s", b"frame")
        assert carried.transport.frame(B, b"another")
        assert await other.message() == (f"pat/1/{B}/dn/s", b"another")
        assert not carried.transport.frame("nobody-0001", b"frame")
        device.send(raw.publish(f"pat/1/{A}/up/s", b"up"))
        device.send(raw.publish(f"pat/1/{A}/up/heartbeat/1", b"{}"))
        await carried.handler.until(lambda: len(carried.handler.deliveries) == 1)
        assert carried.handler.frames == [(A, b"up")]
        assert carried.handler.deliveries[0].qos == 0
        assert not carried.transport.publish("pat/1/device-nobody/dn/job/1", b"work")
        assert not carried.transport.publish("nowhere", b"work")
        with pytest.raises(ValueError, match="the most"):
            carried.transport.publish(f"pat/1/{A}/dn/job/1", b"x" * 600_000)


async def test_kick(carried: Carried) -> None:
    async with await carried.live() as device:
        assert carried.transport.kick(A)
        assert await device.ended() == b""
    await carried.handler.told("disconnected", A, Reason.KICKED)
    assert not carried.transport.kick(A)
    assert not carried.transport.publish(f"pat/1/{A}/dn/job/1", b"work")


@pytest.mark.parametrize("by", ["device", "certificate"])
async def test_denied_is_cut_at_once_and_stays_out(carried: Carried, by: str) -> None:
    """R-CON-9; THREATS: revoke a live device."""
    certificate = f"{carried.gate.identities[A].certificate.serial_number:x}"
    denied = (
        DenyList(devices=frozenset({A}))
        if by == "device"
        else DenyList(certificates=frozenset({serial(certificate)}))
    )
    async with await carried.live(A) as device, await carried.live(B) as other:
        carried.transport.deny(denied)
        assert await device.ended(2) == b""
        await other.ping()
        async with await carried.gate.raw(A) as again:
            again.send(raw.connect(A))
            assert await again.ended() == b""
        carried.transport.deny(DenyList())
        await other.ping()
        async with await carried.live(A) as pardoned:
            await pardoned.ping()


def test_a_serial_number_has_one_spelling() -> None:
    assert serial("0aB1") == serial("AB1") == "AB1"
    assert serial("00") == "0"
