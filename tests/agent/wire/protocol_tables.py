"""The tables of docs/protocol.md, made from the schemas.

`python -m tests.agent.wire.protocol_tables` writes them into the page between their marks.
"""

import re
from collections.abc import Iterable, Mapping
from enum import Enum, StrEnum
from pathlib import Path
from typing import Any

import msgspec

from agent.wire import catalogue, challenge, entitlement, messages, roster
from agent.wire.mux import ResetCode

PAGE = Path(__file__).parents[3] / "docs" / "protocol.md"
I = msgspec.inspect  # noqa: E741
_ENVELOPE = {"at", "boot", "uptime_ms", "outbox", "seq"}
_MARK = re.compile(r"<!-- ([a-z-]+): made by .*? -->\n.*?<!-- end -->", re.S)
_CODES: tuple[type[StrEnum], ...] = (
    catalogue.ClinicalState, catalogue.ProductLineCode, catalogue.Level, catalogue.RequestReason,
    catalogue.SessionReason, catalogue.JobKind, catalogue.JobReason, catalogue.RefusalReason,
    catalogue.Outcome, catalogue.EventPriority, catalogue.EventPhase, messages.EndReason,
)  # fmt: skip
_NAMED = {
    r"^[a-z][a-z0-9-]{0,31}\Z": "service",
    r"^[A-Za-z0-9_-]{1,64}\Z": "id",
    r"^[A-Za-z0-9_-]{8,64}\Z": "device id",
}


def _size(low: int | None, high: int | None) -> str:
    return f"{high}" if low == high else f"{low or 0} to {high}"


def kind(info: Any) -> str:
    """One cell that says what a field may hold."""
    match info:
        case I.StrType():
            if hexadecimal := re.fullmatch(r"\^\[0-9a-f\]\{(\d+)\}\\Z", info.pattern):
                return f"hex {hexadecimal[1]}"
            if info.max_length:
                return f"printable text, {_size(info.min_length, info.max_length)} characters"
            return _NAMED.get(info.pattern) or f"`{info.pattern[1:-2]}`"
        case I.BytesType():
            return f"{_size(info.min_length, info.max_length)} bytes"
        case I.IntType():
            high = "2^53 - 1" if info.le == 2**53 - 1 else info.le
            return f"whole number {info.ge} to {high}"
        case I.FloatType():
            low = f"above {info.gt:g}" if info.gt is not None else f"{info.ge:g}"
            return f"number {low} to {info.le:g}"
        case I.EnumType():
            return f"{info.cls.__name__} code"
        case I.LiteralType():
            return " or ".join(f"`{value}`" for value in sorted(info.values))
        case I.UnionType():
            return " or ".join(kind(member) for member in info.types)
        case I.ListType():
            return f"list of {_size(info.min_length, info.max_length)}: {kind(info.item_type)}"
        case I.DictType():
            pair = f"{kind(info.key_type)} to {kind(info.value_type)}"
            return f"table of at most {info.max_length}: {pair}"
        case I.StructType():
            inner = [f"{info.tag_field}: `{info.tag}`"] if info.tag_field else []
            inner += [f"{f.encode_name}: {kind(f.type)}" for f in info.fields]
            return "{" + ", ".join(inner) + "}"
        case I.BoolType():
            return "true or false"
        case I.NoneType():
            return "null"
    raise AssertionError(info)


def _rows(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(header)]
    lines += [["---"] * len(lines[0]), *map(list, rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def fields(cls: type[Any], without: frozenset[str] | set[str] = frozenset()) -> str:
    info = I.type_info(cls)
    assert isinstance(info, I.StructType)
    return _rows(
        ("field", "holds"),
        (
            (f"`{f.encode_name}`", kind(f.type) + ("" if f.required else ", optional"))
            for f in info.fields
            if f.encode_name not in without
        ),
    )


def _message(cls: type[messages.Message]) -> str:
    delivery = ""
    without: set[str] = set()
    if issubclass(cls, messages.Up):
        durable = issubclass(cls, messages.Durable)
        delivery = ", durable" if durable else ""
        without = _ENVELOPE if durable else _ENVELOPE - {"outbox"}
    text = (cls.__doc__ or "").strip()
    if text.startswith(cls.__name__ + "("):  # msgspec's own words
        text = ""
    text = re.sub(r"\s+", " ", text)
    head = f"**`{cls.TYPE}` version {cls.VERSION}**{delivery}" + (f". {text}" if text else "")
    return f"{head}\n\n{fields(cls, without)}"


def _ways(table: Mapping[Any, frozenset[Any]]) -> str:
    return _rows(
        ("from", "to"),
        (
            (f"`{state}`", ", ".join(f"`{s}`" for s in type(state) if s in after) or "the end")
            for state, after in table.items()
        ),
    )


def _values(cls: type[Enum]) -> str:
    return ", ".join(f"`{member.value}`" for member in cls)


def tables() -> dict[str, str]:
    return {
        "up": "\n\n".join(map(_message, messages.UP)),
        "down": "\n\n".join(map(_message, messages.DOWN)),
        "session-states": _ways(catalogue.SESSION_TRANSITIONS),
        "execution-states": _ways(catalogue.EXECUTION_TRANSITIONS),
        "terms": fields(challenge.Terms),
        "receipt": fields(challenge.PresenceReceipt),
        "roster": fields(roster.Roster),
        "entitlement": fields(entitlement.Entitlement),
        "reset-codes": _rows(("code", ""), ((str(c.value), c.name) for c in ResetCode)),
        "codes": _rows(("list", "codes"), ((c.__name__, _values(c)) for c in _CODES)),
        "events": _rows(
            ("code", "event", "priority"),
            (
                (str(e.value), e.name.lower().replace("_", " "), catalogue.EVENT_PRIORITY[e])
                for e in catalogue.EventCode
            ),
        ),
        "metrics": _values(catalogue.Metric) + ".",
    }


def render(page: str) -> str:
    made = tables()

    def fill(mark: re.Match[str]) -> str:
        first = mark[0].split("\n", 1)[0]
        return f"{first}\n{made.pop(mark[1])}\n<!-- end -->"

    page = _MARK.sub(fill, page)
    assert not made, f"the page lacks {list(made)}"
    return page


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
