"""A device sends fast only while somebody watches (R-MNT-5)."""

import pytest

from agent.wire.messages import Rate
from fleet.live.leases import FOR_S, HZ, RENEW_S, Leases
from tests.conftest import Ports

pytestmark = pytest.mark.django_db(transaction=True)


async def test_however_many_watch_the_device_is_asked_once_each_interval(ports: Ports) -> None:
    now = 100.0
    leases = Leases(lambda: now)
    assert await leases.touch("device-0001")
    assert not await leases.touch("device-0001")
    assert await leases.touch("device-0002")
    now += RENEW_S - 0.1
    assert not await leases.touch("device-0001")
    now += 0.2
    assert await leases.touch("device-0001")
    assert ports.sent == [
        (device, Rate(hz=HZ, for_s=FOR_S))
        for device in ("device-0001", "device-0002", "device-0001")
    ]


async def test_a_device_that_has_just_connected_is_asked_again(ports: Ports) -> None:
    leases = Leases(lambda: 100.0)
    await leases.touch("device-0001")
    assert await leases.touch("device-0001", again=True)
    assert len(ports.sent) == 2


async def test_lapsed_devices_are_forgotten(ports: Ports) -> None:
    now = 0.0
    leases = Leases(lambda: now)
    for number in range(50):
        await leases.touch(f"device-{number:04}")
    now = FOR_S + 1
    await leases.touch("device-last")
    assert list(leases._asked) == ["device-last"]


def test_a_lease_outlives_its_renewal() -> None:
    assert RENEW_S + 5 <= FOR_S
