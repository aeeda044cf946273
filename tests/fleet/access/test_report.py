"""The service report that a hospital files, as page and as PDF (R-ACC-10, R-PRV-1, R-ASR-4)."""

import html
import io
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.test import Client
from pypdf import PdfReader

from agent.wire.catalogue import SessionState
from fleet.access import afterwards, services
from fleet.access.models import Session
from fleet.access.pages import pdf
from fleet.access.pages.report import document
from fleet.accounts.models import User
from fleet.audit.models import Entry

S = SessionState
Browser = Callable[[User], Client]
Reach = Callable[..., Session]


@pytest.fixture
def ended(reach: Reach, owner: User, member: User, now: datetime) -> Session:
    """Worked in for a while, then ended by the hospital's IT; with a handover note."""
    member.first_name, member.last_name = "Maude", "Tremblay"
    member.save()
    session = reach(S.ACTIVE, ticket="T-77")
    text = "Capteur B remplacé.\nÀ revoir : dérive <b>lente</b> – œil sur la pression."
    afterwards.write_handover(actor=owner, session=session, text=text, now=now)
    Session.objects.update(bytes_up=12_345_678, bytes_down=4_321)
    session.refresh_from_db()
    services.end(actor=member, session=session, now=now + timedelta(minutes=12))
    session.refresh_from_db()
    return session


def words_of(session: Session, language: str, now: datetime) -> list[str]:
    made = document(session, language, now=now)
    words = [made.title, made.subtitle, made.foot]
    for section in made.sections:
        words += [section.title, *(verdict.text for verdict in section.verdicts)]
        words += [line for line in section.paragraphs if line]
        words += [part for fact in section.facts for part in fact]
        words += [*section.heads, *(cell for row in section.rows for cell in row)]
    return words


def squeezed(text: str) -> str:
    """Without spaces: lines are broken wherever they are full."""
    return re.sub(r"\s", "", text)


def read(content: bytes) -> PdfReader:
    return PdfReader(io.BytesIO(content))


@pytest.mark.parametrize(("language", "tag"), [("en", "en"), ("fr-ca", "fr-CA")])
def test_page_and_pdf_say_the_same_words(
    ended: Session, owner: User, browser: Browser, language: str, tag: str, now: datetime
) -> None:
    at = now + timedelta(hours=1)
    made = read(pdf.render(document(ended, language, now=at)))
    in_pdf = squeezed("".join(page.extract_text() for page in made.pages))
    page = browser(owner).get(f"/access/{ended.pk}/report/?language={language}").content.decode()
    on_page = squeezed(html.unescape(re.sub(r"<[^>]*>", " ", page)))
    foot = document(ended, language, now=at).foot  # which says when, and the page is made now
    for words in words_of(ended, language, at):
        assert squeezed(words) in in_pdf, words
        if words != foot:
            assert squeezed(words) in on_page, words
    root: Any = made.trailer["/Root"]
    assert root["/Lang"] == tag
    assert f'lang="{tag}"' in page


def test_it_says_who_why_what_when_and_how_it_ended(ended: Session, now: datetime) -> None:
    text = "\n".join(words_of(ended, "en", now))
    for words in (
        "Olga Owner (owner), Vendor", "Repair", "T-77", "Operating system (ssh)",
        "12.3\N{NO-BREAK SPACE}MB from the injector", "Ended by the hospital",
        "approver 1 at the injector; the injector’s signed receipt is on record",
        "The portal’s chain verifies.", "The injector’s own record has not arrived yet.",
    ):  # fmt: skip
        assert words in text, words
    last = Entry.objects.filter(organisation=ended.organisation_id).order_by("-index")[0]
    assert f"entry {last.index}, {last.hash}" in text


def test_nobody_of_the_hospital_is_named(ended: Session, member: User, now: datetime) -> None:
    """R-PRV-1: what is filed and passed on says *the hospital* and *approver 1*."""
    for language, word in (("en", "The hospital"), ("fr-ca", "L’hôpital")):
        text = "\n".join(words_of(ended, language, now))
        assert word in text
        for name in (member.username, "Maude", "Tremblay"):
            assert name not in text
        everything = pdf.render(document(ended, language, now=now))
        assert "Tremblay" not in "".join(p.extract_text() for p in read(everything).pages)


def test_a_chain_that_was_changed_is_said_in_the_report(ended: Session, now: datetime) -> None:
    row = Entry.objects.filter(session=ended.pk).order_by("index")[1]
    Entry.objects.filter(pk=row.pk).update(entry={**row.entry, "actor": "nobody"})
    text = "\n".join(words_of(ended, "en", now))
    assert f"entry {row.index} is the first bad one" in text
    assert "The portal’s chain verifies." not in text


def test_its_language_is_the_hospitals_unless_the_reader_chooses(
    ended: Session, owner: User, browser: Browser
) -> None:
    client, path = browser(owner), f"/access/{ended.pk}/"
    assert "<h1>Service report</h1>" in client.get(f"{path}report/").content.decode()
    ended.organisation.language = "fr-ca"
    ended.organisation.save()
    french = client.get(f"{path}report/").content.decode()
    assert "<h1>Rapport d’intervention</h1>" in french
    assert '<html lang="en">' in french  # the page around it stays the reader's
    for query in ("language=en", "language=xx"):
        text = client.get(f"{path}report.pdf?{query}")
        title: Any = read(text.content).metadata
        expected = "Service report" if query == "language=en" else "Rapport d’intervention"
        assert title.title == expected


def test_the_file_is_the_same_each_time_and_embeds_its_fonts(
    ended: Session, now: datetime, member: User, browser: Browser
) -> None:
    made = document(ended, "fr-ca", now=now)
    assert pdf.render(made) == pdf.render(made)
    fonts = [
        font.get_object()
        for page in read(pdf.render(made)).pages
        for font in page["/Resources"]["/Font"].values()
    ]
    embedded = [f for f in fonts if "/FontFile2" in f.get("/FontDescriptor", {})]
    assert {f["/BaseFont"].split("+")[1] for f in embedded} == {
        "BitstreamVeraSans-Roman", "BitstreamVeraSans-Bold",
    }  # fmt: skip
    answer = browser(member).get(f"/access/{ended.pk}/report.pdf")
    assert answer.headers["Content-Type"] == "application/pdf"
    assert ended.device.serial in answer.headers["Content-Disposition"]
    assert "no-store" in answer.headers["Cache-Control"]


def test_text_is_never_markup_and_what_the_font_lacks_is_said(
    ended: Session, now: datetime
) -> None:
    Session.objects.update(handover="<img src='/etc/passwd'/> Иван & co")
    ended.refresh_from_db()
    content = pdf.render(document(ended, "en", now=now))
    text = "".join(page.extract_text() for page in read(content).pages)
    assert "<img src='/etc/passwd'/> ???? & co" in text
    assert "the portal’s page has them" in text.replace("\n", " ")
