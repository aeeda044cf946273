"""The demo as tests use it: the real `manage.py up --demo` on free ports, started once a run
(the fixture `demo` of tests/conftest.py).

    from tests.demo import Demo

    def test_something(demo: Demo) -> None:
        demo.device("ct-dual")["serial"], demo.user("specialist")["token"], demo.patency("devices")

The clinic's pace is such that nobody injects by itself, so that states are the test's to choose.
Tests share the injectors: leave each idle, as it was.
"""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

ROOT = Path(__file__).parent.parent
READY_S = 120.0
QUIET = "0.01"  # the pace: the first injection comes after hours
STOP_S = 5.0  # the contract's bound


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], Any], timeout_s: float = 10.0, every_s: float = 0.05) -> Any:
    """The first true value of `condition`. Raises AssertionError after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(every_s)
    return value


@dataclass
class Demo:
    """One data directory; `start` and `stop` as often as a test wants."""

    data: Path
    http: int = field(default_factory=free_port)
    mqtt: int = field(default_factory=free_port)
    access: int = field(default_factory=free_port)
    pace: str = QUIET
    process: subprocess.Popen[bytes] | None = None
    info: dict[str, Any] = field(default_factory=dict)  # demo.json
    environment: dict[str, str] = field(default_factory=dict)  # of every process

    @property
    def output(self) -> str:
        return (self.data.parent / "output").read_text(encoding="utf-8")

    @property
    def url(self) -> str:
        return str(self.info["url"])

    # --- its life --------------------------------------------------------------------------------

    def begin(self, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start it and do not wait."""
        self.process = self._manage("up", "--demo", *arguments, **environment)
        return self.process

    def begin_server(self, *arguments: str) -> subprocess.Popen[bytes]:
        """The server on this data and these ports, without children; the caller's to end."""
        return self._manage("up", *arguments)

    def manage(self, *arguments: str, timeout_s: float = 60) -> None:
        """A command of manage.py, to its end."""
        process = self._manage(*arguments)
        assert process.wait(timeout_s) == 0, self.output

    def _manage(self, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("PATENCY_", "DJANGO_"))}
        clean |= (
            {
                "PATENCY_DATA": str(self.data),
                "PATENCY_HTTP": f"127.0.0.1:{self.http}",
                "PATENCY_MQTT": f"127.0.0.1:{self.mqtt}",
                "PATENCY_ACCESS": f"127.0.0.1:{self.access}",
                "PATENCY_DEMO_PACE": self.pace,
                "PYTHONWARNINGS": "",
            }
            | self.environment
            | environment
        )
        with (self.data.parent / "output").open("wb") as output:
            return subprocess.Popen(
                [sys.executable, str(ROOT / "manage.py"), *arguments],
                env=clean,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def start(self) -> "Demo":
        """Start it and wait for `ready`."""
        process = self.begin()
        deadline = time.monotonic() + READY_S
        while not re.search(r"^ready$", self.output, re.MULTILINE):
            assert process.poll() is None, f"the demo ended:\n{self.output}\n{self.logs()}"
            assert time.monotonic() < deadline, f"not ready:\n{self.output}\n{self.logs()}"
            time.sleep(0.05)
        self.info = json.loads((self.data / "demo.json").read_text(encoding="utf-8"))
        return self

    def stop(self, number: int = signal.SIGINT, *, wait_s: float = STOP_S) -> int:
        """End it; gives its exit status. Raises when it, or a child, is still there after."""
        assert self.process is not None
        children = self.children()
        began = time.monotonic()
        self.process.send_signal(number)
        try:
            status = self.process.wait(wait_s)
            left = max(0.0, wait_s - (time.monotonic() - began))
            _gone, alive = psutil.wait_procs(children, timeout=left)
            assert not alive, f"left behind: {[' '.join(p.cmdline()) for p in alive]}"
        finally:
            self.kill(children)
        return status

    def kill(self, children: list[psutil.Process] | None = None) -> None:
        """Whatever is left of it."""
        for process in children if children is not None else self.children():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        if self.process is not None:
            if self.process.poll() is None:
                self.process.kill()
            self.process.wait()
            self.process = None

    def children(self) -> list[psutil.Process]:
        if self.process is None or self.process.poll() is not None:
            return []
        return psutil.Process(self.process.pid).children(recursive=True)

    def logs(self) -> str:
        """The last lines of every log, for a failure's message."""
        files = sorted((self.data / "logs").glob("*.log"))
        return "\n".join(f"{f.name}: {f.read_text(encoding='utf-8')[-1500:]}" for f in files)

    # --- what is in it ---------------------------------------------------------------------------

    @property
    def devices(self) -> list[dict[str, Any]]:
        return list(self.info["devices"])

    def device(self, product_line: str, *, organisation: str | None = None) -> dict[str, Any]:
        """The first of a product line: the one with an agent process of its own."""
        return next(
            d
            for d in self.devices
            if d["product_line"] == product_line and organisation in (None, d["organisation"])
        )

    def user(self, role: str, *, which: int = 0) -> dict[str, Any]:
        users: list[dict[str, Any]] = [u for u in self.info["users"] if u["role"] == role]
        return users[which]

    def api(self, role: str = "specialist", *, which: int = 0) -> httpx.Client:
        """A client of the API as this user. Close it."""
        return httpx.Client(
            base_url=f"{self.url}/api/v1/",
            headers={"Authorization": f"Bearer {self.user(role, which=which)['token']}"},
            timeout=10,
            trust_env=False,
        )

    def patency(
        self, *arguments: str, timeout_s: float = 60, profile: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """The specialist's command line."""
        return self._run(
            [str(self.info["cli"]), *arguments],
            timeout_s,
            PATENCY_PROFILE=profile or str(self.info["profile"]),
        )

    def agent(
        self, device: dict[str, Any], *arguments: str, timeout_s: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """`patency-agent` beside the injector."""
        command = str(Path(self.info["cli"]).with_name("patency-agent"))
        return self._run([command, *arguments, "--state", device["state_dir"]], timeout_s)

    def simulate(self, device: dict[str, Any], fault: str) -> None:
        done = self.agent(device, "simulate", "--fault", fault)
        assert done.returncode == 0, done.stderr

    def _run(
        self, command: list[str], timeout_s: float, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            env={**os.environ, "PYTHONWARNINGS": "", **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )


@contextlib.contextmanager
def running() -> Iterator[Demo]:
    """A started demo in a folder of its own, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="patency-") as folder:
        made = Demo(Path(folder) / "demo")
        try:
            yield made.start()
        finally:
            made.kill()
