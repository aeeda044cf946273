"""Commands that a message advises: complete, quoted, and right when they are pasted as they are."""

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import click

NAME = "patency"


def command(*parts: object) -> str:
    """`patency` with these arguments, as it was called this time: by its path where the shell would
    not find it, and with the same profile."""
    return _profile() + " ".join(shlex.quote(str(part)) for part in (_program(), *parts))


def request(
    target: str,
    services: Sequence[str],
    *,
    level: str,
    reason: str,
    ticket: str | None = None,
    life_s: int | None = None,
) -> str:
    """A whole `patency request`."""
    parts = ["request", target, "--level", level]
    for service in services:
        parts += ["--service", service]
    parts += ["--reason", reason]
    if ticket:
        parts += ["--ticket", ticket]
    if life_s:
        parts += ["--for", f"{life_s}s" if life_s % 60 else f"{life_s // 60}m"]
    return command(*parts, "--wait")


def private(path: Path) -> str:
    return f"chmod 600 {shlex.quote(str(path))}"


def _program() -> str:
    called = Path(sys.argv[0])
    if called.name != NAME:  # run as a module, or by a test
        return NAME
    found = shutil.which(NAME)
    if found is not None and os.path.realpath(found) == os.path.realpath(called):
        return NAME
    return str(called)


def _profile() -> str:
    """How the next command is told the profile, where it is not the usual one."""
    context = click.get_current_context(silent=True)
    named = context.find_root().params.get("folder") if context else None
    folder = named or os.environ.get("PATENCY_PROFILE")
    return f"PATENCY_PROFILE={shlex.quote(str(folder))} " if folder else ""
