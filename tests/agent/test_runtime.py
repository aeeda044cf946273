"""A whole agent at the real gate: presence, events, telemetry, faults of link and portal."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent import audit, control, core, identity
from agent.drivers import DriverEvent
from agent.errors import PeerError, StateError
from agent.runtime import Agent
from agent.wire import chain, messages, topics
from agent.wire.catalogue import ClinicalState, EventCode, EventPhase, Metric, RefusalReason
from agent.wire.messages import (
    Accepted,
    Audit,
    Cancel,
    Event,
    Execution,
    Heartbeat,
    Hello,
    Live,
    Rate,
    ServerHead,
    Telemetry,
)
from broker import packets
from tests.agent.support import (
    DEVICE,
    SERVER_AUDIT_KEY,
    EnrolmentServer,
    Portal,
    StubDriver,
    enrolled,
    portal,
    provision,
)
from tests.relay import Relay
from tests.tls import Authority

AUTHORITY = Authority()
FAST = core.Timing(ping=0.4, silence=0.8, heartbeat=0.3, back_off=0.05, back_off_cap=0.1)
EXECUTION = "ab" * 16


class Running:
    """An agent in a task; `driver` is the test's."""

    def __init__(self, state: Path, **options: Any) -> None:
        self.state = state
        self.driver = StubDriver()
        self.agent = Agent(state, driver=self.driver, **{"timing": FAST, **options})
        self.task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Running":
        self.task = asyncio.create_task(self.agent.run())
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.stop()

    async def stop(self) -> float:
        """Gives how long it took."""
        assert self.task is not None
        loop = asyncio.get_running_loop()
        began = loop.time()
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        return loop.time() - began

    def event(self, code: EventCode = EventCode.STALL) -> None:
        self.driver.pending.append(DriverEvent(code, EventPhase.RAISED))


@asynccontextmanager
async def running(tmp_path: Path, **options: Any) -> AsyncIterator[tuple[Running, Portal]]:
    async with portal(tmp_path / "gate", AUTHORITY) as served:
        state = enrolled(tmp_path / "state", AUTHORITY, served.gate.port)
        async with Running(state, **options) as agent:
            await served.until(lambda: served.of(Hello))
            yield agent, served


async def until(condition: Callable[[], bool], timeout_s: float = 10) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def part(install: Callable[[Agent], None]) -> dict[str, Any]:
    return {"parts": [install]}


# --- what the portal sees ------------------------------------------------------------------------


async def test_an_injector_comes_online_and_says_who_it_is(tmp_path: Path) -> None:
    async with running(tmp_path) as (running_agent, served):
        (hello,) = served.of(Hello)
        assert hello.product_line == "ct-dual"
        assert hello.services == {"ssh": "os", "web": "service"}
        assert hello.knows == messages.known_down()
        assert hello.state == "idle"
        await served.until(lambda: len(served.of(Heartbeat)) > 2)
        await served.until(lambda: served.of(Telemetry))
        (telemetry,) = served.of(Telemetry)  # the first does not wait for company
        values = telemetry.samples[0].values
        assert values[Metric("fan_rpm")] == 900
        assert 29 < values[Metric("cert_days_left")] <= 30
        (audited,) = served.of(Audit)
        assert audited.entries[0].action == "agent:start"
        assert running_agent.agent.online


async def test_a_change_of_clinical_state_is_told_at_once(tmp_path: Path) -> None:
    states: list[ClinicalState] = []
    patient = replace(FAST, heartbeat=3600.0)  # it is not the next of them that tells
    async with running(
        tmp_path, timing=patient, **part(lambda agent: agent.on_clinical_state(states.append))
    ) as (running_agent, served):
        running_agent.driver.state = ClinicalState.ARMED
        running_agent.agent.look()
        await served.until(lambda: any(h.state == "armed" for h in served.of(Heartbeat)))
        assert states == [ClinicalState.ARMED]


async def test_driver_events_are_durable(tmp_path: Path) -> None:
    async with running(tmp_path) as (running_agent, served):
        running_agent.event()
        (event,) = await served.until(lambda: served.of(Event))
        assert (event.code, event.priority, event.phase) == (201, "H", "raised")


async def test_live_samples_come_at_the_rate_asked_for(tmp_path: Path) -> None:
    async with running(tmp_path) as (running_agent, served):
        running_agent.driver.metrics[Metric("heater_duty")] = float("nan")
        served.send(Rate(hz=5, for_s=1))
        await served.until(lambda: len(served.of(Live)) >= 2)
        await asyncio.sleep(1.5)
        live = served.of(Live)
        assert len(live) <= 6  # what a busy machine missed is not made up for
        assert Metric("heater_duty") not in live[0].values  # no number: left out


# --- what goes wrong -----------------------------------------------------------------------------


async def test_events_survive_a_portal_that_is_away_and_arrive_once_in_order(
    tmp_path: Path,
) -> None:
    """THREATS, faults: link away, 0 lost, order kept."""
    async with portal(tmp_path / "gate", AUTHORITY) as served:
        port = served.gate.port
        state = enrolled(tmp_path / "state", AUTHORITY, port)
        async with Running(state) as agent:
            agent.event()
            await served.until(lambda: served.of(Event))
            await served.gate.stop()
            for code in (102, 103, 104):
                agent.event(EventCode(code))
                agent.agent.look()
            await asyncio.sleep(0.2)
            async with portal(tmp_path / "gate", AUTHORITY, port=port, into=served):
                await served.until(lambda: len(served.of(Event)) == 4)
        assert [event.code for event in served.of(Event)] == [201, 102, 103, 104]
        numbers = [message.seq for message in served.decided]
        assert numbers == sorted(numbers) == list(range(1, len(numbers) + 1))


async def test_500_events_a_second_arrive_once_each(tmp_path: Path) -> None:
    """Issue: every event the simulators made is in the database once."""
    async with running(tmp_path) as (running_agent, served):
        agent = running_agent.agent
        for burst in range(50):
            for _each in range(10):
                running_agent.event()
            agent.look()
            if burst == 25:
                served.gate.kick(DEVICE)
            await asyncio.sleep(0.02)
        await served.until(lambda: len(served.of(Event)) == 500, 20)
        await served.until(lambda: agent.outbox.depth == 0)
        keys = [(message.outbox, message.seq) for message in served.decided]
        assert len(keys) == len(set(keys))


async def test_a_slow_database_makes_no_reconnect(tmp_path: Path) -> None:
    """DESIGN: a late PUBACK pauses sending; with the window full the pings still pass."""
    async with running(tmp_path) as (running_agent, served):
        served.deciding = False
        for _each in range(200):
            running_agent.event()
        running_agent.agent.look()
        await asyncio.sleep(FAST.silence * 3)
        assert served.connects == 1
        served.back()
        await served.until(lambda: len(served.of(Event)) == 200, 20)
        assert served.connects == 1


async def test_poison_is_told_and_what_is_behind_it_flows(tmp_path: Path) -> None:
    """A message that must be refused never blocks the outbox behind it."""
    async with running(tmp_path) as (running_agent, served):

        def refuse(message: messages.Up) -> RefusalReason | None:
            bad = isinstance(message, Event) and message.code == 301
            return RefusalReason.UNKNOWN_REFERENCE if bad else None

        served.poison = refuse
        for code in (201, 301, 202):
            running_agent.event(EventCode(code))
        running_agent.agent.look()
        await served.until(lambda: len(served.of(Event)) == 2)
        recorded = await served.until(
            lambda: [
                e for a in served.of(Audit) for e in a.entries if e.action == "message:refused"
            ]
        )
        assert (recorded[0].reason, recorded[0].outcome) == ("unknown_reference", "failed")


async def test_a_refused_audit_message_makes_no_endless_talk(tmp_path: Path) -> None:
    async with running(tmp_path) as (running_agent, served):
        served.poison = lambda message: (
            RefusalReason.CHAIN_BROKEN if isinstance(message, Audit) else None
        )
        running_agent.agent.record("test:entry", actor="agent", outcome=audit.Outcome.ALLOWED)
        await asyncio.sleep(0.5)
        assert running_agent.agent.outbox.high < 12


async def test_a_restored_portal_gets_everything_again(tmp_path: Path) -> None:
    async with running(tmp_path) as (running_agent, served):
        for _each in range(5):
            running_agent.event()
        running_agent.agent.look()
        await served.until(lambda: len(served.of(Event)) == 5)
        await served.until(lambda: running_agent.agent.outbox.depth == 0)
        lost = [message for message in served.decided if message.seq > 2]
        served.decided = [message for message in served.decided if message.seq <= 2]
        for message in lost:
            del served.seen[(message.outbox, message.seq)]
        served.gate.kick(DEVICE)
        await served.until(lambda: len(served.of(Event)) + len(served.of(Audit)) >= 6)
        assert [message.seq for message in served.decided][: len(lost) + 2] == list(
            range(1, len(lost) + 3)
        )


async def test_a_restored_injector_starts_a_new_outbox_and_says_so(tmp_path: Path) -> None:
    async with running(tmp_path) as (running_agent, served):
        name = running_agent.agent.outbox.id
        served.high = 10_000
        served.gate.kick(DEVICE)
        await served.until(lambda: any(h.outbox != name for h in served.of(Hello)))
        recorded = await served.until(
            lambda: [e for a in served.of(Audit) for e in a.entries if e.action == "outbox:rename"]
        )
        assert recorded


async def test_a_black_hole_is_noticed_and_the_agent_comes_back(tmp_path: Path) -> None:
    """R-CON-4, with the times of FAST: a relay that stops carrying in both directions."""
    async with portal(tmp_path / "gate", AUTHORITY) as served, Relay(served.gate.port) as relay:
        state = enrolled(tmp_path / "state", AUTHORITY, relay.port)
        async with Running(state) as agent:
            await served.until(lambda: served.of(Hello))
            relay.black_hole()
            await served.until(lambda: not agent.agent.online)
            relay.restore()
            await served.until(lambda: agent.agent.online)


async def test_a_gate_that_answers_no_ping_is_left_though_other_things_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R-CON-4: a late PUBACK pauses, an overdue PINGRESP ends the connection."""
    async with running(tmp_path) as (running_agent, served):
        await served.until(lambda: running_agent.agent.outbox.depth == 0)
        monkeypatch.setattr(packets, "PINGRESP_PACKET", b"")
        began = asyncio.get_running_loop().time()
        while served.connects == 1:
            served.send(Cancel(execution=EXECUTION))
            await asyncio.sleep(0.05)
            assert asyncio.get_running_loop().time() - began < FAST.ping + FAST.silence + 10
        monkeypatch.undo()
        await served.until(lambda: running_agent.agent.online)


# --- what comes down -----------------------------------------------------------------------------


async def test_parts_answer_to_messages_in_order(tmp_path: Path) -> None:
    got: list[str] = []

    def install(agent: Agent) -> None:
        async def cancel(message: Cancel, payload: bytes) -> None:
            await asyncio.sleep(0.05 if not got else 0)
            got.append(message.execution)
            await agent.accept("cancel", message.execution, payload)
            agent.emit(Execution, execution=message.execution, state="cancelled")

        agent.handle(Cancel, cancel)

    async with running(tmp_path, **part(install)) as (_running, served):
        sent = [f"{n:032x}" for n in range(5)]
        for execution in sent:
            served.send(Cancel(execution=execution))
        await served.until(lambda: len(served.of(Execution)) == 5)
        assert got == sent
        accepted = served.of(Accepted)
        assert [a.ref for a in accepted] == sent
        assert accepted[0].of == "cancel"


async def test_poison_from_the_portal_is_recorded_and_ignored(tmp_path: Path) -> None:
    """Unknown types, broken JSON, a message nobody handles, a handler that fails: the next runs."""
    handled: list[str] = []

    def install(agent: Agent) -> None:
        def cancel(message: Cancel, _payload: bytes) -> None:
            handled.append(message.execution)
            if len(handled) == 1:
                raise KeyError("a bug")
            if len(handled) == 2:
                raise PeerError("not for us")

        agent.handle(Cancel, cancel)

    async with running(tmp_path, **part(install)) as (running_agent, served):
        gate = served.gate
        gate.publish(topics.down(DEVICE, "cancel", 1), b"{ nonsense")
        gate.publish(topics.down(DEVICE, "novelty", 7), b"{}")
        served.send(messages.End(session=EXECUTION, reason=messages.EndReason.UNREACHABLE))
        for _each in range(3):
            served.send(Cancel(execution=EXECUTION))

        def ignored() -> list[str | None]:
            entries = [e for a in served.of(Audit) for e in a.entries]
            return [e.reason for e in entries if e.action == "message:ignore"]

        await served.until(lambda: len(handled) == 3)
        await served.until(lambda: len(ignored()) == 5)
        assert ignored() == ["malformed", "unknown_type", "no_handler", "internal", "peer"]
        # However many come, the disk does not fill.
        for _each in range(300):
            gate.publish(topics.down(DEVICE, "novelty", 7), b"{}")
        running_agent.event()
        await served.until(lambda: served.of(Event))
        assert len(ignored()) <= 10


async def test_the_servers_heads_are_checked(tmp_path: Path) -> None:
    """R-ACC-10: each side stores the other's signed heads."""
    async with running(tmp_path) as (_running, served):
        for hash in ("aa" * 32, "bb" * 32):
            head = chain.sign_head(SERVER_AUDIT_KEY, chain="north", index=3, hash=hash, at=1)
            served.send(ServerHead(head=head))
        recorded = await served.until(
            lambda: [
                e for a in served.of(Audit) for e in a.entries if e.action == "audit:server_head"
            ]
        )
        assert recorded[0].reason == "fork"


async def test_frames_go_to_and_come_from_the_parts(tmp_path: Path) -> None:
    came: list[bytes] = []
    frames = [b"one", b"two"]

    def install(agent: Agent) -> None:
        agent.on_frame(came.append)
        agent.stream_source(lambda turn, most: frames.pop(0) if frames else None)

    async with running(tmp_path, **part(install)) as (running_agent, served):
        await served.until(lambda: served.frames == [b"one", b"two"])
        served.gate.publish(topics.down_stream(DEVICE), b"down")
        await served.until(lambda: came)
        frames.append(b"three")
        running_agent.agent.frames_ready()
        await served.until(lambda: len(served.frames) == 3)


async def test_a_frame_that_makes_its_part_fail_harms_no_other(tmp_path: Path) -> None:
    came: list[bytes] = []

    def sink(frame: bytes) -> None:
        if frame == b"bad":
            raise ValueError("no frame of mine")
        came.append(frame)

    async with running(tmp_path, **part(lambda agent: agent.on_frame(sink))) as (_agent, served):
        for frame in (b"one", b"bad", b"two"):
            served.gate.publish(topics.down_stream(DEVICE), frame)
        await served.until(lambda: came == [b"one", b"two"])
        assert served.connects == 1


# --- life ----------------------------------------------------------------------------------------


async def test_an_injector_enrols_by_itself_on_first_contact(tmp_path: Path) -> None:
    """R-CON-2: nobody at the hospital types anything."""
    async with portal(tmp_path / "gate", AUTHORITY) as served:
        server = EnrolmentServer(AUTHORITY, access_port=served.gate.port)
        async with server.serving():
            provision(tmp_path / "state", AUTHORITY, port=server.port)
            async with Running(tmp_path / "state"):
                (audited, _start) = await served.until(lambda: served.of(Audit))
                assert audited.entries[0].action == "agent:enrol"


async def test_before_enrolment_it_keeps_trying_and_says_why(
    tmp_path: Path, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.enrolment.AGAIN_S", (0.05, 0.1))
    provision(tmp_path / "state", AUTHORITY, port=free_port)
    async with Running(tmp_path / "state") as agent:
        await until(lambda: "was refused" in agent.agent.status()["trouble"])
        assert agent.agent.status()["connection"] == "not enrolled"
        async with EnrolmentServer(AUTHORITY, port=free_port).serving():
            await until(lambda: "device" in agent.agent.status())
        assert agent.agent.device == DEVICE


async def test_stop_is_clean_and_within_two_seconds(tmp_path: Path) -> None:
    stopped: list[str] = []

    def install(agent: Agent) -> None:
        async def stop() -> None:
            stopped.append("part")
            await agent.record("test:stop", actor="agent", outcome=audit.Outcome.ALLOWED)

        async def broken() -> None:
            raise KeyError("a bug")

        agent.on_stop(stop)
        agent.on_stop(broken)

    async with running(tmp_path, **part(install)) as (running_agent, served):
        running_agent.event()
        running_agent.agent.look()
        assert await running_agent.stop() < 2
        assert stopped == ["part"]
        await served.until(lambda: served.disconnects)
        assert not (running_agent.state / "control.sock").exists()
    verdict = audit.verify(tmp_path / "state/agent.db")
    assert verdict.good
    assert verdict.entries == 2
    with sqlite3.connect(tmp_path / "state/agent.db") as db:
        (events,) = db.execute("SELECT COUNT(*) FROM outbox WHERE type = 'event'").fetchone()
    db.close()
    assert events == 1


async def test_status_and_simulate_over_the_control_socket(tmp_path: Path) -> None:
    async with running(
        tmp_path, **part(lambda agent: agent.status_from(lambda: {"sessions": 0}))
    ) as (_running, served):

        async def call(op: str, **fields: Any) -> dict[str, Any]:
            return await asyncio.to_thread(control.call, tmp_path / "state", op, **fields)

        shown = await call("status")
        assert shown["device"] == DEVICE
        assert shown["serial"] == "SN-0001"
        assert shown["online"] is True
        assert shown["access_server"] == f"localhost:{served.gate.port}"
        assert shown["state"] == "idle"
        assert shown["trouble"] == ""
        assert shown["outbox_depth"] >= 0
        assert shown["certificate_days_left"] > 29
        assert shown["sessions"] == 0
        assert (await call("simulate", fault="armed")) == {"state": "armed"}
        await served.until(lambda: any(h.state == "armed" for h in served.of(Heartbeat)))
        with pytest.raises(control.ControlError, match="no such part"):
            await call("simulate", fault="heater")


async def test_the_clocks_floor_survives_a_restart(tmp_path: Path) -> None:
    future = 4_000_000_000_000
    async with running(tmp_path) as (running_agent, _served):
        running_agent.agent.clock.raise_floor(future)
    async with running(tmp_path) as (running_agent, _served):
        assert running_agent.agent.clock.wall_ms() == future


async def test_a_task_that_fails_fails_the_agent_and_leaves_nothing_open(tmp_path: Path) -> None:
    greeted = asyncio.Event()

    def install(agent: Agent) -> None:
        async def broken() -> None:
            await greeted.wait()
            raise RuntimeError("a bug")

        agent.spawn(broken())

    async with running(tmp_path, **part(install)) as (running_agent, served):
        assert running_agent.task is not None
        greeted.set()
        with pytest.raises(ExceptionGroup):
            await running_agent.task
        await served.until(lambda: served.disconnects)
        async with Running(running_agent.state):  # the lock is free again
            await served.until(lambda: len(served.of(Hello)) == 2)


async def test_a_state_directory_serves_one_agent(tmp_path: Path) -> None:
    async with running(tmp_path) as (running_agent, _served):
        second = Running(running_agent.state)
        with pytest.raises(StateError, match="Another agent"):
            await second.agent.run()


async def test_a_driver_that_cannot_start_is_a_clear_error(tmp_path: Path) -> None:
    state = enrolled(tmp_path / "state", AUTHORITY, 1)
    (state / "driver.json").write_text(json.dumps({"driver": "toaster"}))
    with pytest.raises(StateError, match=r"driver\.json"):
        Agent(state)


async def test_parts_find_each_other() -> None:
    class Thing:
        pass

    agent = Agent.__new__(Agent)
    agent._provided = {}
    thing = Thing()
    agent.provide(thing)
    assert agent.get(Thing) is thing
    with pytest.raises(KeyError):
        agent.get(identity.Identity)
