"""A portal of its own for a bench: a process, in a folder that goes with it."""

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class PortalProcess:
    """`found` is what it printed when it served: ports, token, devices with certificates."""

    def __init__(self, folder: Path, process: "subprocess.Popen[str]") -> None:
        self.folder = folder
        self._process = process
        assert process.stdout is not None
        self.found: dict[str, Any] = json.loads(process.stdout.readline())

    def end(self) -> dict[str, Any]:
        """End it in good order; gives what it printed last."""
        self._process.send_signal(signal.SIGTERM)
        said: dict[str, Any] = json.loads(self._process.communicate(timeout=10)[0])
        return said


@contextmanager
def portal(devices: int) -> Iterator[PortalProcess]:
    """It serves, with so many devices enrolled, until the end of the block at the latest."""
    here = Path("var")
    here.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=here, prefix="bench-") as folder:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench._portal", folder, str(devices)],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            yield PortalProcess(Path(folder), process)
        finally:
            process.kill()
            process.communicate()
