"""HAProxy and nginx before separate processes, with the configurations of deploy/ (ADR 0006).

Real programs choose by the ClientHello and pass TLS through: injectors get to the gate, browsers to
the web server, and both see who is really there. Requirements: R-CON-3, R-CON-5, R-CON-6.
"""

import asyncio
import contextlib
import ipaddress
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent.wire import carrier
from broker.errors import Reason
from broker.options import GateOptions
from broker.server import Gate
from fleet.accounts.models import User
from fleet.core import clock
from fleet.enrolment import ca, limits
from fleet.inventory.models import ProductLine
from fleet.inventory.models import Site as Place
from tests.broker import raw
from tests.broker.conftest import Recorder
from tests.broker.raw import Raw
from tests.broker.raw_websocket import RawWebSocket
from tests.broker.test_proxy import Peers
from tests.fleet.mqtt.test_server import in_thread, trusting
from tests.tls import Authority, Issued
from tests.whole import whole

pytestmark = [pytest.mark.system, pytest.mark.timeout(90)]

DEPLOY = Path(__file__).parents[2] / "deploy"
A = "device-aaaa"
TRUSTED = (ipaddress.ip_network("127.0.0.1"),)

# Starts the program: (gate's port, web's port) -> the port it listens on.
Front = Callable[[int, int], AbstractContextManager[int]]


@contextmanager
def program(command: list[str], port: int, **environment: str) -> Iterator[int]:
    """A program that listens on `port` until the end."""
    with subprocess.Popen(command, env=os.environ | environment) as process:
        try:
            deadline = time.monotonic() + 10
            while process.poll() is None and time.monotonic() < deadline:
                # From another address: a socket can connect to its own port while nobody listens.
                with (
                    contextlib.suppress(OSError),
                    socket.create_connection(("127.0.0.1", port), 1, ("127.0.0.2", 0)),
                ):
                    break
                time.sleep(0.05)
            assert process.poll() is None, "it ended by itself: is its configuration right?"
            yield port
        finally:
            process.terminate()
            process.wait(10)


@pytest.fixture(params=["haproxy", "nginx"])
def front(request: pytest.FixtureRequest, tmp_path: Path, free_port: int) -> Front:
    def haproxy(gate: int, web: int) -> AbstractContextManager[int]:
        return program(
            ["haproxy", "-db", "-q", "-f", str(DEPLOY / "haproxy.cfg")],
            free_port,
            PATENCY_BIND=f"127.0.0.1:{free_port}",
            PATENCY_GATE=f"127.0.0.1:{gate}",
            PATENCY_WEB=f"127.0.0.1:{web}",
        )

    def nginx(gate: int, web: int) -> AbstractContextManager[int]:
        text = (DEPLOY / "nginx.conf").read_text()
        before, between, after = text.split("server 127.0.0.1:8443")
        text = f"{before}server 127.0.0.1:{gate}{between}server 127.0.0.1:{web}{after}"
        text = text.replace("listen 443;", f"listen 127.0.0.1:{free_port};")
        text = text.replace("worker_processes auto;", "worker_processes 1;")
        config = tmp_path / "nginx.conf"
        config.write_text(text)
        extra = f"daemon off; pid {tmp_path}/nginx.pid;"
        return program(
            ["nginx", "-e", "stderr", "-p", str(tmp_path), "-c", str(config), "-g", extra],
            free_port,
        )

    return haproxy if request.param == "haproxy" else nginx


class Apart:
    """Separate processes in small: a gate that speaks to devices alone, and a web server."""

    def __init__(self, authority: Authority, folder: Path) -> None:
        files = authority.write(folder)
        options = GateOptions(
            host="127.0.0.1",
            port=0,
            certificate=files.server_chain,
            key=files.server_key,
            device_ca=files.device_ca,
            proxies=TRUSTED,
        )
        self.authority = authority
        self.identity: Issued = authority.device(A)
        self.files = files
        self.devices, self.browsers = Recorder(), Recorder()
        self.gate = Gate(options, self.devices)
        self.web = Gate(replace(options), self.browsers, Peers)

    def peer(self) -> str:
        info = next(entry[2] for entry in self.devices.log if entry[0] == "connected")
        return str(info.peer)


@asynccontextmanager
async def apart(folder: Path) -> AsyncIterator[Apart]:
    made = Apart(Authority(), folder)
    await made.gate.start()
    await made.web.start()
    try:
        yield made
    finally:
        await made.gate.stop()
        await made.web.stop()


@asynccontextmanager
async def before(front: Front, gate: int, web: int) -> AsyncIterator[int]:
    """The program, started and stopped beside the loop."""
    started = front(gate, web)
    port = await asyncio.to_thread(started.__enter__)
    try:
        yield port
    finally:
        await asyncio.to_thread(started.__exit__, None, None, None)


@pytest.mark.parametrize("kind", [Raw, RawWebSocket])
async def test_an_injector_gets_to_the_gate(front: Front, tmp_path: Path, kind: type[Raw]) -> None:
    async with apart(tmp_path) as here, before(front, here.gate.port, here.web.port) as port:
        async with await (await kind.open(port, here.authority, here.identity)).live(A) as device:
            local = device.writer.get_extra_info("sockname")
            assert here.peer() == f"{local[0]}:{local[1]}"  # the injector's own, not the proxy's
            device.send(raw.publish(f"pat/1/{A}/up/event/1", b"x" * 300_000, first=0x32, id=9))
            assert await device.packet() == (0x40, b"\0\x09")
            assert here.gate.publish(f"pat/1/{A}/dn/end/1", b"y" * 300_000)
            assert await device.message() == (f"pat/1/{A}/dn/end/1", b"y" * 300_000)
            assert here.gate.kick(A)
            assert await device.ended() == b""
        assert not here.browsers.log


@pytest.mark.parametrize("alpn", [("h2", "http/1.1"), ("http/1.1",), ()])
async def test_a_browser_gets_to_the_web_server(
    front: Front, tmp_path: Path, alpn: tuple[str, ...]
) -> None:
    async with apart(tmp_path) as here, before(front, here.gate.port, here.web.port) as port:
        async with await Raw.open(port, here.authority, None, alpn=alpn) as browser:
            local = browser.writer.get_extra_info("sockname")
            browser.send(b"GET / HTTP/1.1\r\n\r\n")
            assert (await browser.ended()).startswith(f"{local} ".encode())
        assert not here.devices.log


@pytest.mark.parametrize("alpn", [carrier.RAW, carrier.WEBSOCKET, ("http/1.1", "mqtt")])
async def test_mutual_authentication_is_kept(
    front: Front, tmp_path: Path, alpn: tuple[str, ...]
) -> None:
    """R-CON-6: the proxy vouches for nobody."""
    async with apart(tmp_path) as here, before(front, here.gate.port, here.web.port) as port:
        for identity in (None, Authority("foreign").device(A)):
            attacker = Raw.open(port, here.authority, identity, alpn=alpn)
            await Raw.unheard(attacker, raw.connect(A))
            await here.devices.told("refused", None, Reason.HANDSHAKE)
            here.devices.log.clear()
        assert not here.browsers.log


async def test_what_is_no_tls_gets_nowhere(front: Front, tmp_path: Path) -> None:
    async with apart(tmp_path) as here, before(front, here.gate.port, here.web.port) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(raw.connect(A))
        assert await Raw(reader, writer).ended(12) == b""
        writer.close()
        assert not here.devices.has("connected")


async def test_past_the_proxy_without_its_header(front: Front, tmp_path: Path) -> None:
    """From the proxy's own machine, but not through it."""
    async with apart(tmp_path) as here, before(front, here.gate.port, here.web.port):
        with pytest.raises(OSError):
            await Raw.open(here.gate.port, here.authority, here.identity)
        await here.devices.told("refused", None, Reason.PROXY)


@pytest.mark.django_db(transaction=True)
async def test_an_agent_and_a_browser_at_the_whole_portal(
    front: Front,
    tmp_path: Path,
    settings: Any,
    owner: User,
    colleague: User,
    product_line: ProductLine,
    site: Place,
) -> None:
    """An agent enrols and is asked for a session, a page comes, and the portal counts attempts to
    enrol against who made them, not against its proxy."""
    interval = sys.getswitchinterval()
    limits.enrolments.clear()
    settings.PATENCY_PROXIES = ["127.0.0.1"]
    await in_thread(lambda: ca.init(now=clock.now()))
    async with whole(
        tmp_path,
        settings,
        people=(owner, colleague),
        line=product_line,
        site=site,
        front=lambda port: before(front, port, port),
    ) as here:
        assert here.first.id in here.running.gate.connections
        session = await here.ask(here.first, level="service", services=["web"])
        await here.challenged(session)
        url = f"https://{settings.PATENCY_MQTT}"
        there = httpx.AsyncHTTPTransport(verify=trusting(), local_address="127.0.0.7")
        async with httpx.AsyncClient(transport=there) as browser:
            assert (await browser.get(f"{url}/", follow_redirects=True)).status_code == 200
            assert (await browser.post(f"{url}/enrol/v1", json={})).status_code == 400
        assert set(limits.enrolments._levels) == {"127.0.0.1", "127.0.0.7"}
    sys.setswitchinterval(interval)
