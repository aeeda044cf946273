"""A Document as PDF: its language set, its fonts embedded, the same bytes for the same words."""

import io
from functools import lru_cache, partial
from typing import Any
from xml.sax.saxutils import escape

from django.utils.translation import gettext as _
from django.utils.translation import override
from reportlab.lib import colors
from reportlab.lib.pagesizes import LETTER
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.platypus import Flowable, Paragraph, SimpleDocTemplate, Spacer, Table, TableStyle

from fleet.access.document import Document, Section, Tone

# Bitstream Vera, which comes with reportlab: letters of the languages that we print.
REGULAR, BOLD = "Vera", "VeraBd"
_LINE = colors.HexColor("#c8ccd0")
_GREY = colors.HexColor("#4a5560")
_TONES = {
    Tone.GOOD: colors.HexColor("#146c43"),
    Tone.OPEN: colors.HexColor("#8a5300"),
    Tone.BAD: colors.HexColor("#b02a37"),
}
_WIDTH = LETTER[0] - 36 * mm
_RECORD_MM = (43, 20, 14, 48, 30, 25)  # columns of a table of six


@lru_cache(1)
def _glyphs() -> frozenset[int]:
    """Registers the fonts, and says what they can draw."""
    fonts = [TTFont(REGULAR, "Vera.ttf"), TTFont(BOLD, "VeraBd.ttf")]
    for font in fonts:
        pdfmetrics.registerFont(font)
    pdfmetrics.registerFontFamily(REGULAR, normal=REGULAR, bold=BOLD)
    return frozenset.intersection(*(frozenset(font.face.charToGlyph) for font in fonts))


def render(document: Document) -> bytes:
    """The PDF's bytes; nothing in them says when they were made but the document's own words."""
    pen = _Pen()
    body = [
        pen.text(document.title, pen.title),
        pen.text(document.subtitle, pen.muted),
    ]
    for section in document.sections:
        body += _section(pen, section)
    body += [Spacer(1, 4 * mm), pen.text(document.foot, pen.muted)]
    if pen.lacking:
        with override(document.language.lower()):
            body.append(pen.text(_lacking(), pen.muted))
    into = io.BytesIO()
    SimpleDocTemplate(
        into,
        pagesize=LETTER,
        invariant=1,
        lang=document.language,
        title=document.title,
        author="Patency",
        subject=document.subtitle,
        keywords=list(document.keywords),
        leftMargin=18 * mm,
        rightMargin=18 * mm,
        topMargin=18 * mm,
        bottomMargin=20 * mm,
    ).build(
        body,
        onFirstPage=partial(_foot, document.page),
        onLaterPages=partial(_foot, document.page),
    )
    return into.getvalue()


def _lacking() -> str:
    return _(
        "Letters that this file’s font does not have are “?” here; the portal’s page has them."
    )


class _Pen:
    """Styles, and paragraphs of text that is never markup."""

    def __init__(self) -> None:
        self.glyphs = _glyphs()
        self.lacking = False
        plain = ParagraphStyle("plain", fontName=REGULAR, fontSize=8.5, leading=12)
        self.plain = plain
        self.title = ParagraphStyle("title", plain, fontName=BOLD, fontSize=17, leading=22)
        self.heading = ParagraphStyle(
            "heading", plain, fontName=BOLD, fontSize=11, leading=15, spaceBefore=12, spaceAfter=4,
            keepWithNext=1,
        )  # fmt: skip
        self.muted = ParagraphStyle("muted", plain, textColor=_GREY)
        self.label = ParagraphStyle("label", plain, fontName=BOLD)
        self.small = ParagraphStyle("small", plain, fontSize=7, leading=9, splitLongWords=1)
        self.head = ParagraphStyle("head", self.small, fontName=BOLD)

    def tone(self, tone: Tone) -> ParagraphStyle:
        return ParagraphStyle(tone.value, self.label, textColor=_TONES[tone])

    def text(self, text: str, style: ParagraphStyle) -> Paragraph:
        return Paragraph(escape(self._drawable(text)), style)

    def _drawable(self, text: str) -> str:
        text = text.replace("\N{NARROW NO-BREAK SPACE}", "\N{NO-BREAK SPACE}")
        drawn = "".join(c if ord(c) in self.glyphs else "?" for c in text)
        self.lacking |= drawn != text
        return drawn


def _section(pen: _Pen, section: Section) -> list[Flowable]:
    parts: list[Flowable] = [pen.text(section.title, pen.heading)]
    parts += [pen.text(verdict.text, pen.tone(verdict.tone)) for verdict in section.verdicts]
    parts += [pen.text(line or " ", pen.plain) for line in section.paragraphs]
    if section.facts:
        rows = [[pen.text(name, pen.label), pen.text(value, pen.plain)] for name, value in
                section.facts]  # fmt: skip
        parts.append(_table(rows, [45 * mm, _WIDTH - 45 * mm]))
    if section.heads and section.rows:
        lines = [[pen.text(head, pen.head) for head in section.heads]]
        lines += [[pen.text(cell, pen.small) for cell in row] for row in section.rows]
        parts.append(_table(lines, [width * mm for width in _RECORD_MM], repeat=1))
    elif section.empty:
        parts.append(pen.text(section.empty, pen.muted))
    return parts


def _table(rows: list[list[Any]], widths: list[float], repeat: int = 0) -> Table:
    style = [
        ("VALIGN", (0, 0), (-1, -1), "TOP"),
        ("LINEBELOW", (0, 0), (-1, -1), 0.4, _LINE),
        ("LEFTPADDING", (0, 0), (-1, -1), 0),
        ("TOPPADDING", (0, 0), (-1, -1), 2),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 2),
    ]
    return Table(rows, colWidths=widths, repeatRows=repeat, style=TableStyle(style), hAlign="LEFT")


def _foot(words: str, canvas: Any, template: Any) -> None:
    canvas.saveState()
    canvas.setFont(REGULAR, 7)
    canvas.setFillColor(_GREY)
    canvas.drawString(18 * mm, 12 * mm, words % {"page": canvas.getPageNumber()})
    canvas.restoreState()
