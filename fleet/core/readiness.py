"""Parts of the process say here whether they work, and what they warn of; /-/ready asks."""

from collections.abc import Callable

_checks: dict[str, Callable[[], bool]] = {}
_warners: dict[str, Callable[[], list[str]]] = {}


def register(part: str, check: Callable[[], bool]) -> None:
    _checks[part] = check


def unregister(part: str) -> None:
    _checks.pop(part, None)


def report() -> dict[str, bool]:
    return {part: check() for part, check in _checks.items()}


def register_warnings(part: str, look: Callable[[], list[str]]) -> None:
    """`look` gives codes of what will keep this part from working soon, or does so in part."""
    _warners[part] = look


def unregister_warnings(part: str) -> None:
    _warners.pop(part, None)


def warnings() -> list[str]:
    """What is no reason to be unready, and to be seen to."""
    return [code for look in _warners.values() for code in look()]
