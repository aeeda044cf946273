"""What the command prints: JSON for programs, tables and lines for people."""

import csv
import io
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

FORMATS = ("table", "json", "csv")
_SPACES = "\u00a0\u202f"  # no-break: French puts one before a colon; Python calls them unprintable


def harmless(text: str, keep: str = "") -> str:
    """The text without what could move the cursor: it may have come over the network."""
    return "".join(c if c.isprintable() or c in _SPACES or c in keep else "�" for c in text)


def note(text: str) -> None:
    """A line for a person, beside the output; the network's words cannot move the cursor."""
    click.echo(harmless(text, keep="\n"), err=True)


def data(value: Any) -> None:
    utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    click.echo(json.dumps(value, ensure_ascii=not utf8))
    sys.stdout.flush()


def rows(form: str, columns: Sequence[str], lines: Sequence[Mapping[str, Any]]) -> None:
    """A list, with exactly these columns."""
    cut = [{column: line.get(column) for column in columns} for line in lines]
    if form == "json":
        data(cut)
    elif form == "csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows([{name: _plain(line[name]) for name in columns} for line in cut])
        click.echo(text.getvalue(), nl=False)
    else:
        click.echo(table(columns, [[cell(line[column]) for column in columns] for line in cut]))


def _plain(value: Any) -> Any:
    """A value in CSV, with JSON's words for what is no text or number."""
    return json.dumps(value) if isinstance(value, bool) else value


def table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = [[name.replace("_", " ") for name in head], *body]
    widths = [max(len(line[at]) for line in lines) for at in range(len(head))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def cell(value: Any) -> str:
    """A value on one line. What came over the network cannot move the cursor."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return harmless(str(value))
