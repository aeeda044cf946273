"""A service manager as far as the agent notices: NOTIFY_SOCKET, a watchdog, restarts.

What it does is what systemd.service(5) says of `Type=notify`, `WatchdogSec=`, `TimeoutAbortSec=`
and `RestartSec=`; the figures are read from the real unit.
"""

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

UNIT = Path(__file__).parent.parent / "deploy/patency-agent.service"


def setting(name: str, unit: Path = UNIT) -> str:
    """The value of a directive that the unit gives once."""
    found = [line for line in unit.read_text().splitlines() if line.startswith(f"{name}=")]
    assert len(found) == 1, f"{name} stands {len(found)} times in {unit.name}"
    return found[0].partition("=")[2]


@dataclass
class Service:
    """Runs a command and keeps it going, in a thread. Times are of time.monotonic()."""

    command: Sequence[str | Path]
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    watchdog_s: float = float(setting("WatchdogSec"))
    abort_s: float = float(setting("TimeoutAbortSec"))
    restart_s: float = float(setting("RestartSec"))
    ready: list[float] = field(default_factory=list)
    ended: list[tuple[float, int, str]] = field(default_factory=list)  # when, status, why
    status: str = ""
    process: subprocess.Popen[bytes] | None = None

    @contextlib.contextmanager
    def running(self) -> Iterator["Service"]:
        self._stop = threading.Event()
        thread = threading.Thread(target=self._keep, name="manager")
        thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            thread.join(20)
            assert not thread.is_alive()

    def _keep(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
            address = self.folder / "notify"
            told.bind(str(address))
            told.settimeout(0.05)
            while not self._stop.is_set():
                self._once(told, address)
                self._stop.wait(self.restart_s)

    def _once(self, told: socket.socket, address: Path) -> None:
        environment = os.environ | self.environment
        environment |= {
            "NOTIFY_SOCKET": str(address),
            "WATCHDOG_USEC": str(int(self.watchdog_s * 1e6)),
        }
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [str(part) for part in self.command], env=environment, stderr=log
            )
        self.process = process
        fed, why = time.monotonic(), "by itself"
        while process.poll() is None:
            if self._stop.is_set():
                process.terminate()
                process.wait(10)
                return
            lines = self._read(told)
            if "READY=1" in lines:
                self.ready.append(time.monotonic())
            if "WATCHDOG=1" in lines:
                fed = time.monotonic()
            if time.monotonic() - fed > self.watchdog_s:
                why = "watchdog"
                _abort(process, self.abort_s)
        self.ended.append((time.monotonic(), process.returncode, why))

    def _read(self, told: socket.socket) -> list[str]:
        try:
            lines = told.recv(4096).decode().splitlines()
        except TimeoutError:
            return []
        for line in lines:
            if line.startswith("STATUS="):
                self.status = line.partition("=")[2]
        return lines


def _abort(process: subprocess.Popen[bytes], patience_s: float) -> None:
    process.send_signal(signal.SIGABRT)
    try:
        process.wait(patience_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)
