"""A report as data: sections of words in one language, which a page and a PDF both show."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum


class Tone(StrEnum):
    GOOD = "good"
    OPEN = "open"  # not known yet, or to be looked at
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Verdict:
    tone: Tone
    text: str


@dataclass(frozen=True, slots=True)
class Section:
    """One heading with what stands under it, in this order."""

    title: str
    facts: Sequence[tuple[str, str]] = ()
    verdicts: Sequence[Verdict] = ()
    paragraphs: Sequence[str] = ()
    heads: Sequence[str] = ()  # of the table's columns
    rows: Sequence[Sequence[str]] = ()
    empty: str = ""  # what stands for a table without rows


@dataclass(frozen=True, slots=True)
class Document:
    language: str  # as HTML and PDF name it: en, fr-CA
    title: str
    subtitle: str
    sections: Sequence[Section]
    foot: str
    page: str = "%(page)s"  # how a page is numbered
    keywords: Sequence[str] = field(default_factory=tuple)
