"""An agent's insides with no network: real store, outbox, audit chain and streams around a runner.
The portal's end of the bundle's stream is the real multiplexer."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from agent.audit import AuditLog
from agent.clock import Clock
from agent.drivers import ct_dual
from agent.drivers.base import DriverSettings
from agent.drivers.simulator import Simulator
from agent.errors import AgentError
from agent.jobs.runner import Runner
from agent.outbox import Entry, Outbox
from agent.store import Store
from agent.streams import Streams
from agent.wire import messages, seal
from agent.wire.catalogue import ClinicalState, ExecutionState, JobKind, ProductLineCode
from agent.wire.messages import Accepted, AuditEntry, Cancel, Durable, Execution, Job
from agent.wire.mux import Data, Ended, Mux
from agent.wire.seal import Role

DEVICE = "device-0001"
BOOT_S = 1_000.0
WALL_S = 1_800_000_000.0


class Rig:
    """Stands where `agent.runtime.Agent` stands."""

    def __init__(self, folder: Path) -> None:
        self.state_dir = folder
        self.elapsed = 0.0
        self.clock = Clock(
            boot="b" * 32,
            boot_seconds=lambda: BOOT_S + self.elapsed,
            wall_seconds=lambda: WALL_S + self.elapsed,
        )
        self.driver = Simulator(
            ct_dual.MODEL,
            DriverSettings(
                product_line=ProductLineCode.CT_DUAL, serial="S-1", services={}, pace=0.01
            ),
        )
        self.device = DEVICE
        self.handlers: dict[type, Callable[[Any, bytes], Any]] = {}
        self.ticks: list[Callable[[float], None]] = []
        self.watchers: list[Callable[[ClinicalState], None]] = []
        self.status: dict[str, Any] = {}
        self.sent: list[Durable] = []
        self.streams = Streams(ready=lambda: None, services=dict, spawn=self.spawn)
        self._changed = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Rig"]:
        self.store = Store(self.state_dir / "agent.db")
        self.outbox = Outbox(self.store, self.clock)
        await self.outbox.open()
        self.outbox.on_committed = self._committed
        key = Ed25519PrivateKey.from_private_bytes(bytes([3]) * 32)
        self.audit = AuditLog(self.store, self.outbox, self.clock, device=DEVICE, key=key)
        await self.audit.open()
        self.driver.advance(self.clock.now())
        self.pass_time(10)
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                self.runner = Runner(self)  # type: ignore[arg-type]
                self.runner.start()
                yield self
                raise _OverError
        except* _OverError:
            pass
        finally:
            await self.streams.close()
            await self.store.close()

    def _committed(self, entry: Entry) -> None:
        message = messages.decode_up(entry.type, entry.version, entry.payload)
        assert isinstance(message, Durable)
        self.sent.append(message)
        self._changed.set()

    # --- what the runner asks of an agent --------------------------------------------------------

    def handle(self, kind: type, handler: Callable[[Any, bytes], Any]) -> None:
        self.handlers[kind] = handler

    def on_tick(self, watcher: Callable[[float], None]) -> None:
        self.ticks.append(watcher)

    def on_clinical_state(self, watcher: Callable[[ClinicalState], None]) -> None:
        self.watchers.append(watcher)

    def status_from(self, source: Callable[[], dict[str, Any]]) -> None:
        self.status_source = source

    def spawn(self, work: Any, *, name: str | None = None) -> asyncio.Task[None]:
        return self._group.create_task(work)

    def get(self, kind: type) -> Any:
        return {Streams: self.streams}[kind]

    @property
    def clinical_state(self) -> ClinicalState:
        return self.driver.state

    def emit(self, kind: type[Durable], **fields: Any) -> Any:
        return self.outbox.add(kind, fields)

    def accept(self, of: str, ref: str, payload: bytes) -> Any:
        return self.emit(Accepted, of=of, ref=ref, digest=hashlib.sha256(payload).hexdigest())

    def record(self, action: str, **fields: Any) -> Any:
        return self.audit.record(action, **fields)

    # --- what a test does ------------------------------------------------------------------------

    def pass_time(self, seconds: float) -> None:
        self.elapsed += seconds
        self.driver.advance(self.clock.now())
        for watcher in self.ticks:
            watcher(self.clock.now())

    def simulate(self, fault: str) -> None:
        self.driver.simulate(fault)
        for watcher in self.watchers:
            watcher(self.driver.state)

    async def deliver(self, message: messages.Message) -> str | None:
        """As the inbox does; gives the code of the error, if there was one."""
        payload = messages.encode(message)
        try:
            async with asyncio.timeout(10):
                await self.handlers[type(message)](message, payload)
        except AgentError as error:
            return error.code
        return None

    def states(self, execution: str) -> list[tuple[str, str | None]]:
        return [
            (m.state.value, m.reason.value if m.reason else None)
            for m in self.sent
            if isinstance(m, Execution) and m.execution == execution
        ]

    def offers(self) -> list[Execution]:
        return [m for m in self.sent if isinstance(m, Execution) and m.key is not None]

    def accepted(self, of: str) -> list[Accepted]:
        return [m for m in self.sent if isinstance(m, Accepted) and m.of == of]

    async def actions(self) -> list[str]:
        rows = await self.store.write(
            lambda db: list(db.execute("SELECT entry FROM audit ORDER BY idx"))
        )
        entries = [msgspec.json.decode(entry, type=AuditEntry) for (entry,) in rows]
        return [f"{entry.action} {entry.actor} {entry.outcome}" for entry in entries]

    async def until(self, condition: Callable[[], Any], timeout_s: float = 10) -> Any:
        async with asyncio.timeout(timeout_s):
            while not (result := condition()):
                self._changed.clear()
                try:
                    await asyncio.wait_for(self._changed.wait(), 0.02)
                except TimeoutError:
                    continue
            return result

    async def until_state(self, execution: str, state: ExecutionState) -> None:
        await self.until(lambda: state.value in [s for s, _reason in self.states(execution)])


class _OverError(Exception):
    """Ends the rig's tasks."""


class PortalJob:
    """A job as the portal makes it, and the portal's end of its bundle."""

    def __init__(self, number: int = 1, *, life_s: float = 3600, hours: int = 24) -> None:
        self.id = f"{number:032x}"
        self._private = X25519PrivateKey.generate()
        self.message = Job(
            execution=self.id,
            kind=JobKind.COLLECT_DIAGNOSTICS,
            hours=hours,
            not_after=int((WALL_S + life_s) * 1000),
            key=self._private.public_key().public_bytes_raw(),
        )
        self.cancel = Cancel(execution=self.id)
        self._attempt = 0

    def mux(self, device_key: bytes) -> Mux:
        payload = messages.encode(self.message)
        return Mux(
            seal.derive(
                private=self._private,
                peer=device_key,
                binding=hashlib.sha256(payload).digest(),
                session=bytes.fromhex(self.id),
                role=Role.CLIENT,
            )
        )

    def fetch(self, rig: Rig, device_key: bytes, *, confirm: bool = True) -> bytes:
        """Open a new stream and read all of it, one chunk behind with acknowledging, as the portal
        does; `confirm`: acknowledge the last one as well."""
        self._attempt += 1
        mux, got, held, over = self.mux(device_key), bytearray(), 0, False
        mux.open(self._attempt, "bundle", bulk=True)
        mux.end(self._attempt)
        while not over:
            _push(mux, rig)
            frame = rig.streams.next_frame()
            assert frame is not None, "the device has nothing to send"
            for event in mux.receive(frame):
                if isinstance(event, Data):
                    got += event.data
                    mux.consumed(event.stream, held)
                    held = len(event.data)
                over = over or isinstance(event, Ended)
        if confirm:
            mux.consumed(self._attempt, held)
        else:
            mux.reset(self._attempt)
        _push(mux, rig)
        return bytes(got)


def _push(mux: Mux, rig: Rig) -> None:
    while (frame := mux.next_frame()) is not None:
        rig.streams.receive(frame)
