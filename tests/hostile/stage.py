"""The stage: an injector with shells behind its services, and an attacker's hands at the portal.

`Door` is a service; whatever gets in, it has heard. `Line` is a session's stream lane in the hands
of the portal, with an honest specialist's program at its end.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import secrets
import sqlite3
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import psutil

from agent import audit, identity
from agent.errors import AgentError
from agent.wire import challenge, messages, seal, topics
from agent.wire.catalogue import Level, RequestReason, SessionState
from agent.wire.messages import AccessRequest, Message, RosterUpdate
from agent.wire.mux import Mux
from fleet.access.hub import hub
from fleet.core import clock
from tests.agent.test_main import COMMAND
from tests.fleet.access.ends import ClientEnd
from tests.whole import PIN, WITHIN_S, Injector, Specialist, Whole

STREAM = 1 << 16 | 1


class Door:
    """A service of the injector: a real shell that does what it is told, and all that it heard."""

    def __init__(self) -> None:
        self.heard = bytearray()
        self.visits = 0
        self.port = 0
        self._visitors: set[asyncio.Task[None]] = set()

    async def open(self) -> asyncio.Server:
        server = await asyncio.start_server(self._visit, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _visit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.visits += 1
        shell = await asyncio.create_subprocess_exec(
            "/bin/sh", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert shell.stdin is not None
        assert shell.stdout is not None

        async def answer(out: asyncio.StreamReader) -> None:
            while data := await out.read(4096):
                writer.write(data)

        answering = asyncio.create_task(answer(shell.stdout))
        try:
            with contextlib.suppress(OSError):
                while data := await reader.read(4096):
                    self.heard += data
                    shell.stdin.write(data)
        finally:
            shell.kill()
            await shell.wait()
            await answering
            writer.close()


class Process(Injector):
    """An injector whose agent is a process of its own, as in life."""

    def __init__(self, state: Path, doors: dict[str, Door]) -> None:
        self.state = state
        self.days = 0.0
        self._process: subprocess.Popen[bytes] | None = None
        settings = json.loads((state / "driver.json").read_text())
        settings["services"] = {name: door.port for name, door in doors.items()}
        (state / "driver.json").write_text(json.dumps(settings))

    @property
    def id(self) -> str:
        return self._identity().device

    def start(self) -> None:
        with (self.state.parent / f"{self.state.name}.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*COMMAND, "run", "--state", str(self.state)], stdout=log, stderr=log
            )

    async def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            await asyncio.to_thread(self._process.wait, 20)

    @property
    def line(self) -> str:
        return self._identity().provision.product_line.value

    @property
    def serial(self) -> str:
        return self._identity().provision.serial

    def _identity(self) -> identity.Identity:
        known = identity.load(self.state)
        assert known is not None
        return known

    def children(self) -> list[psutil.Process]:
        """What the agent has started: nothing, ever."""
        assert self._process is not None
        return psutil.Process(self._process.pid).children(recursive=True)

    def entries(self) -> list[dict[str, Any]]:
        """The whole audit chain, from its disk."""
        with contextlib.closing(sqlite3.connect(self.state / "agent.db")) as connection:
            rows = connection.execute("SELECT entry FROM audit ORDER BY idx").fetchall()
        return [json.loads(row[0]) for row in rows]


async def eventually(what: Callable[[], Any], within_s: float = WITHIN_S) -> None:
    async with asyncio.timeout(within_s):
        while not what():  # noqa: ASYNC110  (a disk and another process ring no bell)
            await asyncio.sleep(0.02)


class Line:
    """One session's frames as the portal has them on their way; `relay` off: it keeps them."""

    def __init__(self, stage: "Stage", session: str, who: Specialist, challenged: bytes) -> None:
        self.down: list[bytes] = []
        self.up: list[bytes] = []
        self.relay = True
        self.device = stage.injector.id
        self._stage = stage
        self.session = bytes.fromhex(session)
        self.client = ClientEnd(stage.seal(session, who, challenged), self._from_client)
        hub.register(self.session, self)

    def _from_client(self, frame: bytes) -> None:
        self.down.append(frame)
        if self.relay:
            self._stage.inject(frame)

    def frame(self, frame: bytes) -> None:
        """From the injector."""
        self.up.append(frame)
        self.client.frame(frame)

    async def open(self, service: str, stream: int = STREAM) -> int:
        self.client.mux.open(stream, service)
        self.client.pump()
        await eventually(lambda: stream in self.client.accepted)
        return stream

    def type(self, keys: bytes, stream: int = STREAM) -> None:
        self.client.mux.send(stream, keys)
        self.client.pump()

    def seen(self, stream: int = STREAM) -> bytes:
        return bytes(self.client.received.get(stream, b""))

    def close(self) -> None:
        hub.unregister(self.session, self)


@dataclass
class Stage:
    here: Whole
    doors: dict[str, Door]
    stopped: list[str] = field(default_factory=list)  # what stopped the attacker, in words
    typed: dict[str, bytes] = field(default_factory=dict)  # by honest people, by door
    lines: list[Line] = field(default_factory=list)

    @property
    def injector(self) -> Process:
        found = self.here.first
        assert isinstance(found, Process)
        return found

    # --- what the attacker does -------------------------------------------------------------------

    def send(self, message: Message, to: Injector | None = None) -> str:
        """Past everything that the portal would check. Gives the payload's digest."""
        self.here.send(to or self.injector, message)
        return hashlib.sha256(messages.encode(message)).hexdigest()

    def say(self, type: str, content: Any, version: int = 1) -> str:
        """Bytes of the attacker's own making, under any type."""
        payload = content if isinstance(content, bytes) else json.dumps(content).encode()
        topic = topics.down(self.injector.id, type, version)
        assert self.here.running.gate is not None
        assert self.here.running.gate.publish(topic, payload)
        return hashlib.sha256(payload).hexdigest()

    def inject(self, frame: bytes) -> None:
        assert self.here.running.exchange.frame(self.injector.id, frame)

    def request(self, who: str, level: Level, *services: str) -> AccessRequest:
        return AccessRequest(
            at=clock.to_ms(clock.now()), session=secrets.token_hex(16), device=self.injector.id,
            specialist=who, name=who, organisation="Vendor", level=level, services=list(services),
            reason=RequestReason.REPAIR, ticket="T-1", life_s=1800,
        )  # fmt: skip

    def play_open(self, session: str, who: Specialist, challenged: bytes, service: str) -> None:
        """Frames that `who` has sealed, before anybody let them in."""
        mux = Mux(self.seal(session, who, challenged))
        mux.open(STREAM, service)
        while (frame := mux.next_frame()) is not None:
            self.inject(frame)

    # --- what honest people do --------------------------------------------------------------------

    async def let_in(self, level: str, service: str) -> Line:
        """alice's own session, approved by a person at `os`, over the portal's line."""
        session = await self.here.ask(self.injector, level=level, services=[service])
        challenged = await self.here.challenged(session)
        await self.here.answer(session, self.here.alice)
        if level == "os":
            await self.here.reached(session, SessionState.PRESENCE)
            await self.injector.command("approve", pin=PIN)
        await self.here.reached(session, SessionState.ACTIVE)
        line = Line(self, session, self.here.alice, challenged)
        self.lines.append(line)
        await line.open(service)
        return line

    async def type(self, line: Line, door: str, keys: bytes) -> None:
        """An honest keystroke, and that it arrived."""
        self.typed[door] = self.typed.get(door, b"") + keys
        line.type(keys)
        await eventually(lambda: bytes(self.doors[door].heard) == self.typed[door])

    async def started(self) -> None:
        """The injector is switched on again, and is on line and idle."""
        injector = self.injector
        injector.start()
        async with asyncio.timeout(WITHIN_S):
            while True:
                with contextlib.suppress(AgentError):
                    if (await injector.command("status"))["online"]:
                        break
                await asyncio.sleep(0.05)
        await injector.command("simulate", fault="idle")

    @staticmethod
    def seal(session: str, who: Specialist, challenged: bytes) -> seal.Seal:
        return seal.derive(
            private=who.client,
            peer=challenge.decode(challenged).key,
            binding=challenge.digest(challenged),
            session=bytes.fromhex(session),
            role=seal.Role.CLIENT,
        )

    # --- what came of it --------------------------------------------------------------------------

    async def ignored(self, digest: str, times: int = 1) -> str:
        """The injector used nothing of it, and wrote that down. Gives the reason in its chain."""

        def found() -> list[dict[str, Any]]:
            entries = self.injector.entries()
            return [e for e in entries if (e["action"], e["digest"]) == ("message:ignore", digest)]

        await eventually(lambda: len(found()) >= times)
        entry = found()[-1]
        assert (entry["actor"], entry["outcome"]) == ("portal", "refused")
        return str(entry["reason"])

    async def refused(self, session: str, reason: str) -> None:
        """In the injector's own chain: refused for this, and nobody was let in after."""
        await eventually(lambda: any(e["reason"] == reason for e in self.injector.chain(session)))
        assert "session:start" not in {e["action"] for e in self.injector.chain(session)}
        assert self.injector.chain(session)[-1]["outcome"] == "refused"

    async def refused_answer(self, session: str, reason: str) -> None:
        """An answer that changed nothing, and is written down."""
        wanted = ("session:answer", "portal", "refused", reason)
        fields = ("action", "actor", "outcome", "reason")
        await eventually(
            lambda: wanted == tuple(self.injector.chain(session)[-1][f] for f in fields)
        )

    async def has(self, what: str, version: int) -> None:
        async with asyncio.timeout(WITHIN_S):
            while (await self.injector.command("status"))[what] != version:  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    async def caught_up(self) -> None:
        """Everything sent so far has been looked at: what came after it has its answer."""
        nonsense = RosterUpdate(roster=os.urandom(16), signature=os.urandom(64))
        await self.ignored(self.send(nonsense))

    async def nothing_got_in(self) -> None:
        """No shell but those of honest people, and no key in it but theirs; the chain is whole."""
        await asyncio.sleep(0.2)  # for what may still be on its way
        assert {name: bytes(door.heard) for name, door in self.doors.items()} == {
            name: self.typed.get(name, b"") for name in self.doors
        }
        assert {name for name, door in self.doors.items() if door.visits} == set(self.typed)
        assert self.injector.children() == []
        assert audit.verify(self.injector.state / "agent.db").good


@asynccontextmanager
async def doors() -> AsyncIterator[dict[str, Door]]:
    made = {name: Door() for name in ("ssh", "console", "web")}
    servers = [await door.open() for door in made.values()]
    try:
        yield made
    finally:
        for server in servers:
            server.close()


def edited(data: bytes, **changes: Any) -> bytes:
    """A challenge with other terms."""
    return challenge.encode(msgspec.structs.replace(challenge.decode(data), **changes))
