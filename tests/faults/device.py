"""What happens to a device itself: its disk full, its agent hung, a message that cannot be used."""

import asyncio
import contextlib
import itertools
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from agent import audit, control
from agent.wire.catalogue import Level, RequestReason
from agent.wire.messages import AccessRequest, Audit, Event, Hello, SessionUpdate
from tests.agent.support import DEVICE, Portal, enrolled, portal
from tests.demo import ROOT, until
from tests.faults import EXPERIMENTS, Experiment, experiment
from tests.faults._fleet import ended, is_online
from tests.manager import Service
from tests.tls import Authority

MB = 1024 * 1024


def proved_by(name: str, *tests: str, fault: str, must: str) -> None:
    """An experiment that is a test elsewhere, which has its own simulator."""

    def run(folder: Path) -> str:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
        began = time.monotonic()
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stdout[-2000:]
        found = re.search(r"(\d+) passed", done.stdout)
        assert found is not None
        named = ", ".join(f"`{test}`" for test in tests)
        return f"{found[1]} tests passed in {time.monotonic() - began:.0f} s: {named}"

    EXPERIMENTS.append(Experiment(name, fault, must, run))


proved_by(
    "job-repeated",
    "tests/agent/jobs/test_runner.py::test_a_job_delivered_a_thousand_times_runs_once",
    fault="a job delivered 1,000 times",
    must="one effect",
)
proved_by(
    "poison",
    "tests/fleet/mqtt/test_ingest.py::test_poison_is_decided_and_the_outbox_behind_it_flows",
    "tests/agent/test_runtime.py::test_poison_is_told_and_what_is_behind_it_flows",
    fault="a message the portal must refuse (poison)",
    must="decided, recorded without its payload, told; the outbox behind it flows",
)
proved_by(
    "inspected",
    "tests/agent/network/test_journey.py",
    "tests/agent/network/test_agent.py::test_tls_inspection_is_named_and_nothing_is_said_through_it",
    fault="TLS-inspecting proxy, DNS failure",
    must="a precise message in plain words; trust is never lowered",
)
proved_by(
    "access-server",
    "tests/test_failover.py",
    fault="one access server dies",
    must="its devices are back on the next ≤ 15 s, 0 lost either way, open shells resume",
)


# --- hung, or leaking ----------------------------------------------------------------------------


@experiment(
    "hung-or-leaking",
    fault="agent's loop hung, or leaking",
    must="watchdog restarts it ≤ 30 s",
)
def hung_or_leaking(folder: Path) -> str:
    return asyncio.run(_hung_or_leaking(folder))


ILLS = {
    signal.SIGUSR1: "loop hung",
    signal.SIGUSR2: "thread of the store hung",
    signal.SIGHUP: "leaking 100 MB a second",
}


async def _hung_or_leaking(folder: Path) -> str:
    """All three at once, each an agent under a manager with the figures of the unit."""
    authority = Authority()
    async with (
        portal(folder / "gate", authority) as served,
        asyncio.timeout(120),
        asyncio.TaskGroup() as group,
    ):
        tasks = {
            ill: group.create_task(_ill(folder / f"i{ill.value}", authority, served, ill))
            for ill in ILLS
        }
    numbers = {ill: task.result() for ill, task in tasks.items()}
    assert max(numbers.values()) <= 30
    told = ", ".join(f"{ILLS[ill]}: {back:.1f} s" for ill, back in numbers.items())
    return f"from the fault to online again, under the unit's own figures: {told}"


async def _ill(folder: Path, authority: Authority, served: Portal, ill: signal.Signals) -> float:
    device = f"device-{ill.value:04}"
    folder.mkdir()  # noqa: ASYNC240
    state = enrolled(folder / "state", authority, served.gate.port, device=device)
    service = Service([sys.executable, "-m", "tests.sick", state], folder)
    with service.running():
        await asyncio.to_thread(until, lambda: is_online(state), 30)
        await asyncio.sleep(2)
        assert service.process is not None
        sick = service.process
        sick.send_signal(ill)
        began = time.monotonic()
        await asyncio.to_thread(until, lambda: sick.poll() is not None, 60)
        await asyncio.to_thread(until, lambda: is_online(state), 60)
        back = time.monotonic() - began
    why = "by itself" if ill is signal.SIGHUP else "watchdog"
    assert service.ended[0][2] == why
    return back


# --- the disk is full ----------------------------------------------------------------------------


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """A file system of this size, for as long as the block runs; needs root."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "patency-test", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    assert done.returncode == 0, f"no file system can be mounted, run as root: {done.stderr}"
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True, timeout=10)


def fill(path: Path, leave: int) -> None:
    """A file that leaves so much of its disk free."""
    found = os.statvfs(path.parent)
    with path.open("ab") as file:
        os.posix_fallocate(
            file.fileno(), path.stat().st_size, found.f_bavail * found.f_frsize - leave
        )


# Samples come often, so that there is telemetry to give up within seconds.
AGENT = "from agent import sampling; sampling.EVERY_S = 0.5; from agent.main import main; main()"


class _Injector:
    """The agent's process, spoken to as the person beside it does."""

    def __init__(self, state: Path, log: Path) -> None:
        self.state = state
        command = [sys.executable, "-c", AGENT, "run", "--state", str(state)]
        with log.open("wb") as errors:
            self.process = subprocess.Popen(command, stderr=errors)

    async def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        return await asyncio.to_thread(control.call, self.state, op, **fields)

    async def status(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first status that meets the condition."""
        while not condition(shown := await self.ask("status")):  # noqa: ASYNC110
            await asyncio.sleep(0.2)
        return shown

    async def works(self) -> None:
        """Its states go on as ever, and are shown."""
        assert (await self.ask("simulate", fault="armed"))["state"] == "armed"
        assert (await self.ask("status"))["state"] == "armed"
        assert (await self.ask("simulate", fault="idle"))["state"] == "idle"

    async def happen(self) -> None:
        """Injections that stall and are put right, until one made its event."""
        for _ in range(3):
            await self.ask("simulate", fault="stall")
            for _each in range(20):
                await asyncio.sleep(0.1)
                if (await self.ask("status"))["state"] == "fault":
                    assert (await self.ask("simulate", fault="idle"))["state"] == "idle"
                    return
            await self.ask("simulate", fault="idle")
        raise AssertionError("nothing stalls")

    async def sheds(self, kind: str) -> dict[str, int]:
        """Have things happen until messages of this kind are given up; gives all counts."""
        while True:
            await self.happen()
            shed: dict[str, int] = (await self.ask("status"))["outbox_shed"]
            if shed.get(kind):
                return shed


_sessions = (f"{number:032x}" for number in itertools.count(1))


async def _refused(served: Portal) -> str:
    """Ask for access; gives why it was refused."""
    session = next(_sessions)
    request = AccessRequest(
        at=0,
        session=session,
        device=DEVICE,
        specialist="alice",
        name="Alice",
        organisation="Vendor",
        level=Level.OS,
        services=["ssh"],
        reason=RequestReason.REPAIR,
        ticket=None,
        life_s=600,
    )
    served.send(request)

    def answers() -> list[SessionUpdate]:
        found = [each for each in served.of(SessionUpdate) if each.session == session]
        return [each for each in found if each.state == "refused"]

    [update] = await served.until(answers, 20)
    return str(update.reason)


def _actions(served: Portal) -> list[str]:
    return [entry.action for each in served.of(Audit) for entry in each.entries]


@experiment(
    "disk-full",
    fault="device disk full",
    must="sheds by priority, audit last; the injector unaffected",
)
def disk_full(folder: Path) -> str:
    with small_disk(folder / "disk", 40 * MB) as disk:
        return asyncio.run(_disk_full(folder, disk))


async def _disk_full(folder: Path, disk: Path) -> str:
    authority, filler = Authority(), disk / "filler"
    async with portal(folder / "gate", authority) as served, asyncio.timeout(150):
        state = enrolled(disk / "state", authority, served.gate.port)
        injector = _Injector(state, folder / "log")
        with ended(injector.process):
            await served.until(lambda: served.of(Hello), 30)
            assert await _refused(served) == "not_rostered"
            shed = await _fill_step_by_step(injector, served, filler)
            filler.unlink()
            began = time.monotonic()
            await injector.status(lambda shown: shown["disk_ok"] and shown["online"])
            recovered = time.monotonic() - began
            assert await _refused_again(served) == "not_rostered"
            before = len(served.of(Event))
            await injector.happen()
            await served.until(lambda: len(served.of(Event)) > before, 20)
            await injector.status(lambda shown: shown["outbox_depth"] == 0)
            injector.process.terminate()
            assert await asyncio.to_thread(injector.process.wait, 10) == 0
        verdict = audit.verify(state / "agent.db")
    assert verdict.good
    numbers = [message.seq for message in served.decided]
    assert numbers == list(range(1, len(numbers) + 1))
    given_up = ", ".join(f"{count} {kind}" for kind, count in shed.items())
    return (
        f"a file system of 40 MB, filled in steps: given up telemetry, then events, no audit entry"
        f" ({given_up}); access refused (`audit_unwritable`); the injector's states and faults went"
        f" on; the same process was well {recovered:.1f} s after there was room; {len(numbers)}"
        f" messages without a gap, the audit chain of {verdict.entries} entries whole"
    )


async def _fill_step_by_step(injector: _Injector, served: Portal, filler: Path) -> dict[str, int]:
    """To the last byte; gives what was given up before that."""
    fill(filler, MB)  # the reserve is given up: telemetry stops, the rest goes on
    await injector.status(lambda shown: not shown["disk_ok"])
    assert (why := await _refused(served)) == "audit_unwritable", why
    await served.until(lambda: "outbox:shed" in _actions(served))
    await injector.happen()
    await served.until(lambda: any(e.code == 201 for e in served.of(Event)))
    shed = await injector.sheds("telemetry")
    assert set(shed) == {"telemetry"}

    fill(filler, 3 * MB)  # of the reserve's room: events stop as well, the audit chain goes on
    shed = await injector.sheds("event")
    assert set(shed) == {"telemetry", "event"}
    audited = len(served.of(Audit))
    assert (why := await _refused(served)) == "audit_unwritable", why
    await served.until(lambda: len(served.of(Audit)) > audited)

    fill(filler, 0)  # nothing at all
    await injector.works()
    await injector.happen()
    await asyncio.sleep(2)
    await injector.works()
    assert injector.process.poll() is None
    return shed


async def _refused_again(served: Portal) -> str:
    """Once the audit chain is written again; the desk tries every five seconds."""
    while (reason := await _refused(served)) == "audit_unwritable":  # noqa: ASYNC110
        await asyncio.sleep(0.5)
    return reason
