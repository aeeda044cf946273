"""Debian's mosquitto clients with a device's certificate: another implementation meets the gate.

Requirements: R-CON-3, R-CON-6. The gate runs in a thread of this process.
"""

import asyncio
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.wire.messages import MAX_PAYLOAD
from broker.errors import Reason
from broker.options import GateOptions
from broker.server import Gate
from tests.broker.conftest import Recorder
from tests.tls import Authority, Files

pytestmark = [pytest.mark.system, pytest.mark.timeout(60)]

A = "device-aaaa"
B = "device-bbbb"
WAIT_S = "5"
EVENT = f"pat/1/{A}/up/event/1"


class Threaded:
    """A gate on a loop in a thread."""

    def __init__(self, files: Files) -> None:
        self.handler = Recorder()
        self._files = files
        self._ready = threading.Event()
        self._stop: asyncio.Event | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self.gate: Gate | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    async def _run(self) -> None:
        self.gate = Gate(
            GateOptions(
                host="127.0.0.1",
                port=0,
                certificate=self._files.server_chain,
                key=self._files.server_key,
                device_ca=self._files.device_ca,
            ),
            self.handler,
        )
        self.loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        await self.gate.start()
        self._ready.set()
        await self._stop.wait()
        await self.gate.stop()

    def __enter__(self) -> "Threaded":
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        assert self.loop is not None
        assert self._stop is not None
        self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        assert not self._thread.is_alive()

    @property
    def port(self) -> int:
        assert self.gate is not None
        return self.gate.port

    def publish(self, topic: str, payload: bytes) -> bool:
        """Gate.publish, from this thread."""
        assert self.loop is not None
        assert self.gate is not None
        gate = self.gate

        async def call() -> bool:
            return gate.publish(topic, payload)

        return asyncio.run_coroutine_threadsafe(call(), self.loop).result(5)

    def told(self, *what: object) -> bool:
        assert self.loop is not None
        told = self.handler.told(*what)
        return asyncio.run_coroutine_threadsafe(told, self.loop).result(10) is None


@pytest.fixture
def authority() -> Authority:
    return Authority()


@pytest.fixture
def files(authority: Authority, tmp_path: Path) -> Files:
    for device in (A, B):
        authority.device(device).write(tmp_path, device)
    return authority.write(tmp_path)


@pytest.fixture
def gate(files: Files) -> Iterator[Threaded]:
    with Threaded(files) as running:
        yield running


def command(program: str, gate: Threaded, files: Files, device: str, *more: str) -> list[str]:
    folder = files.server_ca.parent
    return [
        *(program, "-h", "localhost", "-p", str(gate.port), "-V", "mqttv311"),
        *("--cafile", str(files.server_ca), "--tls-alpn", "mqtt"),
        *("--cert", str(folder / f"{device}.pem"), "--key", str(folder / f"{device}.key")),
        *more,
    ]


def test_publish(gate: Threaded, files: Files) -> None:
    """QoS 1 returns only once the gate's handler has acknowledged."""
    topic = f"pat/1/{A}/up/event/1"
    subprocess.run(
        command("mosquitto_pub", gate, files, A, "-i", A, "-q", "1", "-t", topic, "-m", "hello"),
        check=True,
        timeout=10,
    )
    assert [delivery.payload for delivery in gate.handler.deliveries] == [b"hello"]
    assert gate.told("disconnected", A, Reason.DISCONNECTED)


def test_subscribe(gate: Threaded, files: Files) -> None:
    with subprocess.Popen(
        command(
            *("mosquitto_sub", gate, files, A),
            *("-i", A, "-t", f"pat/1/{A}/dn/#", "-C", "1", "-W", WAIT_S),
        ),
        stdout=subprocess.PIPE,
    ) as listener:
        assert gate.told("connected", A)
        for _ in range(100):  # until it has subscribed
            if gate.publish(f"pat/1/{A}/dn/job/1", b"work"):
                break
            time.sleep(0.02)
        assert listener.wait(10) == 0
        assert listener.stdout is not None
        assert listener.stdout.read() == b"work\n"


@pytest.mark.parametrize(
    ("device", "options", "reason"),
    [
        (B, ["-i", A], Reason.CLIENT_ID),
        (A, ["-i", A, "-u", "root"], Reason.USER_NAME),
        (A, ["-i", A, "--will-topic", f"pat/1/{A}/up/event/1"], Reason.WILL),
    ],
)
def test_refused(
    gate: Threaded, files: Files, device: str, options: list[str], reason: Reason
) -> None:
    result = subprocess.run(
        command(
            *("mosquitto_pub", gate, files, device),
            *options,
            *("-t", f"pat/1/{A}/up/event/1", "-m", "x"),
        ),
        capture_output=True,
        timeout=20,
    )
    assert result.returncode != 0
    assert gate.told("refused", device, reason)
    assert not gate.handler.deliveries


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["-q", "2", "-t", EVENT], Reason.QOS),
        (["-q", "1", "-r", "-t", EVENT], Reason.RETAINED),
        (["-q", "1", "-t", f"pat/1/{B}/up/event/1"], Reason.TOPIC),
        (["-q", "1", "-t", "$SYS/broker"], Reason.TOPIC),
    ],
)
def test_a_refused_publish(
    gate: Threaded, files: Files, options: list[str], reason: Reason
) -> None:
    """Closed; mosquitto_pub would come back and try for ever, so it is stopped."""
    full = command("mosquitto_pub", gate, files, A, "-i", A, *options, "-m", "x")
    with subprocess.Popen(full, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as publisher:
        assert gate.told("refused", A, reason)
        publisher.terminate()
        publisher.wait(10)
    assert not gate.handler.deliveries


def test_a_refused_subscription(gate: Threaded, files: Files) -> None:
    result = subprocess.run(
        command("mosquitto_sub", gate, files, A, "-i", A, "-t", "#", "-t", "$SYS/#", "-W", WAIT_S),
        capture_output=True,
        timeout=20,
    )
    assert b"denied" in result.stderr
    assert gate.told("refused", A, Reason.FILTER)


def test_a_persistent_session_is_accepted_and_new(gate: Threaded, files: Files) -> None:
    """`-c`: what is published while it is away is not queued, and the portal knows so."""
    listen = ["-i", A, "-c", "-q", "1", "-t", f"pat/1/{A}/dn/#", "-W", WAIT_S]
    for payload in (b"first", b"second"):
        with subprocess.Popen(
            command("mosquitto_sub", gate, files, A, *listen, "-C", "1"), stdout=subprocess.PIPE
        ) as listener:
            for _ in range(250):  # until it has subscribed
                if gate.publish(f"pat/1/{A}/dn/job/1", payload):
                    break
                time.sleep(0.02)
            assert listener.wait(10) == 0
            assert listener.stdout is not None
            assert listener.stdout.read() == payload + b"\n"
        assert gate.told("disconnected", A)
        for _ in range(250):
            if not gate.publish(f"pat/1/{A}/dn/job/1", b"while away"):
                break
            time.sleep(0.02)
        else:
            raise AssertionError("it was still there")


def test_the_largest_message_and_many_small_ones(
    gate: Threaded, files: Files, tmp_path: Path
) -> None:
    large = tmp_path / "large"
    large.write_bytes(os.urandom(MAX_PAYLOAD))
    publish = command("mosquitto_pub", gate, files, A, "-i", A, "-q", "1", "-t", EVENT)
    subprocess.run([*publish, "-f", str(large)], check=True, timeout=20)
    lines = "".join(f"line {number}\n" for number in range(500))
    subprocess.run([*publish, "-l"], input=lines, text=True, check=True, timeout=20)
    taken = [delivery.payload for delivery in gate.handler.deliveries]
    assert taken == [large.read_bytes(), *lines.encode().splitlines()]


def test_without_a_certificate(gate: Threaded, files: Files) -> None:
    full = command("mosquitto_pub", gate, files, A, "-i", A, "-t", "x", "-m", "x")
    without = full[: full.index("--cert")] + full[full.index("--key") + 2 :]
    assert subprocess.run(without, capture_output=True, timeout=20).returncode != 0
    assert gate.told("refused", None, Reason.HANDSHAKE)
