"""The server process, whole: enrolment over its listener, presence, ingest, push, a clean end."""

import asyncio
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from django.db import connection, transaction

from agent.wire import messages
from agent.wire.messages import Cancel, Welcome
from fleet.core import clock, ports
from fleet.enrolment import ca, limits, services
from fleet.inventory.models import Device, ProductLine, Site
from fleet.mqtt import ticks
from fleet.mqtt.options import Address, ServeOptions
from fleet.mqtt.server import Running, serve
from fleet.telemetry.models import Event
from tests.broker.raw import DISCONNECT, Raw, publish
from tests.fleet.enrolment.asking import Applicant
from tests.fleet.mqtt.wire import Sender

pytestmark = pytest.mark.django_db(transaction=True)

T = TypeVar("T")
OPTIONS = ServeOptions(http=Address("127.0.0.1", 0), mqtt=Address("127.0.0.1", 0))


@pytest.fixture(autouse=True)
def _process() -> Any:
    interval = sys.getswitchinterval()
    limits.enrolments.clear()
    ca.init(now=clock.now())
    yield
    sys.setswitchinterval(interval)


@asynccontextmanager
async def serving() -> AsyncIterator[Running]:
    """A server in this process, on free ports."""
    here: asyncio.Future[Running] = asyncio.get_running_loop().create_future()

    async def companion(running: Running) -> None:
        here.set_result(running)
        await asyncio.Event().wait()

    async with asyncio.timeout(30):
        task = asyncio.create_task(serve(OPTIONS, companion=companion))
        await asyncio.wait((here, task), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        running = here.result()
        try:
            yield running
        finally:
            running.stop.set()
            started = time.monotonic()
            await task
            assert time.monotonic() - started < 10  # as a process, below, it has three


async def in_thread(work: Callable[[], T]) -> T:
    """Database work of a test, beside the loop."""

    def run() -> T:
        try:
            return work()
        finally:
            connection.close()

    return await asyncio.to_thread(run)


async def until(check: Callable[[], bool], within_s: float) -> float:
    """Wait until `check` (in a thread) holds; returns how long that took."""
    started = time.monotonic()
    async with asyncio.timeout(within_s):
        while not await in_thread(check):  # noqa: ASYNC110  (the database rings no bell)
            await asyncio.sleep(0.01)
    return time.monotonic() - started


def trusting() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=ca.pem("server-ca"))
    return context


async def enrol(running: Running, applicant: Applicant, folder: Path) -> tuple[str, ssl.SSLContext]:
    """Over HTTPS on the gate's port, as an agent does."""
    url = f"https://127.0.0.1:{running.gate.port}/enrol/v1"
    async with httpx.AsyncClient(verify=trusting(), trust_env=False) as client:
        answer = await client.post(url, json=applicant.body())
    assert answer.status_code == 200, answer.text
    granted = answer.json()
    (folder / "chain.pem").write_text("".join(granted["certificates"]))
    key = applicant.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "key.pem").write_bytes(key)
    context = trusting()
    context.set_alpn_protocols(["mqtt"])
    context.load_cert_chain(folder / "chain.pem", folder / "key.pem")
    return granted["device"], context


async def connect(running: Running, device: str, context: ssl.SSLContext) -> Raw:
    raw = await Raw.open(running.gate.port, None, None, context=context)  # type: ignore[arg-type]
    return await raw.live(device)


@pytest.fixture
def applicant(product_line: ProductLine, site: Site) -> Applicant:
    claim = services.create_claim(
        serial="SN-NEW", product_line=product_line, site=site, now=clock.now()
    )
    return Applicant(claim)


def _online(device: str) -> bool:
    return Device.objects.get(pk=device).online


async def test_from_claim_to_offline(
    applicant: Applicant, tmp_path: Path, make_device: Any, site: Site
) -> None:
    """R-CON-2, R-CON-4, R-CON-6, and "online within a second, offline when it dies"."""
    stale = await in_thread(lambda: make_device(site, id="device-stale"))
    async with serving() as running:
        assert not await in_thread(lambda: _online(stale.pk))  # of an earlier process
        device, context = await enrol(running, applicant, tmp_path)
        async with await connect(running, device, context) as raw:
            assert await until(lambda: _online(device), 5) < 1
            sender = Sender(device)

            hello = sender.hello()
            raw.send(publish(f"pat/1/{device}/up/hello/1", hello.payload, first=0x32, id=1))
            said = [await raw.packet(), await raw.packet()]
            [(_, welcome)] = [each for each in said if each[0] == 0x30]
            assert b"dn/hello/1" in welcome
            payload = welcome[welcome.index(b"{") :]
            assert isinstance(messages.decode_down("hello", 1, payload), Welcome)

            event = sender.event()
            raw.send(publish(f"pat/1/{device}/up/event/1", event.payload, first=0x32, id=7))
            assert await raw.packet() == (0x40, b"\0\x07")  # decided, that is committed
            assert await in_thread(lambda: Event.objects.filter(device=device).count()) == 1

            raw.send(publish(f"pat/1/{device}/up/event/1", b"?", first=0x32, id=8))
            assert await raw.packet() == (0x40, b"\0\x08")  # refused, and decided as well

            await _push_is_fast(raw, device)
            raw.send(DISCONNECT)
            assert await until(lambda: not _online(device), 5) < 1
            seen = await in_thread(lambda: Device.objects.get(pk=device).last_seen_at)
            assert seen is not None


async def _push_is_fast(raw: Raw, device: str) -> None:
    """From a service's commit, in another thread, to the device's socket."""
    cancel = Cancel(execution="0" * 32)

    def commit() -> float:
        with transaction.atomic():
            Device.objects.filter(pk=device).update(room="x")
            ports.send_down(device, cancel)
        return time.perf_counter()

    times = []
    for _ in range(20):
        committed, (topic, payload) = await asyncio.gather(in_thread(commit), raw.message())
        times.append(time.perf_counter() - committed)
        assert topic == f"pat/1/{device}/dn/cancel/1"
        assert payload == messages.encode(cancel)
    assert sorted(times)[len(times) // 2] < 0.5  # the bench measures; this finds a broken path


async def test_the_web_answers_on_both_ports(applicant: Applicant) -> None:
    async with serving() as running:
        url = f"https://localhost:{running.gate.port}/-/ready"
        async with httpx.AsyncClient(verify=trusting(), trust_env=False) as client:
            answer = await client.get(url)
        assert answer.json() == {
            "ready": True,
            "parts": {"database": True, "gate": True, "ingest": True},
            "warnings": [],
        }
        port = running.web.servers[0].sockets[0].getsockname()[1]
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.get(f"http://127.0.0.1:{port}/metrics")
        assert "patency_devices_connected 0.0" in answer.text


async def test_a_companion_that_fails_ends_the_process() -> None:
    async def companion(running: Running) -> None:
        raise ZeroDivisionError

    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.timeout(20):
            await serve(OPTIONS, companion=companion)
    assert caught.group_contains(ZeroDivisionError)


def test_ticks_run_and_heads_are_told_once(
    device: Device, ports: Any, hospital: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agent.wire.catalogue import Outcome
    from agent.wire.messages import ServerHead
    from fleet.audit import keys
    from fleet.audit import services as audit
    from fleet.mqtt.queue import IngestQueue

    assert keys.server_key() is not None
    audit.record(
        organisation=hospital, actor="portal", action="access:end", outcome=Outcome.ALLOWED
    )
    queue = IngestQueue()
    standard = ticks.standard()
    for _ in range(2):
        for tick in standard:
            ticks.submit(queue, tick)
        load, _room = queue.take(1, 0)
        assert len(load.work) == len(standard)
        for work in load.work:
            work()
    heads = [m for _device, m in ports.sent if isinstance(m, ServerHead)]
    assert [(head.head.chain, head.head.index) for head in heads] == [("north", 0)]


# --- as a process -------------------------------------------------------------------------------

ROOT = Path(__file__).parents[3]


def _up(data: Path, http: int, mqtt: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "manage.py", "up", "--data", str(data), "--http", f"127.0.0.1:{http}",
         "--mqtt", f"127.0.0.1:{mqtt}"],
        cwd=ROOT,
        env={**os.environ, "PYTHONWARNINGS": "default"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip


def _free() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _ready(port: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            answer = httpx.get(f"http://127.0.0.1:{port}/-/ready", trust_env=False)
        except httpx.TransportError:
            time.sleep(0.1)
            continue
        assert json.loads(answer.text)["ready"]
        return
    raise AssertionError("it did not start")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_process_ends_within_three_seconds(portal_data: Path, number: int) -> None:
    http, mqtt = _free(), _free()
    process = _up(portal_data, http, mqtt)
    try:
        _ready(http)
        started = time.monotonic()
        process.send_signal(number)
        output, _ = process.communicate(timeout=10)
        assert time.monotonic() - started < 3
        assert process.returncode == 0, output
        assert "Traceback" not in output
        assert "never awaited" not in output
    finally:
        process.kill()
        process.communicate()


def test_one_portal_for_a_data_directory(portal_data: Path) -> None:
    """R-CON-5: a second would call the first one's devices offline. A lock that dies with its
    process is in nobody's way after kill -9."""
    http = _free()
    first = _up(portal_data, http, _free())
    try:
        _ready(http)
        second = _up(portal_data, _free(), _free())
        output, _ = second.communicate(timeout=30)
        assert second.returncode == 1
        assert f"A portal runs on {portal_data} already" in output
        assert "Traceback" not in output
        assert httpx.get(f"http://127.0.0.1:{http}/-/ready", trust_env=False).status_code == 200
    finally:
        first.kill()
        first.communicate()
    after = _up(portal_data, http, _free())
    try:
        _ready(http)
    finally:
        after.kill()
        after.communicate()


def test_what_keeps_it_from_starting_is_named(portal_data: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for data, wanted in ((portal_data, "in use"), (tmp_path / "fresh", "manage.py ca init")):
            process = _up(data, port, _free())
            output, _ = process.communicate(timeout=30)
            assert process.returncode == 1
            assert wanted in output
            assert "Traceback" not in output
