"""Parts of the process say here whether they work; /-/ready asks."""

from collections.abc import Callable

_checks: dict[str, Callable[[], bool]] = {}


def register(part: str, check: Callable[[], bool]) -> None:
    _checks[part] = check


def unregister(part: str) -> None:
    _checks.pop(part, None)


def report() -> dict[str, bool]:
    return {part: check() for part, check in _checks.items()}
