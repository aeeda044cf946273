"""What the network does: away for a day, lossy, silent. One agent or twelve at a real gate."""

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent import runtime
from agent.clock import Clock
from agent.runtime import Agent
from agent.wire import topics
from agent.wire.catalogue import EVENT_PRIORITY, EventCode, EventPhase
from agent.wire.messages import Event, Hello, Telemetry
from agent.wire.pacer import Turn
from tests.agent import test_slow_link as slow
from tests.agent.support import DEVICE, Portal, StubDriver, enrolled, portal
from tests.faults import experiment
from tests.relay import Relay, Weather
from tests.scale import scaled
from tests.tls import Authority

STEP_S = 10  # of the boot clock, between ticks of the day that is accelerated
TICK_S = 0.005


@asynccontextmanager
async def _running(*agents: Agent, apart_s: float = 0.0) -> AsyncIterator[None]:
    tasks = []
    try:
        for agent in agents:
            tasks.append(asyncio.create_task(agent.run()))
            await asyncio.sleep(apart_s)
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _run(work: Coroutine[Any, Any, str]) -> str:
    async def bounded() -> str:
        async with asyncio.timeout(3000):
            return await work

    return asyncio.run(bounded())


def percentile(values: list[float], share: float) -> float:
    """The smallest value that this share of them does not exceed."""
    return sorted(values)[max(0, round(len(values) * share + 0.5) - 1)]


# --- away for a day ------------------------------------------------------------------------------


class _Day:
    """A part that lets ten seconds of the boot clock pass with each tick, once it is `begun`, and
    has an injection stall and be put right every ten minutes."""

    def __init__(self, hours: int) -> None:
        self.begun = False
        self.over = asyncio.Event()
        self._left = hours * 3600 // STEP_S
        self._ahead = 0.0
        self._faults = itertools.cycle(("stall", "idle"))

    def seconds(self) -> float:
        return time.monotonic() + self._ahead

    def install(self, agent: Agent) -> None:
        def tick(_now: float) -> None:
            if not self.begun or self.over.is_set():
                return
            self._ahead += STEP_S
            self._left -= 1
            if self._left % (600 // STEP_S) == 0:
                agent.driver.simulate(next(self._faults))
                agent.look()
            if self._left <= 0:
                self.over.set()

        agent.on_tick(tick)


@experiment("link-away", fault="link away 24 h (accelerated)", must="0 lost, order kept per device")
def link_away(folder: Path) -> str:
    return _run(_link_away(folder))


async def _link_away(folder: Path) -> str:
    hours, authority = scaled(24, at_least=2), Authority()
    day = _Day(hours)
    async with portal(folder / "gate", authority) as served, Relay(served.gate.port) as relay:
        state = enrolled(folder / "state", authority, relay.port)
        driver = {"driver": "simulator", "services": {}, "pace": 1, "seed": 1}
        (state / "driver.json").write_text(json.dumps(driver))
        agent = Agent(state, clock=Clock(boot_seconds=day.seconds), parts=[day.install])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(runtime, "TICK_S", TICK_S)
            async with _running(agent):
                await served.until(lambda: served.of(Hello))
                relay.refuse()
                await served.until(lambda: not agent.online)
                before, began = agent.outbox.high, time.monotonic()
                day.begun = True
                await day.over.wait()
                took = time.monotonic() - began
                made, boxes = agent.outbox.high, len(served.decided)
                assert made - before > hours * 50, "an injector says something nearly every minute"
                relay.restore()
                back = time.monotonic()
                await served.until(lambda: agent.outbox.depth == 0 and agent.online, 300)
                drained = time.monotonic() - back
    numbers = [message.seq for message in served.decided]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) >= made
    stamps = [message.at for message in served.decided]
    assert stamps == sorted(stamps)
    kinds = {kind.TYPE: len(served.of(kind)) for kind in (Event, Telemetry)}
    return (
        f"{hours} h in {took:.0f} s: {made - boxes:,} messages waited, all came once and"
        f" in order, {drained:.1f} s after the link was back ({kinds['event']:,} events,"
        f" {kinds['telemetry']:,} batches of telemetry in all)"
    )


# --- loss and delay ------------------------------------------------------------------------------


@experiment(
    "loss-and-delay",
    fault="10 % loss, 300 ms round trip (through a relay of ours: this kernel has no netem)",
    must="telemetry p99 ≤ 5 s; a shell is usable",
)
def loss_and_delay(folder: Path) -> str:
    return _run(_loss_and_delay(folder))


async def _loss_and_delay(folder: Path) -> str:
    count, authority = scaled(1000, at_least=60), Authority()
    echoes: list[bytes] = []

    def part(agent: Agent) -> None:
        agent.stream_source(
            lambda turn, most: echoes.pop(0) if echoes and turn >= Turn.INTERACTIVE else None
        )

        def echo(frame: bytes) -> None:
            echoes.append(frame)
            agent.frames_ready()

        agent.on_frame(echo)

    async with portal(folder / "gate", authority) as served, Relay(served.gate.port) as relay:
        relay.weather = Weather(delay_s=0.15, loss=0.1)
        agent = Agent(
            enrolled(folder / "state", authority, relay.port), driver=StubDriver(), parts=[part]
        )
        async with _running(agent):
            await served.until(lambda: served.of(Hello), 60)
            async with asyncio.TaskGroup() as group:
                told = group.create_task(_latencies(agent, served, count))
                typed = group.create_task(_keystrokes(served, count))
            connections = relay.opened
    late, keys = told.result(), typed.result()
    p99, key_p50, key_p99 = percentile(late, 0.99), percentile(keys, 0.5), percentile(keys, 0.99)
    assert p99 <= 5
    # Somebody types on: the echo of most keys comes with the round trip, that of a lost one late.
    assert key_p50 <= 1
    assert key_p99 <= 5
    assert connections == 1
    return (
        f"{count} durable messages, injector to decision: p50 {percentile(late, 0.5):.2f} s, p99"
        f" {p99:.2f} s; {count} keystrokes through the session's lane and back: p50"
        f" {key_p50 * 1000:.0f} ms, p99 {key_p99:.2f} s; one connection throughout"
    )


async def _latencies(agent: Agent, served: Portal, count: int) -> list[float]:
    """Seconds from the moment that a message is made to its decision."""
    sent: dict[int, float] = {}
    came: dict[int, float] = {}
    decide = served._durable

    def durable(delivery: Any, message: Any) -> None:
        came.setdefault(message.seq, time.monotonic())
        decide(delivery, message)

    served._durable = durable  # type: ignore[method-assign]
    code = EventCode.VOLUME_LOW
    for _ in range(count):
        now = time.monotonic()
        made = await agent.emit(
            Event, code=code, priority=EVENT_PRIORITY[code], phase=EventPhase.RAISED
        )
        sent[made.seq] = now
        await asyncio.sleep(0.2)
    await served.until(lambda: set(sent) <= set(came), 60)
    return [came[seq] - began for seq, began in sent.items()]


async def _keystrokes(served: Portal, count: int) -> list[float]:
    found = []
    for number in range(count):
        frame = b"%032d" % number
        began = time.monotonic()
        served.gate.publish(topics.down_stream(DEVICE), frame)
        await served.until(lambda f=frame: f in served.frames, 60)
        found.append(time.monotonic() - began)
        served.frames.clear()
    return found


# --- slow ----------------------------------------------------------------------------------------


@experiment(
    "slow-link",
    fault="64 kbit/s with a bulk transfer running",
    must="no heartbeat more than 2 s late",
)
def slow_link(folder: Path) -> str:
    return _run(_slow_link(folder))


async def _slow_link(folder: Path) -> str:
    for_s = max(20, scaled(300))
    weather = Weather(rate=slow.KBIT_64, delay_s=0.02)
    async with slow.running(folder, weather) as (agent, served, source, relay):
        before = relay.passed[0]
        await slow.saturate(agent, served, source, for_s)
        carried = relay.passed[0] - before
        late, echo, connects = served.late_s, served.echo_s, served.connects
    assert max(late) <= slow.LATE_S
    assert max(echo) <= slow.LATE_S
    assert carried > 0.5 * for_s * slow.KBIT_64, "the link was not busy"
    assert connects == 1
    return (
        f"{for_s} s of bulk that never ends, the network buffering {weather.buffer // 1024} KB:"
        f" {len(late)} heartbeats, p50 {percentile(late, 0.5):.2f} s, latest {max(late):.2f} s;"
        f" {len(echo)} keystrokes up, latest {max(echo):.2f} s; the link carried"
        f" {carried / for_s * 8 / 1000:.0f} kbit/s"
    )


@experiment(
    "slow-backlog",
    fault="64 kbit/s with a bulk transfer running, and all that a day without a link has left",
    must="no heartbeat more than 2 s late",
)
def slow_backlog(folder: Path) -> str:
    return _run(_slow_backlog(folder))


async def _slow_backlog(folder: Path) -> str:
    for_s, minutes = max(20, scaled(300)), 24 * 60
    weather = Weather(rate=slow.KBIT_64, delay_s=0.02)
    async with slow.running(folder, weather) as (agent, served, source, relay):
        await slow.away(agent, served, relay, minutes)
        waiting, connects = agent.outbox.depth, served.connects
        before, bulk = relay.passed[0], served.bulk_bytes
        await slow.saturate(agent, served, source, for_s)
        carried, decided = relay.passed[0] - before, waiting - agent.outbox.depth
        bulk = served.bulk_bytes - bulk
        late, echo, connects = served.late_s, served.echo_s, served.connects - connects
        left = agent.outbox.depth
    assert max(late) <= slow.LATE_S
    assert max(echo) <= slow.LATE_S
    assert left, "nothing waited any more"
    assert carried > 0.5 * for_s * slow.KBIT_64, "the link was not busy"
    assert min(bulk, decided) > 0, "one stopped the other"
    assert not connects
    return (
        f"{minutes} batches of telemetry waited; {for_s} s of it: {len(late)} heartbeats, p50"
        f" {percentile(late, 0.5):.2f} s, latest {max(late):.2f} s; {len(echo)} keystrokes up,"
        f" latest {max(echo):.2f} s; {decided} batches were decided beside {bulk // 1024} KB of"
        f" bulk; the link carried {carried / for_s * 8 / 1000:.0f} kbit/s"
    )


# --- half-open -----------------------------------------------------------------------------------


@experiment(
    "half-open",
    fault="half-open link (black hole)",
    must="found ≤ 15 s, back ≤ 30 s once the network is",
)
def half_open(folder: Path) -> str:
    return _run(_half_open(folder))


async def _half_open(folder: Path) -> str:
    count, authority = max(8, scaled(60)), Authority()
    async with portal(folder / "gate", authority) as served, Relay(served.gate.port) as relay:
        names = [f"device-{number:04}" for number in range(count)]
        agents = []
        for name in names:
            state = enrolled(folder / name, authority, relay.port, device=name)
            agents.append(Agent(state, driver=StubDriver()))
        async with _running(*agents, apart_s=10 / count):  # so that their pings are spread
            await served.until(lambda: all(agent.online for agent in agents), 60)
            await asyncio.sleep(3)
            relay.black_hole()
            began = time.monotonic()
            found = await _when(agents, False, began)
            until_gate = await _gate_empty(served, began)
            await asyncio.sleep(max(0.0, began + 40 - time.monotonic()))  # back-offs grow
            relay.restore()
            back = await _when(agents, True, time.monotonic())
    assert max(found) <= 15
    assert max(back) <= 30
    return (
        f"{count} agents, silent for 40 s: found after {percentile(found, 0.5):.1f} s (median),"
        f" {max(found):.1f} s (longest); the gate had let go of all after {until_gate:.1f} s; back"
        f" {percentile(back, 0.5):.1f} s (median), {max(back):.1f} s (longest) after the network"
    )


async def _when(agents: list[Agent], online: bool, since: float) -> list[float]:
    """Seconds until each agent is online, or is not."""
    found: dict[int, float] = {}
    async with asyncio.timeout(60):
        while len(found) < len(agents):
            for number, agent in enumerate(agents):
                if agent.online is online:
                    found.setdefault(number, time.monotonic() - since)
            await asyncio.sleep(0.02)
    return list(found.values())


async def _gate_empty(served: Portal, since: float) -> float:
    opened = served.connects
    await served.until(lambda: len(served.disconnects) >= opened, 60)
    return time.monotonic() - since
