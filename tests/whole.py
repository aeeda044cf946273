"""A portal with its gate and whole injectors in one loop: TLS, enrolment and database are real.

    async with whole(tmp_path, settings, people=…, line=…, site=…) as here:
        session = await here.ask(here.first, level="os", services=["ssh"])
        await here.answer(session, here.alice)

The portal does here what its services do, and, where a test says so, what an attacker who owns it
would: it shows other bytes than it has, holds messages back, sends them again or to the wrong
device. Only the injectors' boot clocks are the test's.
"""

import asyncio
import contextlib
import json
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from agent import audit as device_audit
from agent import control, core, main, posix
from agent.clock import Clock
from agent.runtime import Agent
from agent.wire import challenge, messages, sshsig, topics
from agent.wire import roster as rosters
from agent.wire.catalogue import Level, ProductLineCode, SessionReason, SessionState
from agent.wire.messages import Answer, Message, SshProof
from fleet.access import rosters as portal_rosters
from fleet.access import services as access
from fleet.access.models import Session
from fleet.accounts.models import User
from fleet.audit.models import DeviceEntry, Entry
from fleet.core import clock, ports
from fleet.enrolment import selectors
from fleet.enrolment import services as enrolment
from fleet.inventory.models import Device, ProductLine, Site
from fleet.mqtt.server import Running
from tests.entitled import entitle
from tests.fleet.mqtt.test_server import in_thread, serving, until

PIN = "246810"
WITHIN_S = 20.0
# A leap of the boot clock is no silence of the line.
PATIENT = core.Timing(ping=3600, silence=7200, heartbeat=3600)
DAY_MS = 86_400_000


@dataclass
class Specialist:
    """`user` None: somebody whom nobody knows."""

    user: User | None = None
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    client: X25519PrivateKey = field(default_factory=X25519PrivateKey.generate)

    @property
    def client_key(self) -> bytes:
        return self.client.public_key().public_bytes_raw()

    def sign(self, challenged: bytes) -> bytes:
        return sshsig.sign(self.key, challenge.to_sign(challenged, self.client_key))

    def member(self) -> rosters.Member:
        assert self.user is not None
        return rosters.Member(
            id=self.user.username,
            name=self.user.username,
            keys=[sshsig.public_blob(self.key.public_key().public_bytes_raw())],
            level=Level.OS,
            patient_data=True,
            product_lines=[ProductLineCode.CT_DUAL],
            until=clock.to_ms(clock.now()) + 300 * DAY_MS,
        )


class Injector:
    """An agent with all of its parts, and a boot clock that can leap."""

    def __init__(
        self, state: Path, *, boot: str | None = None, timing: core.Timing | None = PATIENT
    ) -> None:
        self.state = state
        self.agent = Agent(
            state,
            parts=[*main.parts(), self._watch],
            clock=Clock(
                boot=boot,
                boot_seconds=lambda: posix.boot_seconds() + self._ahead_s,
                wall_seconds=lambda: time.time() + self.days * 86_400,
            ),
            timing=timing,
        )
        self._ahead_s = 0.0
        self.days = 0.0  # that its wall clock is ahead
        self.running: asyncio.Task[None] | None = None
        self._tick = asyncio.Event()

    def _watch(self, agent: Agent) -> None:
        agent.on_tick(lambda now: self._tick.set())

    @property
    def id(self) -> str:
        return self.agent.device

    def start(self) -> None:
        self.running = asyncio.create_task(self.agent.run())

    async def stop(self) -> None:
        """As its service manager ends it."""
        if self.running is not None:
            self.running.cancel()
            await asyncio.gather(self.running, return_exceptions=True)

    def leap(self, seconds: float) -> None:
        self._ahead_s += seconds

    async def ticked(self) -> None:
        """Right after a tick: half a second is left until the next."""
        self._tick.clear()
        async with asyncio.timeout(WITHIN_S):
            await self._tick.wait()

    async def command(self, op: str, **fields: Any) -> dict[str, Any]:
        """As the command line at the injector asks. Raises ControlError."""
        return await asyncio.to_thread(control.call, self.state, op, **fields)

    def chain(self, session: str) -> list[dict[str, Any]]:
        """The device's own audit of a session, from its disk."""
        with contextlib.closing(sqlite3.connect(self.state / "agent.db")) as connection:
            rows = connection.execute("SELECT entry FROM audit ORDER BY idx").fetchall()
        entries = [json.loads(row[0]) for row in rows]
        return [entry for entry in entries if entry["session"] == session]


@dataclass
class Whole:
    """`alice` and `bob` are on the roster, `mallory` is not. `alice` asks."""

    running: Running
    alice: Specialist
    bob: Specialist
    mallory: Specialist
    injectors: list[Injector]
    trust: Ed25519PrivateKey  # which nobody at the portal has

    @property
    def first(self) -> Injector:
        return self.injectors[0]

    # --- what the portal does --------------------------------------------------------------------

    async def ask(
        self,
        at: Injector,
        *,
        level: str,
        services: list[str],
        pretend: dict[str, str] | None = None,
    ) -> str:
        """alice asks; gives the session. `pretend`: levels of services that the portal makes up."""

        def work() -> str:
            assert self.alice.user is not None
            device = Device.objects.get(pk=at.id)
            device.services |= pretend or {}
            session = access.request(
                actor=self.alice.user,
                device=device,
                level=level,
                services=services,
                reason="repair",
                ticket="T-1",
                life=timedelta(minutes=30),
                now=clock.now(),
            )
            return session.pk

        return await in_thread(work)

    async def challenged(self, session: str) -> bytes:
        await self.reached(session, SessionState.CHALLENGED)
        return bytes((await self.row(session)).challenge or b"")

    async def answer(
        self, session: str, who: Specialist, *, shown: bytes | None = None
    ) -> tuple[bytes, bytes]:
        """alice's program answers, with the key of `who`, to what the portal has `shown`: to the
        challenge, if nothing else. Gives the client's key and the signature."""
        challenged = await self.challenged(session)
        signature = who.sign(shown or challenged)
        await self.pass_on(session, who.client_key, signature)
        return who.client_key, signature

    async def pass_on(self, session: str, client_key: bytes, signature: bytes) -> None:
        def work() -> None:
            assert self.alice.user is not None
            access.answer(
                actor=self.alice.user,
                session=Session.objects.get(pk=session),
                client_key=client_key,
                proof=SshProof(signature=signature),
                now=clock.now(),
            )

        await in_thread(work)

    async def end(self, session: str) -> None:
        def work() -> None:
            assert self.alice.user is not None
            access.end(
                actor=self.alice.user, session=Session.objects.get(pk=session), now=clock.now()
            )

        await in_thread(work)

    def send(self, to: Injector, message: Message) -> None:
        """Past everything that the portal would check, at once."""
        topic = topics.down(to.id, message.TYPE, message.VERSION)
        assert self.running.gate.publish(topic, messages.encode(message))

    @contextmanager
    def holding(self) -> Iterator[list[Message]]:
        """The portal keeps what it should send."""
        held: list[Message] = []
        sender = ports._sender
        ports.set_sender(lambda device, message: held.append(message))
        try:
            yield held
        finally:
            ports.set_sender(sender)

    # --- what came of it -------------------------------------------------------------------------

    async def row(self, session: str) -> Session:
        return await in_thread(lambda: Session.objects.get(pk=session))

    async def reached(self, session: str, state: SessionState) -> None:
        rows = Session.objects.filter(pk=session, state=state.value)
        await until(rows.all().exists, WITHIN_S)

    async def wrote(self, at: Injector, session: str, action: str, reason: str) -> dict[str, Any]:
        """The device's refusal, once it is in its own chain and, the same, in the server's copy."""
        rows = DeviceEntry.objects.filter(device=at.id, session=session, action=action)

        def copied() -> dict[str, Any] | None:
            entries: list[dict[str, Any]] = [row.entry for row in rows.all()]
            return next((e for e in entries if e["reason"] == reason), None)

        await until(lambda: copied() is not None, WITHIN_S)
        copy = await in_thread(copied)
        assert copy is not None
        assert copy["outcome"] == "refused"
        assert copy in at.chain(session)
        assert device_audit.verify(at.state / "agent.db").good
        return copy

    async def refused(
        self,
        at: Injector,
        session: str,
        reason: SessionReason,
        state: SessionState = SessionState.REFUSED,
    ) -> None:
        """The device decided so, nobody was in, and both sides wrote it down (R-ACC-10)."""
        await self.reached(session, state)
        action = "session:refuse" if state is SessionState.REFUSED else "session:expire"
        row = await self.row(session)
        assert (row.state_reason, row.active_at, row.receipt) == (reason.value, None, None)
        await self.wrote(at, session, action, reason.value)
        assert at.chain(session)[-1]["action"] == action  # nothing after it
        entry = (await in_thread(lambda: Entry.objects.get(session=session, action=action))).entry
        said = (entry["actor"], entry["device"], entry["outcome"], entry["reason"])
        assert said == (at.id, at.id, "refused", reason.value)
        await self.nobody_in(at)

    async def nobody_in(self, at: Injector) -> None:
        assert (await at.command("status"))["sessions"] == 0


# --- setting it up ------------------------------------------------------------------------------


def provision(state: Path, serial: str, line: ProductLine, site: Site, trust_key: bytes) -> None:
    """A state directory as it leaves the works."""
    claim = enrolment.create_claim(serial=serial, product_line=line, site=site, now=clock.now())
    bundle = selectors.provisioning_bundle(
        serial=serial, product_line=line.pk, claim=claim, trust_key=trust_key
    )
    state.mkdir(mode=0o700)
    (state / "provision.json").write_text(json.dumps(bundle))
    (state / "driver.json").write_text(
        json.dumps(
            {
                "driver": "simulator",
                "services": {"ssh": 1, "console": 2, "web": 3},
                "pace": 0.001,  # nobody injects by itself
            }
        )
    )


def roster(*members: rosters.Member, version: int = 1) -> rosters.Roster:
    now_ms = clock.to_ms(clock.now())
    return rosters.Roster(
        version=version,
        issued_at=now_ms - 1000,
        expires_at=now_ms + 6 * DAY_MS,
        members=list(members),
    )


def publish(trust: Ed25519PrivateKey, made: rosters.Roster) -> None:
    data, signature = rosters.sign(trust, made)
    portal_rosters.take_in(roster=data, signature=signature, actor="portal", now=clock.now())


def _all_there(count: int) -> Callable[[], bool]:
    ready = Device.objects.filter(online=True, roster_version=1, entitlement_version=1)
    ready = ready.exclude(services={})
    return lambda: ready.all().count() == count


@asynccontextmanager
async def _straight(port: int) -> AsyncIterator[int]:
    yield port


@asynccontextmanager
async def whole(
    folder: Path,
    settings: Any,
    *,
    people: tuple[User, User],
    line: ProductLine,
    site: Site,
    count: int = 1,
    front: Callable[[int], AbstractAsyncContextManager[int]] = _straight,
    make: Callable[[Path], Injector] = Injector,
) -> AsyncIterator[Whole]:
    """The authorities of the portal exist. `people` become alice and bob. `front` stands before
    the gate: its port becomes the one that injectors use. `make` makes one of its directory."""
    trust = Ed25519PrivateKey.generate()
    alice, bob = map(Specialist, people)
    async with serving() as running, front(running.gate.port) as port:
        settings.PATENCY_MQTT = f"localhost:{port}"
        states = [folder / f"i{number}" for number in range(count)]

        def prepare() -> None:
            publish(trust, roster(alice.member(), bob.member()))
            for state in states:
                provision(
                    state, f"SN-{state.name}", line, site, trust.public_key().public_bytes_raw()
                )
                entitle(line.pk, f"SN-{state.name}", key=trust)

        await in_thread(prepare)
        injectors = [make(state) for state in states]
        for each in injectors:
            each.start()
        try:
            await until(_all_there(count), WITHIN_S)
            for each in injectors:
                await each.command("simulate", fault="idle")  # past its start
                await each.command("pin-set", approver=1, pin=PIN)
            yield Whole(running, alice, bob, Specialist(), injectors, trust)
        finally:
            for each in injectors:
                await each.stop()


def replay(session: str, answered: tuple[bytes, bytes]) -> Answer:
    client_key, signature = answered
    return Answer(session=session, client_key=client_key, proof=SshProof(signature=signature))
