"""A running gate on a free loopback port, on asyncio's own loop and on uvloop."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import uvloop

from broker.errors import Reason
from broker.lanes import ConnectionInfo, Delivery
from broker.options import GateOptions, Limits
from broker.server import Gate
from tests.broker.raw import WAIT_S, Raw
from tests.broker.raw_websocket import RawWebSocket
from tests.tls import Authority, Files, Issued

A = "device-aaaa"
B = "device-bbbb"


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="session")
def identities(authority: Authority) -> dict[str, Issued]:
    return {device: authority.device(device) for device in (A, B)}


@pytest.fixture(scope="session")
def files(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Files:
    return authority.write(Path(tmp_path_factory.mktemp("tls")))


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Every asynchronous test here runs on both loops; what measures, on the one of production."""
    if item.path.stem in ("test_neighbours", "test_cost", "test_deadlines"):
        return {"uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@dataclass
class Recorder:
    """A handler that writes down what it is told and acknowledges when the test says so."""

    log: list[tuple[Any, ...]] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)
    frames: list[tuple[str, bytes]] = field(default_factory=list)
    full: bool = False
    acks: bool = True
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def connected(self, device: str, info: ConnectionInfo) -> None:
        self._note("connected", device, info)

    def disconnected(self, device: str, reason: Reason) -> None:
        self._note("disconnected", device, reason)

    def up(self, delivery: Delivery) -> bool:
        if self.full:
            return False
        self.deliveries.append(delivery)
        if self.acks:
            delivery.ack()
        self.changed.set()
        return True

    def stream(self, device: str, frame: bytes) -> None:
        self.frames.append((device, frame))
        self.changed.set()

    def refused(self, peer: str, device: str | None, reason: Reason) -> None:
        self._note("refused", device, reason)

    def _note(self, *what: Any) -> None:
        self.log.append(what)
        self.changed.set()

    def has(self, *what: Any) -> bool:
        return any(entry[: len(what)] == what for entry in self.log)

    async def until(self, condition: Callable[[], bool], wait_s: float = WAIT_S) -> None:
        """Wait for something this handler is told."""
        async with asyncio.timeout(wait_s):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def told(self, *what: Any, wait_s: float = WAIT_S) -> None:
        await self.until(lambda: self.has(*what), wait_s)


@dataclass
class Running:
    """A gate with what a test needs around it."""

    gate: Gate
    handler: Recorder
    authority: Authority
    identities: dict[str, Issued]
    carrier: type[Raw] = Raw

    async def open(self, identity: Issued | None, **options: Any) -> Raw:
        """A connection of this test's carrier."""
        return await self.carrier.open(self.gate.port, self.authority, identity, **options)

    async def raw(self, device: str | None = A, **options: Any) -> Raw:
        """A TLS connection with this device's certificate, or with none."""
        identity = self.identities[device] if device is not None else None
        return await self.open(identity, **options)

    async def live(self, device: str = A, *, window: int | None = None, **options: Any) -> Raw:
        return await (await self.raw(device, window=window)).live(device, **options)

    async def emptied(self) -> None:
        """Wait until nothing is left of any connection: socket, session, task."""
        for _ in range(500):
            if not (self.gate.stats().connections or self.gate.stats().sessions):
                return
            await asyncio.sleep(0.01)
        raise AssertionError(self.gate.stats())


Start = Callable[..., Any]

# The attacks come over both: straight TLS, and a websocket in it.
BOTH_CARRIERS = pytest.mark.parametrize(
    "door", [Raw, RawWebSocket], ids=["tls", "websocket"], indirect=True
)


@pytest.fixture
def door(request: pytest.FixtureRequest) -> type[Raw]:
    """How `Running` opens connections."""
    chosen: type[Raw] = getattr(request, "param", Raw)
    return chosen


@pytest.fixture
async def start(
    authority: Authority,
    identities: dict[str, Issued],
    files: Files,
    door: type[Raw],
    caplog: pytest.LogCaptureFixture,
) -> AsyncIterator[Start]:
    """Start gates: `await start(limits=…, web_factory=…, admit=…)`. No test may leave a task."""
    gates: list[Gate] = []
    handler = Recorder()

    async def begin(*, web_factory: Any = None, limits: Any = None, **options: Any) -> Running:
        settings = GateOptions(
            host="127.0.0.1",
            port=0,
            certificate=files.server_chain,
            key=files.server_key,
            device_ca=files.device_ca,
            limits=replace(Limits(), **(limits or {})),
            **options,
        )
        gate = Gate(settings, handler, web_factory)
        await gate.start()
        gates.append(gate)
        return Running(gate, handler, authority, identities, door)

    yield begin
    for gate in gates:
        await gate.stop()
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left, left
    online: dict[str, int] = {}
    for kind, device, *_ in handler.log:
        if kind in ("connected", "disconnected"):
            online[device] = online.get(device, 0) + (1 if kind == "connected" else -1)
            assert online[device] in (0, 1), handler.log
    assert not any(online.values()), "every connected has its disconnected"
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert not errors or "expects_errors" in caplog.handler.__dict__, errors


@pytest.fixture
async def running(start: Start) -> Running:
    found: Running = await start()
    return found


@pytest.fixture
def expects_errors(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """For tests whose handler fails on purpose."""
    caplog.handler.__dict__["expects_errors"] = True
    yield caplog
