"""A real control socket with the real commands, before a desk that the test drives."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from agent.access.commands import Commands
from agent.access.effects import SendChallenge
from agent.access.in_force import InForce
from agent.access.pins import Verdict
from agent.control import SOCKET, Control
from agent.drivers import DriverError
from agent.wire.catalogue import ClinicalState, ProductLineCode
from tests.agent.access.simulator import Bench

PIN = "246810"
CODE = "7KM2-Q9XA"


class Pins:
    """One approver; three tries, so that a test is short."""

    def __init__(self) -> None:
        self.numbers = [1]
        self.left = 3

    async def approvers(self) -> list[int]:
        return self.numbers

    async def set(self, approver: int, pin: str, specialist: str | None = None) -> None:
        self.numbers.append(approver)

    async def check(self, pin: str) -> Verdict:
        if pin == PIN and self.left:
            return Verdict(1)
        self.left = max(0, self.left - 1)
        return Verdict(None, locked=not self.left, left=self.left)


class Doors(Control):
    """Control that remembers everybody who connected, so that a test can hang up."""

    def __init__(self) -> None:
        super().__init__()
        self.writers: list[asyncio.StreamWriter] = []

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        await super()._client(reader, writer)


class Script:
    """What the commands need of an agent and of its access, in one."""

    def __init__(self, state: Path, **options: Any) -> None:
        self.state_dir = state
        self.bench = Bench(**options)
        self.desk = self.bench.desk
        self.in_force = InForce(state)
        self.in_force.local = self.bench.facts.policy
        self.pins = Pins()
        self.codes: dict[str, str] = {}
        self.control = Doors()
        self.device = self.bench.facts.device
        self.identity = SimpleNamespace(provision=SimpleNamespace(serial="SN-2041"))
        self.driver = SimpleNamespace(
            product_line=ProductLineCode.CT_DUAL, declare_no_patient=self._no_patient
        )
        self.online = True
        self.remote_enabled = True
        self.outbox = SimpleNamespace(depth=0)
        self.told: list[bool] = []  # of the panel's switch
        self.clinical_state = ClinicalState.IDLE
        self.recorded: list[tuple[str, str]] = []
        self._watchers: set[asyncio.Event] = set()
        self._server: asyncio.Task[None] | None = None
        Commands(self, self).register()  # type: ignore[arg-type]

    # --- the socket ------------------------------------------------------------------------------

    async def start(self) -> None:
        self._server = asyncio.create_task(self.control.serve(self.state_dir / SOCKET))
        while not (self.state_dir / SOCKET).exists():  # noqa: ASYNC110
            await asyncio.sleep(0.005)

    async def stop(self) -> None:
        """As when the agent dies: connections close, the socket goes."""
        assert self._server is not None
        self._server.cancel()
        await asyncio.gather(self._server, return_exceptions=True)
        for writer in self.control.writers:
            writer.transport.abort()
        await asyncio.sleep(0.01)

    # --- as the agent ----------------------------------------------------------------------------

    def record(self, action: str, *, actor: str, **_rest: Any) -> asyncio.Future[None]:
        self.recorded.append((action, actor))
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        written.set_result(None)
        return written

    async def emit(self, kind: type[Any], *, enabled: bool) -> None:
        self.told.append(enabled)

    def connect(self) -> None:
        self.online = True

    async def disconnect(self) -> None:
        self.online = False

    def look(self) -> None:
        self.bench.clinical(self.clinical_state)
        self.look_changed()

    def _no_patient(self) -> None:
        if self.clinical_state is ClinicalState.INJECTING:
            raise DriverError("An injection is running.")
        self.clinical_state = ClinicalState.SERVICE

    # --- as access -------------------------------------------------------------------------------

    def now(self) -> Any:
        return self.bench.now

    async def do(self, effects: list[Any]) -> None:
        self.bench.done += effects
        self.look_changed()

    def set_policy(self, new: Any) -> list[Any]:
        self.in_force.set_local(new)
        return self._holds()

    def set_site(self, new: Any, actor: str = "panel") -> list[Any]:
        self.in_force.set_site(new)
        return self._holds()

    def _holds(self) -> list[Any]:
        now = self.bench.now
        return self.desk.policy_changed(now, self.in_force.policy(now.wall_ms))

    def look_changed(self) -> None:
        for effect in self.bench.done:
            if isinstance(effect, SendChallenge):
                self.codes[effect.session] = CODE
        for watcher in self._watchers:
            watcher.set()

    @contextmanager
    def watching(self) -> Iterator[asyncio.Event]:
        event = asyncio.Event()
        self._watchers.add(event)
        try:
            yield event
        finally:
            self._watchers.discard(event)

    # --- what happens ----------------------------------------------------------------------------

    def clinical(self, state: ClinicalState) -> None:
        self.clinical_state = state
        self.look()

    def asked(self, **changes: Any) -> str:
        session = self.bench.request(**changes)
        self.look_changed()
        return session

    def presence(self, **changes: Any) -> str:
        """A signed request that waits for a person."""
        session = self.bench.request(**changes)
        self.bench.answer(session)
        self.look_changed()
        return session

    def active(self, **changes: Any) -> str:
        session = self.bench.active(**changes)
        self.look_changed()
        return session

    def later(self, seconds: float) -> None:
        self.bench.later(seconds)
        self.look_changed()


@asynccontextmanager
async def script(tmp_path: Path, language: str = "en", **options: Any) -> AsyncIterator[Script]:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    (state / "driver.json").write_text(json.dumps({"language": language}))
    made = Script(state, **options)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()
