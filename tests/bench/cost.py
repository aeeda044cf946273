"""Processor time of each program of the sealed path, by echo and MB: `python -m tests.bench.cost`.

Unlike the wall clock it says the same while others use the machine, and it says whose it is. User
and system time of the kernel's own books (10 ms), over enough work that a tick does not matter.
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import psutil

from tests.bench import _stream_service as program
from tests.bench.streams import free_port, line, process, sealed

ECHOES = 12_000
SIZE = 256 * 1024 * 1024
ENDS = ("client", "portal", "agent")

Times = dict[str, tuple[float, float]]


def _ends() -> dict[str, psutil.Process]:
    """The three programs, by what they were started as."""
    found = {}
    for child in psutil.Process().children():
        for name in ENDS:
            if child.cmdline()[2:4] == ["tests.bench._stream_ends", name]:
                found[name] = child
    return found


def _times(ends: dict[str, psutil.Process]) -> Times:
    return {name: (it.cpu_times().user, it.cpu_times().system) for name, it in ends.items()}


def _spent(ends: dict[str, psutil.Process], work: Callable[[], object]) -> Times:
    """Seconds (user, system) of each while the work is done."""
    before = _times(ends)
    work()
    return {
        name: (user - before[name][0], system - before[name][1])
        for name, (user, system) in _times(ends).items()
    }


def _show(what: str, unit: str, spent: Times, count: float, scale: float) -> None:
    shown = [
        f"{name} {(user + system) / count * scale:.1f} {unit} ({system / count * scale:.1f} kernel)"
        for name, (user, system) in spent.items()
    ]
    print(f"{what}: " + " · ".join(shown), flush=True)


def main() -> None:
    Path("var").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir="var", prefix="bench-") as folder:
        service = free_port()
        serving = (sys.executable, "-m", "tests.bench._stream_service", service)
        with process(*serving) as served, sealed(Path(folder).absolute(), service) as path:
            line(served)
            ends = _ends()
            program.echoes(path.port, 500, 0)
            spent = _spent(ends, lambda: program.echoes(path.port, ECHOES, 0))
            _show("echo", "µs", spent, ECHOES + 20, 1e6)
            for what, move in (("down", program.towards), ("up", program.away)):
                spent = _spent(ends, lambda move=move: move(path.port, SIZE))
                _show(what, "ms/MB", spent, SIZE / 1e6, 1e3)


if __name__ == "__main__":
    main()
