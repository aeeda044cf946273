"""The demo beside the server: seed, start the children, wait until all are online, say so."""

import asyncio
import ipaddress
import json
import os
import socket
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from django.conf import settings

from fleet.core import clock
from fleet.core.addresses import Address, parse_address
from fleet.core.errors import Conflict, Invalid
from fleet.core.files import hold, write_private
from fleet.core.threads import in_thread
from fleet.demo import injectors as injectors_module
from fleet.demo import local, people, trouble, words
from fleet.demo.injectors import Injector
from fleet.demo.people import Person
from fleet.demo.plan import Plan, plan
from fleet.demo.processes import Program, keep
from fleet.demo.reading import damaged, read_object
from fleet.enrolment import ca
from fleet.inventory import catalogue
from fleet.inventory.models import Device
from fleet.mqtt.options import ServeOptions
from fleet.mqtt.server import Companion, Running

FILE = "demo.json"
LOOK_S = 0.1
COMPLAIN_S = 20.0


def prepare(options: ServeOptions) -> Companion:
    """Everything that comes before the server. Raises PortalError with the remedy."""
    data = Path(settings.PATENCY_DATA)
    try:
        lock = hold(data / "demo.lock")  # before the ports, which another demo of this data holds
        if lock is None:
            raise Conflict(words.another(data))
        _check_address(options.http, "PATENCY_HTTP")
        _check_address(options.mqtt, "PATENCY_MQTT")
        _check_address(parse_address(settings.PATENCY_ACCESS), "PATENCY_ACCESS")
        _say(words.starting(data))
        demo = _seed(plan(), data, f"http://localhost:{options.http.port}")
    except OSError as error:
        raise Conflict(words.unusable(error.filename or data, f"{error.strerror}")) from error

    async def beside(running: Running) -> None:
        try:
            # An agent that knocks before the gate listens waits before it knocks again.
            while running.gate is None or running.gate.port == 0:  # noqa: ASYNC110 - the gate tells nobody
                await asyncio.sleep(0.02)
            await demo.run()
        finally:
            os.close(lock)

    return beside


def _check_address(address: Address, variable: str) -> None:
    """The demo is for this machine alone, and says early that a port is taken."""
    try:
        loopback = ipaddress.ip_address(address.host).is_loopback
    except ValueError:
        loopback = address.host == "localhost"
    if not loopback:
        raise Invalid(
            f"{variable} is {address}: the demo's passwords are public, so it listens on this "
            f"machine only. Choose an address such as 127.0.0.1:{address.port}."
        )
    try:
        socket.create_server((address.host, address.port)).close()
    except OSError as error:
        raise Conflict(
            f"{address} cannot be listened on ({error.strerror}). Stop what uses it, "
            f"or choose another: {variable}=127.0.0.1:{address.port + 100} make demo"
        ) from error


def _seed(what: Plan, data: Path, url: str) -> "Demo":
    """Idempotent: what is there stays."""
    earlier = _earlier(data / FILE)
    if not ca.exists():
        ca.init(now=clock.now(), offline=data / "trust")
    catalogue.load()
    sites = people.organisations(what)
    try:
        tokens = {user["username"]: user["token"] for user in earlier.get("users", [])}
        with_pin = {device["state_dir"] for device in earlier.get("devices", [])}
    except (KeyError, TypeError) as error:
        raise damaged(data / FILE) from error
    everybody = people.people(what, tokens)
    public = people.profiles(everybody, data, url)
    trust_key = people.trust_key(data)
    people.roster(everybody, public, what, data)
    people.entitlements(what, data)
    made = injectors_module.prepare(what, sites, data, trust_key)
    return Demo(what, data, url, everybody, made, with_pin)


def _earlier(path: Path) -> dict[str, Any]:
    """What the last start wrote, or nothing."""
    try:
        return read_object(path)
    except FileNotFoundError:
        return {}


class Demo:
    """One start of the demo. `with_pin`: state directories whose PIN an earlier start has set."""

    def __init__(
        self,
        what: Plan,
        data: Path,
        url: str,
        everybody: list[Person],
        injectors: list[Injector],
        with_pin: set[str],
    ) -> None:
        self._plan = what
        self._data = data
        self._url = url
        self._people = everybody
        self._injectors = injectors
        self._with_pin = with_pin

    async def run(self) -> None:
        """Until cancelled; then the children are ended."""
        async with asyncio.TaskGroup() as group:
            for program in self.programs():
                group.create_task(keep(program), name=program.name)
            await self._wait_until_online()
            async with asyncio.TaskGroup() as pins:
                for injector in self._injectors:
                    if str(injector.state_dir) not in self._with_pin:
                        pins.create_task(self._set_pin(injector.state_dir))
            await in_thread(self._write)
            _say(
                words.welcome(
                    url=self._url,
                    plan=self._plan,
                    everybody=self._people,
                    injectors=self._injectors,
                    data=self._data,
                )
            )
            _say("ready")

    def programs(self) -> list[Program]:
        """An agent for each product line, one for all others, the injectors' consoles, and the
        access origin."""
        agent, logs = str(people.command("patency-agent")), self._data / "logs"
        groups: dict[str, list[str]] = defaultdict(list)
        for injector in self._injectors:
            groups[f"agent-{injector.plan.process}"] += ["--state", str(injector.state_dir)]
        consoles = [argument for states in groups.values() for argument in states]
        return [
            *(
                Program(name, [agent, "run", *states], logs / f"{name}.log")
                for name, states in groups.items()
            ),
            Program("console", [agent, "console", *consoles], logs / "console.log"),
            Program("access-origin", self._access_origin(), logs / "access-origin.log"),
        ]

    def _access_origin(self) -> list[str]:
        """A program of its own that knows nothing of the portal but where it is."""
        root = self._data / self._plan.profile / "device-root.pem"
        return [
            str(people.command("patency")), "access-origin", "serve",
            "--listen", settings.PATENCY_ACCESS, "--portal", self._url, "--device-root", str(root),
        ]  # fmt: skip

    async def _wait_until_online(self) -> None:
        complain_at, told = time.monotonic() + COMPLAIN_S, ""
        while missing := await in_thread(self._missing):
            if time.monotonic() > complain_at:
                complain_at += COMPLAIN_S
                said = words.waiting(await self._why(missing), self._data)
                if said != told:
                    _say(said)
                told = said
            await asyncio.sleep(LOOK_S)

    async def _why(self, missing: list[str]) -> dict[str, str]:
        """Why each of these is not online."""
        return {
            injector.plan.serial: await trouble.why(
                injector.state_dir, self._data / "logs" / f"agent-{injector.plan.process}.log"
            )
            for injector in self._injectors
            if injector.plan.serial in missing
        }

    def _missing(self) -> list[str]:
        wanted = [injector.plan.serial for injector in self._injectors]
        online = Device.objects.filter(serial__in=wanted, online=True).exclude(clinical_state="")
        there = set(online.values_list("serial", flat=True))
        return [serial for serial in wanted if serial not in there]

    async def _set_pin(self, state: Path) -> None:
        answer = await local.ask(state, "pin-set", approver=1, pin=self._plan.pin)
        if not answer.get("ok"):
            raise Conflict(f"{state}: the PIN was not set: {answer.get('detail')}")

    def _write(self) -> None:
        """demo.json, the contract for scripts: docs/cli.md."""
        wanted = [injector.plan.serial for injector in self._injectors]
        rows = Device.objects.select_related("site", "organisation").filter(serial__in=wanted)
        by_serial = {row.serial: row for row in rows}
        contents = {
            "url": self._url,
            "users": [self._user(person) for person in self._people],
            "devices": [
                self._device(injector, by_serial[injector.plan.serial])
                for injector in self._injectors
            ],
            "cli": str(people.command("patency")),
            "profile": str(self._data / self._plan.profile),
            "access_origin": settings.PATENCY_ACCESS_ORIGIN,
        }
        text = json.dumps(contents, indent=1, ensure_ascii=False)
        write_private(self._data / FILE, text.encode() + b"\n")

    def _user(self, person: Person) -> dict[str, Any]:
        return {
            "username": person.user.username,
            "password": self._plan.password,
            "role": person.user.role,
            "organisation": person.user.organisation.name,
            "token": person.token,
            "totp": person.plan.totp,
        }

    def _device(self, injector: Injector, row: Device) -> dict[str, Any]:
        return {
            "serial": row.serial,
            "device": row.pk,
            "product_line": row.product_line_id,
            "organisation": row.organisation.name,
            "site": row.site.name,
            "state_dir": str(injector.state_dir),
            "pin": self._plan.pin,
            "services": injector.ports,
        }


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
