"""Bulk on a slow or spoilt link never keeps a heartbeat or a keystroke waiting (R-CON-4, R-MNT-6).

A whole agent, the real gate, and a relay between them whose buffer holds half a minute of bulk.
Lateness is measured at the gate, by the boot clock that both share.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from agent import core, drivers, posix
from agent.runtime import Agent
from agent.sampling import BATCH
from agent.wire import topics
from agent.wire.messages import Cancel, Heartbeat, Sample, Telemetry
from agent.wire.pacer import Turn
from broker.lanes import Delivery
from tests.agent.support import DEVICE, Portal, StubDriver, enrolled, portal
from tests.relay import CLEAR, Relay, Weather
from tests.tls import Authority

AUTHORITY = Authority()
KBIT_64 = 8_000.0  # bytes a second
LATE_S = 2.0


@dataclass
class Watcher(Portal):
    """Notes how late each heartbeat and each interactive frame came."""

    late_s: list[float] = field(default_factory=list)
    echo_s: list[float] = field(default_factory=list)
    bulk_bytes: int = 0

    def up(self, delivery: Delivery) -> bool:
        before = len(self.now)
        taken = super().up(delivery)
        for message in self.now[before:]:
            if isinstance(message, Heartbeat):
                self.late_s.append(posix.boot_seconds() - message.uptime_ms / 1000)
        return taken

    def stream(self, device: str, frame: bytes) -> None:
        if frame.startswith(b"key "):
            self.echo_s.append(posix.boot_seconds() - float(frame[4:40]))
        else:
            self.bulk_bytes += len(frame)


_now = posix.boot_seconds


class Source:
    """Bulk without end, and a keystroke now and then."""

    def __init__(self) -> None:
        self.keys: list[bytes] = []
        self.bulk = False

    def __call__(self, turn: Turn, most: int) -> bytes | None:
        if turn >= Turn.INTERACTIVE and self.keys:
            return self.keys.pop(0)
        return bytes(most + 56) if self.bulk and turn is Turn.BULK else None


@asynccontextmanager
async def running(
    folder: Path, weather: Weather
) -> AsyncIterator[tuple[Agent, Watcher, Source, Relay]]:
    source = Source()
    async with (
        portal(folder / "gate", AUTHORITY, into=Watcher()) as served,
        Relay(served.gate.port) as relay,
    ):
        assert isinstance(served, Watcher)
        relay.weather = weather
        agent = Agent(
            enrolled(folder / "state", AUTHORITY, relay.port),
            driver=StubDriver(),
            parts=[lambda agent: agent.stream_source(source)],
            timing=core.Timing(heartbeat=0.5, ping=1.0),
        )
        task = asyncio.create_task(agent.run())
        await served.until(lambda: served.late_s, 30)
        await asyncio.sleep(1)
        try:
            yield agent, served, source, relay
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def saturate(agent: Agent, served: Watcher, source: Source, for_s: float) -> None:
    served.late_s.clear()
    source.bulk = True
    agent.frames_ready()
    for _ in range(int(for_s / 0.25)):
        source.keys.append(b"key %-36.6f" % posix.boot_seconds())
        agent.frames_ready()
        await asyncio.sleep(0.25)
    source.bulk = False


async def backlog(agent: Agent, count: int) -> None:
    """What an injector says in so many minutes, in its outbox."""
    sample = Sample(
        at=agent.clock.wall_ms(),
        uptime_ms=agent.clock.uptime_ms(),
        state=agent.driver.state,
        values=drivers.load(agent.state_dir).values(),
    )
    for _ in range(count - 1):
        agent.emit(Telemetry, samples=[sample] * BATCH)
    await agent.emit(Telemetry, samples=[sample] * BATCH)


async def away(agent: Agent, served: Watcher, relay: Relay, minutes: int) -> None:
    """The link goes, the outbox fills, the link is back and the outbox begins to drain."""
    relay.refuse()
    await served.until(lambda: not agent.online)
    before = len(served.of(Telemetry))
    await backlog(agent, minutes)
    served.late_s.clear()
    relay.restore()
    await served.until(lambda: len(served.of(Telemetry)) > before, 60)


async def test_a_heartbeat_is_never_two_seconds_late_at_64_kbit(tmp_path: Path) -> None:
    weather = Weather(rate=KBIT_64, delay_s=0.02)
    async with running(tmp_path, weather) as (agent, served, source, _relay):
        await saturate(agent, served, source, 8)
        assert len(served.late_s) > 10
        assert max(served.late_s) < LATE_S
        assert max(served.echo_s) < LATE_S
        assert len(served.echo_s) > 20
        assert served.bulk_bytes > 0.5 * 8 * KBIT_64  # and the link is used
        assert served.connects == 1


async def test_a_backlog_keeps_no_heartbeat_waiting_at_64_kbit(tmp_path: Path) -> None:
    """A day without a link leaves what this line carries in 20 minutes; here, four hours of it."""
    weather = Weather(rate=KBIT_64, delay_s=0.02)
    async with running(tmp_path, weather) as (agent, served, source, relay):
        await away(agent, served, relay, 250)
        connects, carried = served.connects, relay.passed[0]
        await saturate(agent, served, source, 10)
        assert agent.outbox.depth > 100  # it still drains
        assert len(served.of(Telemetry)) > 5
        assert len(served.late_s) > 15
        assert max(served.late_s) < LATE_S
        assert max(served.echo_s) < LATE_S
        assert relay.passed[0] - carried > 0.7 * 10 * KBIT_64  # and the link is used
        assert served.connects == connects
        relay.weather = CLEAR
        await served.until(lambda: agent.outbox.depth == 0, 60)
    numbers = [message.seq for message in served.decided]
    assert numbers == list(range(1, len(numbers) + 1))


async def test_a_request_does_not_wait_behind_bulk_on_its_way_down(tmp_path: Path) -> None:
    """R-CON-4: the gate gives the line no more than it soon takes. The last mile is TCP's own."""
    weather = Weather(rate=KBIT_64, delay_s=0.02, buffer=2048)
    waited: list[float] = []
    async with running(tmp_path, weather) as (agent, served, _source, relay):
        agent.handle(
            Cancel,
            lambda message, _payload: waited.append(_now() - int(message.execution, 16) / 1e6),
        )
        before = relay.passed[1]
        end = asyncio.get_running_loop().time() + 8
        asked = 0.0
        while (now := asyncio.get_running_loop().time()) < end:
            if not served.gate.congested(DEVICE):
                served.gate.publish(topics.down_stream(DEVICE), bytes(2048))
            if now - asked > 0.5:
                asked = now
                served.send(Cancel(execution=f"{int(_now() * 1e6):032x}"))
            await asyncio.sleep(0.002)
        await served.until(lambda: len(waited) > 12)
        assert max(waited) < 3
        assert served.connects == 1
        assert agent.status()["rtt_ms"] < 3000
        assert relay.passed[1] - before > 0.5 * 8 * KBIT_64


async def test_a_link_that_loses_and_is_far_is_usable(tmp_path: Path) -> None:
    """10 % loss, 300 ms round trip."""
    weather = Weather(delay_s=0.15, loss=0.1)
    async with running(tmp_path, weather) as (agent, served, source, _relay):
        await saturate(agent, served, source, 8)
        assert len(served.late_s) > 8
        late, echo = sorted(served.late_s), sorted(served.echo_s)
        assert late[int(len(late) * 0.9)] < 5
        assert echo[len(echo) // 2] < 1
        assert served.bulk_bytes > 0.3 * 8 * weather.goodput
        assert served.connects == 1
