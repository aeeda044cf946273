"""The processes of the sealed path for the bench of streams, as they run in life.

`… portal DATA`            the whole portal, with one device and an active session
`… agent STATE SERVICE`    a whole agent, whose session is active from the start
`… client FOUND`           `patency forward`: prints the local port

The second authentication is left out: both ends are given their keys. Everything behind it is the
product's own: carrier, websocket, hub, gate, link, streams, loopback socket. On the line
`commands N` of its input the portal sends so many `cancel` messages whose id is the time; the agent
prints how long each took on SIGUSR1.
"""

import asyncio
import json
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from agent.wire.seal import Role, Seal

SERVICE = "ssh"
KEYS = {Role.CLIENT: b"c" * 32, Role.DEVICE: b"d" * 32}
COMMAND_EVERY_S = 0.02


def seal(session: str, role: Role) -> Seal:
    return Seal(session=bytes.fromhex(session), role=role, send=KEYS[role], receive=KEYS[role.peer])


# --- the portal ----------------------------------------------------------------------------------


def _session(token_owner: str, device_id: str) -> str:
    """An active session; nobody at the injector was asked."""
    from datetime import timedelta

    from fleet.access import services
    from fleet.access.models import Session
    from fleet.accounts.models import User
    from fleet.core import clock
    from fleet.inventory.models import Device

    now = clock.now()
    device = Device.objects.get(pk=device_id)
    session = services.request(
        actor=User.objects.get(username=token_owner), device=device,
        level="os", services=[SERVICE], reason="repair", ticket="T-1",
        life=timedelta(hours=8), now=now,
    )  # fmt: skip
    ends = now + timedelta(hours=8)
    Session.objects.filter(pk=session.pk).update(
        state="active", active_at=now, ends_at=ends, expires_at=ends, accepted_at=now
    )
    return str(session.pk)


async def _portal(found: dict[str, Any]) -> None:
    from agent.wire.messages import Cancel
    from fleet.core import ports
    from fleet.mqtt.options import Address, ServeOptions
    from fleet.mqtt.server import Running, serve

    def command() -> None:
        ports._sender(found["device"], Cancel(execution=f"{time.perf_counter_ns():032x}"))

    async def companion(running: Running) -> None:
        while not running.web.started:  # noqa: ASYNC110  (uvicorn has no event for it)
            await asyncio.sleep(0.01)
        web = running.web.servers[0].sockets[0].getsockname()[1]
        print(json.dumps({**found, "web": web, "gate": running.gate.port}), flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            for _ in range(int(line.split()[1])):
                await asyncio.to_thread(command)  # as a service's commit does it
                await asyncio.sleep(COMMAND_EVERY_S)
            print("sent", flush=True)

    await serve(
        ServeOptions(http=Address("127.0.0.1", 0), mqtt=Address("127.0.0.1", 0)),
        companion=companion,
    )


def portal(data: Path) -> None:
    os.environ["DJANGO_SETTINGS_MODULE"] = "fleet.settings"
    os.environ["PATENCY_DATA"] = str(data)
    import django
    import uvloop

    django.setup()
    from fleet.enrolment import ca
    from tests.bench._portal import seed

    seeded = seed(data, 1)
    [device] = seeded["devices"]
    seeded["device_root"] = ca.pem("device-root")
    found = {**seeded, **device, "session": _session("bench", device["device"])}
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_portal(found))


# --- the agent -----------------------------------------------------------------------------------


def agent(state: Path, service: int) -> None:
    from agent import main, streams
    from agent.drivers import Service
    from agent.runtime import Agent
    from agent.wire.catalogue import Level
    from agent.wire.messages import Cancel

    logging.disable(logging.WARNING)  # the portal does not know this device's audit chain
    found = json.loads((state / "found.json").read_text())
    took: list[float] = []

    def install(agent: Agent) -> None:
        agent.handle(
            Cancel,
            lambda message, _payload: took.append(
                (time.perf_counter_ns() - int(message.execution, 16)) / 1e9
            ),
        )
        served = agent.get(streams.Streams)
        served._services = lambda: {SERVICE: Service(Level.OS, service)}
        device = seal(found["session"], Role.DEVICE)
        served.activate(found["session"], device, (SERVICE,), Level.OS, paused=False)

    def report() -> None:
        print(json.dumps(took), flush=True)
        took.clear()

    async def run() -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, report)
        await Agent(state, parts=[streams.install, install]).run()

    with asyncio.Runner(loop_factory=main.loop_factory()) as runner:
        runner.run(run())


# --- the client ----------------------------------------------------------------------------------


def client(found: dict[str, Any]) -> None:
    from fleet.client.carrier import Carrier
    from fleet.client.forward import Forward
    from fleet.client.portal import Portal
    from fleet.client.profile import Profile
    from fleet.client.tunnel import carry, run

    epochs = iter(range(1, 65536))
    carrier = Carrier(seal(found["session"], Role.CLIENT), lambda: next(epochs))
    folder = Path(found["folder"])
    mine = Profile(
        folder=folder, url=f"http://127.0.0.1:{found['web']}", token=found["token"],
        specialist="bench",
    )  # fmt: skip
    with Portal(mine) as portal:

        def carrying(ready: Any) -> Any:
            return carry(portal, found["session"], carrier, print, ready)

        forward = Forward(carrier, SERVICE, bulk=False, say=lambda text: print(text, flush=True))
        run(forward.run(carrying, 0, lambda port: print(port, flush=True)))


if __name__ == "__main__":
    if sys.argv[1] == "portal":
        portal(Path(sys.argv[2]))
    elif sys.argv[1] == "agent":
        agent(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        client(json.loads(sys.argv[2]))
