"""The faults that must not lose anything, as experiments: `make faults`, or some of them by name.

    python -m tests.faults                                   all, a tenth of the counts
    PATENCY_SCALE=1 python -m tests.faults --write docs/reliability.md
    python -m tests.faults half-open disk-full

An experiment is a function of a folder that raises AssertionError when the pass mark is missed, and
otherwise gives what it measured, as a sentence. The pass marks never scale, the counts do. Each is
also a test, `pytest tests/faults`, marked `faults`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Experiment:
    name: str
    fault: str
    must: str
    run: Callable[[Path], str]


EXPERIMENTS: list[Experiment] = []


def experiment(name: str, *, fault: str, must: str) -> Callable[[Callable[[Path], str]], None]:
    """Take part, in the order of THREATS.md."""

    def register(run: Callable[[Path], str]) -> None:
        EXPERIMENTS.append(Experiment(name, fault, must, run))

    return register


def load() -> list[Experiment]:
    """All of them."""
    if not EXPERIMENTS:
        from tests.faults import crowd, device, network, server  # noqa: F401  (they register)

        EXPERIMENTS.sort(key=lambda each: ORDER.index(each.name))
    return EXPERIMENTS


ORDER = (
    "kill-server",
    "kill-agent",
    "database-away",
    "poison",
    "link-away",
    "loss-and-delay",
    "half-open",
    "slow-link",
    "slow-backlog",
    "crowd",
    "disk-full",
    "job-repeated",
    "hung-or-leaking",
    "inspected",
    "restored",
    "access-server",
)
