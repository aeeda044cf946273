"""Upgrades and frames that are nearly right: no crash, no zombie session (THREATS, fuzzed packets).

Requirements: R-CON-6.
"""

import asyncio
import random

import pytest

from broker.errors import Reason
from tests.broker import raw
from tests.broker.conftest import A, Running, Start
from tests.broker.raw import Raw
from tests.broker.raw_websocket import (
    BINARY,
    CLOSE,
    CONT,
    PING,
    PONG,
    TEXT,
    RawWebSocket,
    frame,
    upgrade,
)
from tests.broker.test_websocket import STREAM, bare, websocket
from tests.scale import scaled


@pytest.fixture
def door() -> type[Raw]:
    return RawWebSocket


def _noise(random_: random.Random) -> bytes:
    """Frames that are nearly right."""
    packet = random_.choice((raw.PINGREQ, raw.publish(STREAM, b"x" * 300), raw.subscribe("#")))
    kind = random_.choice((BINARY, BINARY, CONT, TEXT, PING, PONG, CLOSE))
    data = bytearray(frame(packet[: random_.choice((100, 1000))], kind, fin=random_.random() < 0.8))
    for _ in range(random_.randrange(3)):
        data[random_.randrange(len(data))] = random_.randrange(256)
    return bytes(data)


async def test_fuzzed_frames_crash_nothing_and_leave_nothing(running: Running) -> None:
    """THREATS: fuzzed packets, one layer below: no crash, no zombie session."""
    random_ = random.Random(6455)
    left = scaled(10_000)
    while left > 0:
        device = await websocket(running)
        for _ in range(20):
            device.bare.send(_noise(random_))
            left -= 1
        await asyncio.sleep(0.002)
        await device.abort()
    await running.emptied()
    ended = running.gate.stats().counters["ended"]
    assert not ended.get(Reason.INTERNAL)
    assert not ended.get(Reason.BROKER)
    assert ended[Reason.WEBSOCKET]


async def test_fuzzed_upgrades(start: Start) -> None:
    running: Running = await start(limits={"connect_s": 5.0})
    random_ = random.Random(9112)
    for _ in range(scaled(1000)):
        request = bytearray(upgrade())
        for _ in range(random_.randrange(1, 4)):
            request[random_.randrange(len(request))] = random_.choice((*b"\r\n :/x\0", 255))
        device = await bare(running)
        device.send(bytes(request))
        await asyncio.sleep(0.002)
        await device.abort()
    await running.emptied()
    assert not running.gate.stats().counters["ended"].get(Reason.INTERNAL)
    async with await running.live(A) as good:
        await good.ping()
