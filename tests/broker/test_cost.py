"""What a device costs: work at a connect, counted and not timed, and memory under attack.

Requirements: R-CON-4, R-CON-8. THREATS: "memory grows ≤ 64 KB a connection".
"""

import asyncio
import gc
import subprocess
import sys
import weakref
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
import pytest

from tests.broker import raw
from tests.broker.conftest import A, Running, Start
from tests.broker.raw import Raw
from tests.broker.raw_websocket import RawWebSocket
from tests.scale import scaled
from tests.tls import Authority, Files

KIB = 1024


class Work:
    """Counts the instructions that the gate and amqtt execute."""

    def __init__(self) -> None:
        self.count = 0

    def _trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        name = frame.f_globals.get("__name__", "")
        if not name.startswith(("broker.", "amqtt.")):
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return self._step

    def _step(self, frame: FrameType, event: str, argument: Any) -> Any:
        self.count += event == "opcode"
        return self._step

    @contextmanager
    def counted(self) -> Iterator[None]:
        before = sys.gettrace()
        sys.settrace(self._trace)
        try:
            yield
        finally:
            sys.settrace(before)


async def one_connection(running: Running) -> int:
    """Instructions for a device that comes, subscribes, sends, unsubscribes and goes."""
    work = Work()
    with work.counted():
        device = await running.live(A)
        device.send(raw.publish(f"pat/1/{A}/up/event/1", first=0x32, id=3))
        assert await device.packet() == (0x40, b"\0\x03")
        assert running.gate.publish(f"pat/1/{A}/dn/end/1", b"x")
        await device.message()
        device.send(raw.unsubscribe(f"pat/1/{A}/dn/#", id=4))
        assert await device.packet() == (0xB0, b"\0\x04")
        device.send(raw.DISCONNECT)
        await device.ended()
        await device.abort()
        await asyncio.sleep(0.05)  # what the gate tidies up belongs to it
    return work.count


async def test_a_connect_costs_no_more_beside_thousands_than_beside_five(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Instructions and not seconds: the same on every machine."""
    # Broker._handle_client_session walks every subscription for retained messages,
    # ._client_message_loop writes them all into a line of its log, ._del_all_subscriptions walks
    # them at the end, and ._session_monitor every session.
    # The others' own timers, one look in five seconds each, are no part of this connect.
    monkeypatch.setattr("broker.gate._WATCH_S", 3600.0)
    running: Running = await start()
    async with AsyncExitStack() as stack:

        async def crowd(first: int, last: int) -> None:
            for number in range(first, last):
                name = f"crowd-{number:05}"
                identity = running.authority.device(name)
                opened = await Raw.open(running.gate.port, running.authority, identity)
                await (await stack.enter_async_context(opened)).live(name)

        await crowd(0, 5)
        await one_connection(running)  # what is made once has been made
        few = min([await one_connection(running) for _ in range(3)])
        await crowd(5, scaled(5000, at_least=100))
        many = min([await one_connection(running) for _ in range(3)])
        assert few > 1000, "nothing was counted"
        assert many <= few * 1.05, (few, many)


# --- memory -------------------------------------------------------------------------------------


@pytest.mark.parametrize("carrier", [Raw, RawWebSocket])
@pytest.mark.parametrize("polite", [True, False])
async def test_what_tls_held_goes_without_the_collector(
    running: Running, polite: bool, carrier: type[Raw]
) -> None:
    """200 KB where much was read: a storm of reconnects must not wait for a collection."""
    gc.collect()
    gc.disable()
    try:
        opened = await carrier.open(running.gate.port, running.authority, running.identities[A])
        async with await opened.live(A) as device:
            house = running.gate._house
            assert house is not None
            [connection] = house.connections
            held = weakref.ref(connection._transport.get_extra_info("ssl_object"))
            del connection
            assert held() is not None
            device.send(raw.DISCONNECT if polite else b"\x30\xff\xff\xff\x7f" + b"x" * 100_000)
            await device.ended()
        await running.emptied()
        async with asyncio.timeout(2):
            while held() is not None:  # noqa: ASYNC110  (nothing rings)
                await asyncio.sleep(0.01)
    finally:
        gc.enable()


@pytest.fixture
def process(files: Files) -> Iterator[tuple[psutil.Process, int]]:
    """A gate in a process of its own, and its port."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.bench._gate", str(files.server_chain.parent), "0"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    ) as gate:
        assert gate.stdin is not None
        assert gate.stdout is not None
        try:
            yield psutil.Process(gate.pid), int(gate.stdout.readline())
        finally:
            gate.stdin.close()
            assert gate.wait(20) == 0


def peak(process: psutil.Process) -> int:
    """Most bytes resident since `forget`."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * KIB


def forget(process: psutil.Process) -> None:
    Path(f"/proc/{process.pid}/clear_refs").write_text("5")


ATTACKS = {
    "a publish of 256 MB": b"\x30\xff\xff\xff\x7f" + b"x" * 1024 * KIB,
    "a bad remaining length": b"\x30\xff\xff\xff\xff" + b"x" * 1024 * KIB,
    "a QoS 2 flood": raw.publish(f"pat/1/{A}/up/event/1", b"x" * 1000, first=0x34) * 1024,
}


@pytest.mark.parametrize("carrier", [Raw, RawWebSocket])
@pytest.mark.parametrize("attack", ATTACKS)
async def test_memory_under_attack(
    process: tuple[psutil.Process, int], authority: Authority, attack: str, carrier: type[Raw]
) -> None:
    """THREATS: cut; memory grows ≤ 64 KB a connection.

    A tenth of them attack in the very same turn of the gate's loop, then the next: of each it finds
    128 KB waiting in the kernel, and TLS holds them twice until the connection is gone. Half of
    them were silent until then; the others have sent a message in good faith, so that what TLS
    keeps for a busy connection is there already.
    """
    gate, port = process
    count = scaled(1000)
    async with AsyncExitStack() as stack:
        devices = []
        for number in range(count):
            name = f"attacker-{number:04}"
            opened = await carrier.open(port, authority, authority.device(name))
            device = await stack.enter_async_context(opened)
            devices.append(await device.live(name))
        for number in range(0, count, 2):
            topic = f"pat/1/attacker-{number:04}/up/event/1"
            devices[number].send(raw.publish(topic, b"x" * 200 * KIB, first=0x32))
        for device in devices[::2]:
            assert await device.packet() == (0x40, b"\0\x01")
        forget(gate)
        before = gate.memory_info().rss
        for first in range(0, count, count // 10):
            wave = devices[first : first + count // 10]
            gate.suspend()
            for device in wave:
                device.send(ATTACKS[attack])
            await asyncio.sleep(0.1)  # the kernel has what it takes
            gate.resume()
            await asyncio.gather(*(device.ended() for device in wave))
        assert peak(gate) - before <= count * 64 * KIB
