"""The interface to whatever carries messages, over the gate in this process.

Requirements: R-CON-4, R-CON-5.
"""

import asyncio
from typing import Any

import pytest

from broker.lanes import Delivery
from broker.options import GateOptions
from broker.server import Gate
from broker.transport import Inbound, LocalTransport, Transport, matches
from tests.broker import raw
from tests.broker.conftest import A
from tests.broker.raw import Raw
from tests.tls import Authority, Files, Issued

EVENT = f"pat/1/{A}/up/event/1"


@pytest.mark.parametrize(
    ("wanted", "topic", "expected"),
    [
        ("#", "a/b", True),
        ("a/#", "a/b/c", True),
        ("a/#", "a", True),
        ("a/+/c", "a/b/c", True),
        ("a/+", "a/b/c", False),
        ("a/b", "a/b", True),
        ("a/b", "a", False),
        ("a/#/c", "a/b/c", False),
        ("pat/1/+/up/event/1", EVENT, True),
        ("pat/1/+/up/hello/1", EVENT, False),
    ],
)
def test_matching(wanted: str, topic: str, expected: bool) -> None:
    assert matches(wanted, topic) is expected


class Acks:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


def delivery(acks: Acks, payload: bytes = b"{}") -> Delivery:
    return Delivery(A, "event", 1, payload, 1, acks)


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def cancelled(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_nobody_consumes_yet_so_nothing_is_taken() -> None:
    transport = LocalTransport()
    assert transport.up(delivery(Acks())) is False


async def test_acknowledged_when_the_handler_has_returned() -> None:
    transport, acks, commit = LocalTransport(), Acks(), asyncio.Event()
    seen: list[Inbound] = []

    async def handler(message: Inbound) -> None:
        seen.append(message)
        await commit.wait()

    task = asyncio.create_task(transport.consume("pat/1/+/up/event/#", "ingest", handler))
    await settle()
    assert transport.up(delivery(acks, b"1"))
    await settle()
    assert seen == [Inbound(EVENT, b"1")]
    assert acks.count == 0
    commit.set()
    await settle()
    assert acks.count == 1
    await cancelled(task)
    assert transport.up(delivery(acks)) is False


async def test_one_group_shares_and_each_group_gets_all() -> None:
    transport, acks = LocalTransport(), Acks()
    seen: list[tuple[str, bytes]] = []

    def consumer(name: str, group: str) -> asyncio.Task[None]:
        async def handler(message: Inbound) -> None:
            seen.append((name, message.payload))
            await asyncio.sleep(0)

        return asyncio.create_task(transport.consume("pat/1/#", group, handler))

    tasks = [consumer("one", "g"), consumer("two", "g"), consumer("other", "h")]
    await settle()
    for number in range(4):
        assert transport.up(delivery(acks, str(number).encode()))
    await settle()
    everything = [b"0", b"1", b"2", b"3"]
    assert sorted(payload for name, payload in seen if name != "other") == everything
    assert [payload for name, payload in seen if name == "other"] == everything
    assert {name for name, _ in seen} == {"one", "two", "other"}
    assert acks.count == 4
    await cancelled(*tasks)


async def test_a_full_queue_is_said_so() -> None:
    transport, acks, stop = LocalTransport(depth=2), Acks(), asyncio.Event()

    async def handler(message: Inbound) -> None:
        await stop.wait()

    task = asyncio.create_task(transport.consume("#", "g", handler))
    await settle()
    assert [transport.up(delivery(acks)) for _ in range(2)] == [True, True]
    await settle()  # one is in hand now
    assert [transport.up(delivery(acks)) for _ in range(2)] == [True, False]
    stop.set()
    await settle()
    assert acks.count == 3
    await cancelled(task)


async def test_health_before_the_gate_runs() -> None:
    transport = LocalTransport()
    assert not (await transport.health()).up
    assert not await transport.publish(f"pat/1/{A}/dn/job/1", b"")
    await transport.kick(A)


class Local:
    """A gate whose handler is a LocalTransport."""

    def __init__(self, authority: Authority, files: Files, **options: Any) -> None:
        self.transport = LocalTransport(**options)
        settings = GateOptions(
            host="127.0.0.1",
            port=0,
            certificate=files.server_chain,
            key=files.server_key,
            device_ca=files.device_ca,
        )
        self.gate = Gate(settings, self.transport)
        self.transport.attach(self.gate)
        self.authority = authority

    async def __aenter__(self) -> "Local":
        await self.gate.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.gate.stop()

    async def live(self, identity: Issued) -> Raw:
        return await (await Raw.open(self.gate.port, self.authority, identity)).live(A)


async def test_over_a_gate(
    authority: Authority, files: Files, identities: dict[str, Issued]
) -> None:
    presence: list[tuple[str, bool]] = []
    frames: list[tuple[str, bytes]] = []
    taken: list[Inbound] = []

    async def handler(message: Inbound) -> None:
        taken.append(message)

    async with Local(
        authority,
        files,
        presence=lambda device, online: presence.append((device, online)),
        frames=lambda device, frame: frames.append((device, frame)),
    ) as local:
        carrier: Transport = local.transport
        async with await local.live(identities[A]) as device:
            # Sent before anybody consumes: it waits at the gate, then it is decided.
            device.send(raw.publish(EVENT, b"early", first=0x32, id=1))
            device.send(raw.publish(f"pat/1/{A}/up/s", b"frame"))
            await device.ping()
            consuming = asyncio.create_task(carrier.consume("pat/1/+/up/#", "ingest", handler))
            assert await device.packet() == (0x40, b"\0\x01")
            assert taken == [Inbound(EVENT, b"early")]
            assert frames == [(A, b"frame")]
            assert await carrier.publish(f"pat/1/{A}/dn/job/1", b"work")
            assert await device.message() == (f"pat/1/{A}/dn/job/1", b"work")
            health = await carrier.health()
            assert (health.up, health.devices) == (True, 1)
            await carrier.kick(A)
            assert await device.ended() == b""
            await cancelled(consuming)
    assert presence == [(A, True), (A, False)]


async def test_a_consumer_that_fails_has_the_device_send_it_again(
    authority: Authority, files: Files, identities: dict[str, Issued]
) -> None:
    attempts: list[bytes] = []

    async def handler(message: Inbound) -> None:
        attempts.append(message.payload)
        if len(attempts) == 1:
            raise OSError("the database is away")

    async with Local(authority, files) as local:
        consuming = asyncio.create_task(local.transport.consume("#", "g", handler))
        async with await local.live(identities[A]) as device:
            device.send(raw.publish(EVENT, b"x", first=0x32, id=1))
            assert await device.ended() == b""
        async with await local.live(identities[A]) as device:
            device.send(raw.publish(EVENT, b"x", first=0x3A, id=1))
            assert await device.packet() == (0x40, b"\0\x01")
        await cancelled(consuming)
    assert attempts == [b"x", b"x"]


async def test_a_consumer_that_leaves_its_queue(
    authority: Authority, files: Files, identities: dict[str, Issued]
) -> None:
    """What it had queued is not acknowledged, and the device is made to send it again."""

    async def handler(message: Inbound) -> None:
        await asyncio.sleep(60)

    async with Local(authority, files) as local:
        consuming = asyncio.create_task(local.transport.consume("#", "g", handler))
        async with await local.live(identities[A]) as device:
            for number in (1, 2):
                device.send(raw.publish(EVENT, b"x", first=0x32, id=number))
            await device.ping()
            await cancelled(consuming)
            assert await device.ended() == b""
