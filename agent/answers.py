"""What the local commands print: JSON for scripts, a line for each fact for people."""

import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import click

from agent.errors import AgentError, ControlError
from agent.i18n import _


def show(answer: Mapping[str, Any] | None, form: str) -> None:
    """An answer on standard output, as `json` or `text`."""
    if answer is None:
        return
    if form == "json":
        click.echo(json.dumps(answer, ensure_ascii=False))
        return
    lines = [(_label(name), _readable(name, value)) for name, value in answer.items()]
    width = max((len(label) for label, _text in lines), default=0)
    for label, text in lines:
        click.echo(f"{label.ljust(width)}  {text}".rstrip())


def fail(error: AgentError, form: str) -> None:
    """Say what was refused or went wrong, and end with its status."""
    code = error.reason if isinstance(error, ControlError) else error.code
    if form == "json":
        click.echo(json.dumps({"error": code, "detail": str(error)}, ensure_ascii=False))
    else:
        click.echo(str(error), err=True)
    sys.exit(error.exit_status)


def _label(name: str) -> str:
    """A field's name, without the unit of a moment, which is shown as a date."""
    return (name.removesuffix("_ms") if name.endswith("_at_ms") else name).replace("_", " ")


def _readable(name: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return _("yes") if value else _("no")
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {count}" for key, count in value.items())
    if name.endswith("_at_ms"):
        return datetime.fromtimestamp(value / 1000, UTC).isoformat(timespec="seconds")
    return f"{value:g}" if isinstance(value, float) else str(value)
