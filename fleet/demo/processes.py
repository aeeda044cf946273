"""The demo's processes: agents beside the server, watched, and gone when it goes.

One agent process for each product line, with one injector each; one more for the other nine; and
one for the consoles and status pages of all twelve, because an agent itself never listens.
"""

import asyncio
import contextlib
import ctypes
import signal
import sys
from asyncio.subprocess import Process
from pathlib import Path

from channels.db import database_sync_to_async
from django.utils.translation import gettext as _

from fleet.core.errors import Conflict
from fleet.demo import seed
from fleet.demo.seed import PIN, Seeded
from fleet.inventory.models import Device

ONLINE_S = 150.0
STOP_S = 2.0
RESTART_S = 1.0
_PR_SET_PDEATHSIG = 1


async def run(seeded: Seeded) -> None:
    """Run the agents until cancelled. Raises Conflict when they do not come online."""
    logs = seeded.data / "logs"
    logs.mkdir(mode=0o700, exist_ok=True)
    alone, shared = _shares(seeded)
    jobs = [("run", [state], f"agent-{state.name}.log") for state in alone]
    jobs += [("run", shared, "agents.log"), ("console", seeded.states, "console.log")]
    async with asyncio.TaskGroup() as group:
        for verb, states, log in jobs:
            group.create_task(_keep(verb, states, logs / log), name=f"{verb} {log}")
        await _ready(seeded, logs)


def _shares(seeded: Seeded) -> tuple[list[Path], list[Path]]:
    """The first injector of each product line, and all others."""
    first: dict[str, Path] = {}
    rest = []
    for device in seeded.devices:
        state = Path(device["state_dir"])
        if device["product_line"] in first:
            rest.append(state)
        else:
            first[device["product_line"]] = state
    return list(first.values()), rest


async def _keep(verb: str, states: list[Path], log: Path) -> None:
    """Run a process and start it again when it ends: R-MNT-6, as systemd would."""
    while True:
        process = await _start(verb, states, log)
        try:
            await process.wait()
        finally:
            await _stop(process)
        await asyncio.sleep(RESTART_S)


async def _start(verb: str, states: list[Path], log: Path) -> Process:
    arguments = [argument for state in states for argument in ("--state", str(state))]
    with log.open("ab") as file:
        return await asyncio.create_subprocess_exec(
            str(seed.command("patency-agent")),
            verb,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,  # Ctrl-C is for the server, which stops them in order
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )


def _die_with_parent() -> None:
    """In the child: end when the server is killed, so that nothing is left behind."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


async def _stop(process: Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(STOP_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


async def _ready(seeded: Seeded, logs: Path) -> None:
    """Wait for all to be online, set their PINs, and say so."""
    serials = [device["serial"] for device in seeded.devices]
    try:
        async with asyncio.timeout(ONLINE_S):
            while len(devices := await _online(serials)) < len(serials):
                await asyncio.sleep(0.2)
            await _set_pins(seeded)
    except TimeoutError:
        missing = ", ".join(sorted(set(serials) - set(devices)))
        raise Conflict(
            _("These injectors did not come online: %(serials)s. Their logs are in %(logs)s.")
            % {"serials": missing, "logs": logs}
        ) from None
    path = await asyncio.to_thread(seed.write, seeded, devices)
    say(seeded, path)


@database_sync_to_async
def _online(serials: list[str]) -> dict[str, str]:
    rows = Device.objects.filter(serial__in=serials, online=True).exclude(clinical_state="")
    return dict(rows.values_list("serial", "pk"))


async def _set_pins(seeded: Seeded) -> None:
    """Once per injector, at its own command line: a PIN never passes through the portal."""
    gate = asyncio.Semaphore(3)

    async def one(state: Path) -> None:
        done = state / "pin.demo"
        async with gate:
            if done.exists():
                return
            process = await asyncio.create_subprocess_exec(
                str(seed.command("patency-agent")),
                *("pin", "--state", str(state), "--approver", "1", "--pin", PIN),
                stdout=asyncio.subprocess.DEVNULL,
                stdin=asyncio.subprocess.DEVNULL,
            )
            with contextlib.suppress(ProcessLookupError):
                if await process.wait() == 0:
                    done.touch(mode=0o600)

    async with asyncio.TaskGroup() as group:
        for state in seeded.states:
            group.create_task(one(state))


def say(seeded: Seeded, path: Path) -> None:
    """What a newcomer needs to go on, then `ready` on a line of its own."""
    specialist = seeded.users[0]
    hospital = next(user for user in seeded.users if user["role"] == "hospital")
    device = next(d for d in seeded.devices if d["product_line"] == "ct-dual")
    serial, state = device["serial"], device["state_dir"]
    patency, agent = seed.command("patency"), seed.command("patency-agent")
    url = f"http://localhost:{_port()}"
    print(  # noqa: T201
        f"""
Open     {url}
Sign in  {specialist["username"]} / {specialist["password"]}    (a support specialist)
         {hospital["username"]} / {hospital["password"]}    (a hospital's IT)
         more in {path}

Try
 1. Watch an injector struggle: open {serial} in the browser, then
      {agent} simulate --state {state} --fault occlusion
 2. Get in. Ask, approve at the injector's panel (PIN {PIN}), look around:
      export PATENCY_PROFILE={seeded.profile}
      {patency} request {serial} --level os --service console --reason inspection --wait &
      {agent} panel --state {state}
      {patency} shell {serial}
 3. Run into an armed injector: nobody gets in while a patient may be connected.
      {agent} simulate --state {state} --fault armed

Ctrl-C stops everything; the next start goes on from here.

ready""",
        flush=True,
    )


def _port() -> str:
    from django.conf import settings

    return str(settings.PATENCY_HTTP).rpartition(":")[2]
