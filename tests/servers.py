"""Access servers as processes: `manage.py up --only gate` on a bundle.

with AccessServer("east", folder) as east:
    east.start()          # and kill(), terminate(), start() again on the same ports
"""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from tests.demo import ROOT, free_port, until

START_S = 30.0


def listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


class AccessServer:
    """`folder` is where the bundle is, or will be before `start`."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self.port = free_port()
        self.link = free_port()
        self.more: tuple[str, ...] = ()  # options of `up`
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "AccessServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def output(self) -> str:
        return self.folder.with_suffix(".log").read_text(encoding="utf-8")

    def command(self) -> list[str]:
        return [
            sys.executable, str(ROOT / "manage.py"), "up", "--only", "gate", "--name", self.name,
            "--data", str(self.folder), "--mqtt", f"127.0.0.1:{self.port}",
            "--link", f"127.0.0.1:{self.link}", *self.more,
        ]  # fmt: skip

    def begin(self) -> "AccessServer":
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("PATENCY_", "DJANGO_"))}
        with self.folder.with_suffix(".log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command(), env={**clean, "PYTHONWARNINGS": ""}, cwd=ROOT,
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        return self

    def start(self) -> "AccessServer":
        """Start, and wait until it listens for devices."""
        self.begin()
        until(lambda: listens(self.port) or self._ended(), START_S)
        return self

    def _ended(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.output
        return False

    def kill(self) -> None:
        """kill -9, if it runs."""
        self._end(signal.SIGKILL)

    def terminate(self) -> int:
        """As an operator ends it; gives the exit status."""
        return self._end(signal.SIGTERM)

    def _end(self, number: int) -> int:
        process, self.process = self.process, None
        if process is None:
            return 0
        process.send_signal(number)
        return process.wait(10)
