"""The watchdog is fed only while everything moves, and a restart follows when it does not
(R-MNT-6)."""

import asyncio
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent import posix, vitals, watchdog
from agent.supervisor import supervise
from agent.watchdog import Leaking, Manager, Pulse
from agent.wire.messages import Audit, Event, Hello
from tests.agent.support import enrolled, portal
from tests.agent.test_supervisor import Scripted, stop
from tests.manager import Service, setting
from tests.tls import Authority

AUTHORITY = Authority()


class Listener:
    """The socket that a service manager reads."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.socket.setblocking(False)

    async def until(self, condition: Callable[[list[str]], object]) -> list[str]:
        """Read until what was read meets the condition."""
        found: list[str] = []
        async with asyncio.timeout(10):
            while not condition(found):
                await asyncio.sleep(0.01)
                found += self.read()
        return found

    def read(self) -> list[str]:
        """The datagrams that have come."""
        found = []
        while True:
            try:
                found.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                return found


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    made = Listener(str(tmp_path / "notify"))
    yield made
    made.socket.close()


# --- pure ----------------------------------------------------------------------------------------


def test_a_part_that_does_not_move_within_its_time_is_named() -> None:
    pulse = Pulse({"loop": 5, "disk": 20})
    assert pulse.still(1000) == []  # nothing has begun
    pulse.beat("loop", 10)
    pulse.beat("disk", 10)
    assert pulse.still(15) == []
    assert pulse.still(15.1) == ["loop"]
    assert pulse.still(31) == ["loop", "disk"]
    pulse.beat("loop", 31)
    assert pulse.still(31) == ["disk"]


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, Manager("", watchdog.CHECK_S)),
        ({"NOTIFY_SOCKET": "/n"}, Manager("/n", watchdog.CHECK_S)),
        ({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "8000000"}, Manager("/n", 2.0)),
        (
            {"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "8000000", "WATCHDOG_PID": "1"},
            Manager("/n", watchdog.CHECK_S),
        ),
        ({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "soon"}, Manager("/n", watchdog.CHECK_S)),
    ],
)
def test_the_manager_is_what_the_environment_says(
    environ: dict[str, str], expected: Manager
) -> None:
    assert Manager.of(environ) == expected


def test_memory_has_a_bound_by_the_number_of_agents_or_as_set() -> None:
    mb = 1024 * 1024
    assert watchdog.memory_bound(1, {}) == watchdog.MEMORY_MB * mb
    assert watchdog.memory_bound(3, {}) > watchdog.memory_bound(1, {})
    assert watchdog.memory_bound(1, {"PATENCY_MEMORY_MB": "20"}) == 20 * mb
    watchdog.check_memory(posix.resident_bytes() + 100 * mb)
    with pytest.raises(Leaking, match="starts anew"):
        watchdog.check_memory(posix.resident_bytes() // 2)


def test_the_unit_kills_later_than_the_agent_ends_itself_and_feeds_in_time() -> None:
    assert int(setting("MemoryHigh").removesuffix("M")) > watchdog.MEMORY_MB
    assert int(setting("MemoryMax").removesuffix("M")) > int(setting("MemoryHigh")[:-1])
    worst = max(vitals.LIMITS["ticks"], vitals.LIMITS["store"]) + sum(
        float(setting(name)) for name in ("WatchdogSec", "TimeoutAbortSec", "RestartSec")
    )
    assert worst < 30  # and the start of the agent


# --- a real socket -------------------------------------------------------------------------------


def test_the_manager_is_told_at_a_path_and_at_an_abstract_address(listener: Listener) -> None:
    Manager(listener.address).tell("READY=1", "STATUS=déjà")
    assert listener.read() == ["READY=1\nSTATUS=déjà"]
    abstract = Listener(f"@patency-test-{os.getpid()}")
    Manager(abstract.address).tell("WATCHDOG=1")
    assert abstract.read() == ["WATCHDOG=1"]
    abstract.socket.close()
    Manager(listener.address + "-gone").tell("WATCHDOG=1")  # no reason to fail
    Manager().tell("WATCHDOG=1")


async def test_a_supervisor_feeds_the_watchdog_only_while_its_agents_move(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATENCY_MEMORY_MB", "16384")  # the process is that of all tests
    script = Scripted()
    manager = Manager(listener.address, 0.02)
    task = asyncio.create_task(supervise([Path("a"), Path("b")], script, manager=manager))
    told = await listener.until(lambda told: len(told) > 4)
    assert told[0].startswith("READY=1\nWATCHDOG=1\nSTATUS=")
    assert "2 of 2 online, 6 messages wait" in told[-1]
    assert sum("READY=1" in each for each in told) == 1
    script.still = ["store"]
    await listener.until(lambda told: "a store" in str(told))
    told = await listener.until(lambda told: len(told) > 4)
    assert not any("WATCHDOG" in each for each in told)
    assert "a store" in told[-1]
    script.still = []
    await listener.until(lambda told: "WATCHDOG=1" in str(told))
    await stop(task)
    assert listener.read()[-1] == "STOPPING=1"


async def test_a_process_that_leaks_ends_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Scripted()
    monkeypatch.setenv("PATENCY_MEMORY_MB", "1")
    with pytest.raises(Leaking):
        async with asyncio.timeout(5):
            await supervise([Path("a")], script)
    assert script.stopped == script.started  # in good order


# --- a whole agent -------------------------------------------------------------------------------


async def test_a_hung_loop_is_restarted_and_the_portal_told(tmp_path: Path) -> None:
    """Killed by the watchdog, it comes back, says so (event 602) and has lost nothing."""
    watchdog_s = 2.0
    async with portal(tmp_path / "gate", AUTHORITY) as served:
        state = enrolled(tmp_path / "state", AUTHORITY, served.gate.port)
        service = Service(
            [sys.executable, "-m", "tests.sick", state], tmp_path, watchdog_s=watchdog_s
        )
        with service.running():
            await served.until(lambda: served.of(Hello), 20)
            await served.until(lambda: service.ready)
            assert "1" in service.status
            assert service.process is not None
            service.process.send_signal(signal.SIGUSR1)
            began = time.monotonic()
            await served.until(lambda: len(served.of(Hello)) == 2, 30)
            assert service.ended[0][1:] == (-signal.SIGABRT, "watchdog")
            assert time.monotonic() - began < 30
            events = await served.until(lambda: [e for e in served.of(Event) if e.code == 602])
            reasons = [e.reason for a in served.of(Audit) for e in a.entries]
            assert (events[0].phase, reasons) == ("raised", [None, "after_fault"])
        numbers = [message.seq for message in served.decided]
        assert numbers == list(range(1, len(numbers) + 1))


async def test_a_stop_and_a_start_are_no_fault(tmp_path: Path) -> None:
    async with portal(tmp_path / "gate", AUTHORITY) as served:
        state = enrolled(tmp_path / "state", AUTHORITY, served.gate.port)
        for count in (1, 2):
            service = Service([sys.executable, "-m", "tests.sick", state], tmp_path / str(count))
            service.folder.mkdir()
            with service.running():
                await served.until(lambda n=count: len(served.of(Hello)) == n, 20)
                await served.until(lambda n=count: len(served.of(Audit)) == n)
        assert [e.reason for a in served.of(Audit) for e in a.entries] == [None, None]


# --- what is felt --------------------------------------------------------------------------------


async def test_vitals_name_a_thread_that_hangs_and_an_outbox_that_waits_for_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.agent.test_runtime import running, until

    monkeypatch.setattr(vitals, "LIMITS", {"ticks": 5.0, "store": 0.4, "outbox": 0.4})
    monkeypatch.setattr(vitals, "EVERY_S", 0.05)
    async with running(tmp_path) as (running_agent, served):
        agent = running_agent.agent
        await served.until(lambda: agent.outbox.depth == 0)
        await asyncio.sleep(0.6)
        await until(lambda: agent.still() == [])
        served.deciding = False  # the portal is slow: nobody's fault here
        running_agent.event()
        agent.look()
        await asyncio.sleep(0.6)
        await until(lambda: agent.still() == [])
        served.back()

        held = threading.Event()
        agent.store.write(lambda connection: held.wait(10))
        await until(lambda: "store" in agent.still())
        held.set()
        await until(lambda: agent.still() == [])

        flow: Any = agent._connection._core._flow  # type: ignore[union-attr]
        await served.until(lambda: agent.outbox.depth == 0)
        flow.loading = True  # a read that is never answered
        running_agent.event()
        agent.look()
        await until(lambda: agent.still() == ["outbox"])
