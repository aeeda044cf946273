"""A whole agent at the real gate, with a portal that carries and a specialist who signs."""

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from agent import access, control, streams
from agent.control import SOCKET
from agent.drivers import Service
from agent.runtime import Agent
from agent.wire import challenge, frames, roster, seal, topics
from agent.wire.catalogue import Level, RequestReason, SessionState
from agent.wire.messages import (
    AccessRequest,
    Challenge,
    End,
    EndReason,
    Hello,
    RosterUpdate,
    SessionUpdate,
)
from agent.wire.mux import Accepted, Data, Event, Mux
from agent.wire.roster import Member, Roster
from tests import entitled as entitlements
from tests.agent.access.simulator import Specialist
from tests.agent.support import DEVICE, TRUST_KEY, Portal, StubDriver, enrolled, portal
from tests.tls import Authority

AUTHORITY = Authority()
PIN = "246810"
DAY = 86_400_000


class World:
    def __init__(self, state: Path, served: Portal) -> None:
        self.state = state
        self.portal = served
        self.driver = StubDriver()
        self.alice = Specialist("alice")
        self.agent: Agent
        self.task: asyncio.Task[None]
        self.ports = {"ssh": Service(Level.OS, 1), "web": Service(Level.SERVICE, 1)}
        self.driver.services = lambda: self.ports  # type: ignore[method-assign]
        self._sessions = 0
        self._rosters = 0

    # --- the agent -------------------------------------------------------------------------------

    async def start(self) -> None:
        hellos = len(self.portal.of(Hello))
        self.launch()
        await self.portal.until(lambda: len(self.portal.of(Hello)) > hellos)

    def launch(self) -> None:
        """Start, and do not wait for a connection."""
        self.agent = Agent(self.state, driver=self.driver, parts=[streams.install, access.install])
        self.task = asyncio.create_task(self.agent.run())

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    @property
    def access(self) -> access.Access:
        return self.agent.get(access.Access)

    async def command(self, op: str, **fields: Any) -> dict[str, Any]:
        """As the command line asks. Raises ControlError."""
        return await asyncio.to_thread(control.call, self.state, op, **fields)

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[Callable[[], Any]]:
        """As the panel watches; gives a function that reads the next view."""
        reader, writer = await asyncio.open_unix_connection(str(self.state / SOCKET))
        writer.write(b'{"op": "watch"}\n')

        async def read() -> Any:
            async with asyncio.timeout(20):
                answer = json.loads(await reader.readline())
            assert answer["ok"]
            return answer["result"]

        yield read
        writer.close()

    def audit(self, session: str | None = None) -> list[tuple[str, str, str, str | None]]:
        """(action, actor, outcome, reason) from the chain on disk."""
        connection = sqlite3.connect(self.state / "agent.db")
        rows = connection.execute("SELECT entry FROM audit ORDER BY idx").fetchall()
        connection.close()
        entries = [json.loads(row[0]) for row in rows]
        return [
            (e["action"], e["actor"], e["outcome"], e["reason"])
            for e in entries
            if session in (None, e["session"])
        ]

    # --- the portal ------------------------------------------------------------------------------

    def roster(self, *members: Member, version: int | None = None, **changes: Any) -> RosterUpdate:
        """A roster signed by the trust key; with no members named, alice's."""
        self._rosters = version or self._rosters + 1
        now = self.agent.clock.wall_ms()
        fields: dict[str, Any] = {"issued_at": now - 1000, "expires_at": now + 6 * DAY}
        made = Roster(
            version=self._rosters,
            members=list(members) or [self.member()],
            **{**fields, **changes},
        )
        data, signature = roster.sign(TRUST_KEY, made)
        return RosterUpdate(roster=data, signature=signature)

    def member(self, **changes: Any) -> Member:
        return self.alice.member(until=self.agent.clock.wall_ms() + DAY, **changes)

    async def rostered(self, update: RosterUpdate | None = None) -> None:
        before = self.access.roster.version
        self.portal.send(update or self.roster())
        await self.portal.until(lambda: self.access.roster.version > before)
        if not self.access.entitlement.version:
            await self.entitled()

    async def entitled(self, **changes: Any) -> None:
        """The trust key entitles this injector, by default to everything."""
        before, identity = self.access.entitlement.version, self.agent.identity
        line, serial = identity.provision.product_line, identity.provision.serial
        fields = {"version": before + 1, "key": TRUST_KEY, **changes}
        self.portal.send(entitlements.update(line, serial, self.agent.clock.wall_ms(), **fields))
        await self.portal.until(lambda: self.access.entitlement.version > before)

    def request(self, **changes: Any) -> str:
        self._sessions += 1
        fields: dict[str, Any] = {
            "at": 1,
            "session": f"{self._sessions:032x}",
            "device": DEVICE,
            "specialist": "alice",
            "name": "Alice",
            "organisation": "Vendor",
            "level": Level.OS,
            "services": ["ssh"],
            "reason": RequestReason.REPAIR,
            "ticket": None,
            "life_s": 600,
        }
        asked = AccessRequest(**{**fields, **changes})
        self.portal.send(asked)
        return asked.session

    async def challenge(self, session: str) -> Challenge:
        found: Challenge = await self.portal.until(
            lambda: next((c for c in self.portal.of(Challenge) if c.session == session), None)
        )
        return found

    async def answer(self, session: str, who: Specialist | None = None) -> None:
        challenged = await self.challenge(session)
        self.portal.send((who or self.alice).answer(session, challenged.challenge))

    def end(self, session: str) -> None:
        self.portal.send(End(session=session, reason=EndReason.ENDED_BY_PORTAL))

    def updates(self, session: str) -> list[SessionUpdate]:
        return [u for u in self.portal.of(SessionUpdate) if u.session == session]

    async def reached(self, session: str, state: SessionState) -> SessionUpdate:
        found: SessionUpdate = await self.portal.until(
            lambda: next((u for u in self.updates(session) if u.state is state), None)
        )
        return found

    async def active(self, **changes: Any) -> str:
        """A session all the way in, approved by PIN at the injector."""
        session = self.request(**changes)
        await self.answer(session)
        await self.reached(session, SessionState.PRESENCE)
        await self.command("approve", pin=PIN)
        await self.reached(session, SessionState.ACTIVE)
        return session

    # --- the specialist's program ----------------------------------------------------------------

    async def client(self, session: str) -> "Client":
        challenged = (await self.challenge(session)).challenge
        terms = challenge.decode(challenged)
        return Client(
            self.portal,
            seal.derive(
                private=self.alice.client,
                peer=terms.key,
                binding=challenge.digest(challenged),
                session=bytes.fromhex(session),
                role=seal.Role.CLIENT,
            ),
        )


class Client:
    """A mux over the gate's stream lane."""

    def __init__(self, served: Portal, made: seal.Seal) -> None:
        self.mux = Mux(made)
        self.events: list[Event] = []
        self.data = bytearray()
        self._portal = served
        self._taken = len(served.frames)
        self._session = made.session

    def turn(self) -> None:
        while (frame := self.mux.next_frame()) is not None:
            self._portal.gate.publish(topics.down_stream(DEVICE), frame)
        for frame in self._portal.frames[self._taken :]:
            if frames.parse(frame).session == self._session:
                for event in self.mux.receive(frame):
                    self.events.append(event)
                    if isinstance(event, Data):
                        self.data += event.data
                        self.mux.consumed(event.stream, len(event.data))
        self._taken = len(self._portal.frames)

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(10):
            while True:
                self.turn()
                if condition():
                    return
                await asyncio.sleep(0.005)

    async def open(self, stream: int, service: str) -> None:
        self.mux.open(stream, service)
        await self.until(lambda: Accepted(stream) in self.events)


@asynccontextmanager
async def world(tmp_path: Path, *, ready: bool = True) -> AsyncIterator[World]:
    """`ready`: alice is on the roster, and approver 1 has a PIN."""
    async with portal(tmp_path / "gate", AUTHORITY) as served:
        state = enrolled(tmp_path / "state", AUTHORITY, served.gate.port)
        made = World(state, served)
        await made.start()
        try:
            if ready:
                await made.rostered()
                await made.command("pin-set", approver=1, pin=PIN)
            yield made
        finally:
            with contextlib.suppress(Exception):
                await made.stop()
