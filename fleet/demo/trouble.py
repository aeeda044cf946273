"""Why an injector of the demo is not online: as its agent says, or else its log."""

import json
from pathlib import Path
from typing import Any

from fleet.demo import local

_COMPLAINTS = ("error", "critical")
_TAIL = 64 * 1024  # bytes at the end of a log that are looked at


async def why(state: Path, log: Path) -> str:
    """In the agent's own words, which carry the remedy."""
    try:
        answer = await local.ask(state, "status")
    except (OSError, TimeoutError):
        return last_words(log, state.name) or "its agent does not answer"
    shown = answer.get("result", {})
    return str(shown.get("trouble") or f"its agent is {shown.get('connection', 'silent')}")


def last_words(log: Path, agent: str | None = None) -> str:
    """The last complaint in a log, of `agent` (several may share a process) or of whoever."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    plain = ""  # what a program says as it ends is no JSON, and names no agent
    for line in reversed(lines):
        entry = _entry(line)
        if entry is None:
            plain = plain or line.strip()
            if plain and agent is None:
                break
        elif entry.get("level") in _COMPLAINTS and agent in (None, entry.get("agent")):
            return str(entry.get("message"))
    return plain


def _entry(line: str) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None
