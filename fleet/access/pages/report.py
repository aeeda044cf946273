"""The service report that a hospital files: one source in words, shown as a page and as a PDF.

It names the specialist, who is the vendor's, and nobody else: an approver is a local number, and
whoever of the hospital acted is *the hospital* (R-PRV-1). Its times are UTC, so that a copy in a
binder and a copy on a screen say the same.
"""

from datetime import UTC, datetime

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.utils import translation
from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.views.decorators.http import require_safe

from fleet.access import selectors
from fleet.access.document import Document, Section, Tone, Verdict
from fleet.access.models import Session
from fleet.access.pages import pdf
from fleet.accounts.models import Language, Role, User
from fleet.core import clock
from fleet.pages.http import page, person, show
from fleet.pages.templatetags import patency as words


@page
@require_safe
def session_report(request: HttpRequest, session: str) -> HttpResponse:
    row = get_object_or_404(selectors.sessions_for(person(request)), pk=session)
    language = _language(request, row)
    context = {
        "session": row,
        "document": document(row, language, now=clock.now()),
        "language": language,
    }
    return show(request, "access/report.html", context)


@page
@require_safe
def session_report_pdf(request: HttpRequest, session: str) -> HttpResponse:
    row = get_object_or_404(selectors.sessions_for(person(request)), pk=session)
    now = clock.now()
    content = pdf.render(document(row, _language(request, row), now=now))
    name = f"patency-{row.device.serial}-{row.created_at:%Y%m%d-%H%M}.pdf"
    response = HttpResponse(content, content_type="application/pdf")
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


def _language(request: HttpRequest, session: Session) -> str:
    """The reader's choice, else the hospital's language."""
    asked = request.GET.get("language", "")
    return asked if asked in Language.values else session.organisation.language


def document(session: Session, language: str, *, now: datetime) -> Document:
    """The report in this language. It says the same in each, and for the same `now` the same."""
    with translation.override(language):
        report = selectors.report(session, now=now)
        sections = [Section(_("In short"), facts=_facts(report))]
        if session.handover:
            sections.append(
                Section(_("Handover note"), paragraphs=tuple(session.handover.split("\n")))
            )
        sections += [_chains(report), _record(report)]
        return Document(
            language="fr-CA" if language == Language.FR_CA else "en",
            title=_("Service report"),
            subtitle=_("Remote access to a contrast injector"),
            sections=sections,
            foot=_(
                "Made %(when)s. All times are UTC. Nothing of what was done inside the tunnel is "
                "kept outside the injector."
            )
            % {"when": _stamp(now)},
            page=_("Session %(session)s, page %(page)s")
            % {"session": session.pk, "page": "%(page)s"},
            keywords=(session.pk,),
        )


def _stamp(at: datetime | None) -> str:
    if at is None:
        return "–"
    utc = at.astimezone(UTC)
    return f"{date_format(utc, 'DATE_FORMAT')} {utc:%H:%M:%S} UTC"


def _facts(report: selectors.Report) -> list[tuple[str, str]]:
    session = report.session
    return [
        (_("Injector"), _injector(session)),
        (_("Where"), _where(session)),
        (
            _("Specialist"),
            f"{session.specialist.display_name} ({session.specialist.username}), "
            f"{session.specialist.organisation.name}",
        ),
        (_("Reason"), str(session.reason_label)),
        (_("Ticket"), _ticket(session)),
        (_("Note"), session.note or "–"),
        (_("Level and services"), f"{session.level_label} ({', '.join(session.services)})"),
        (_("Asked for"), _stamp(report.asked_at)),
        (_("Began"), _began(report)),
        (_("Over at"), _over(report)),
        (_("Result"), _result(session)),
        (_("Approval on site"), _approval(report)),
        (
            _("Carried, sealed"),
            _("%(up)s from the injector, %(down)s to it")
            % {"up": words.size(session.bytes_up), "down": words.size(session.bytes_down)},
        ),
        (_("Session"), session.pk),
    ]


def _injector(session: Session) -> str:
    device = session.device
    parts = [device.product_line.name, _("serial") + f" {device.serial}"]
    if device.asset_number and words.place(session):
        parts.append(_("asset") + f" {device.asset_number}")
    return ", ".join(parts)


def _where(session: Session) -> str:
    where = words.place(session)
    room = session.device.room if where else ""
    return ", ".join(part for part in (session.organisation.name, where, room) if part)


def _ticket(session: Session) -> str:
    if session.ticket:
        return session.ticket
    return _("ticket to follow") if session.ticket_owed else _("no ticket")


def _began(report: selectors.Report) -> str:
    text = _stamp(report.session.active_at)
    if report.waited is None:
        return text
    time = words.duration(report.waited.total_seconds())
    return text + " (" + _("%(time)s after the request") % {"time": time} + ")"


def _over(report: selectors.Report) -> str:
    ended_at = report.session.ended_at
    text = _stamp(ended_at) if ended_at else _("still open")
    if report.lasted is None:
        return text
    time = words.duration(report.lasted.total_seconds())
    return text + " (" + _("lasted %(time)s") % {"time": time} + ")"


def _result(session: Session) -> str:
    why = str(session.state_reason_label)
    return f"{session.state_label} – {why}" if why else str(session.state_label)


def _approval(report: selectors.Report) -> str:
    session = report.session
    if report.approved_by:
        text = _("approver %(number)s at the injector") % {"number": session.approver}
        if report.presence_proved:
            text += "; " + _("the injector’s signed receipt is on record")
        return text
    return _("not needed at this level") if session.active_at else _("none")


def _chains(report: selectors.Report) -> Section:
    timeline = report.timeline
    verdicts = [
        _verdict(
            timeline.server_bad,
            _("The portal’s chain verifies."),
            _("The portal’s chain does not verify: entry %(index)s is the first bad one."),
        ),
        _verdict(
            timeline.device_bad,
            _("The injector’s chain verifies."),
            _("The injector’s chain does not verify: entry %(index)s is the first bad one."),
        ),
    ]
    if not timeline.complete:
        text = _("The stretch is too long for this report: only its start was verified here.")
        verdicts.append(Verdict(Tone.OPEN, text))
    verdicts += [Verdict(Tone.OPEN, words.difference_text(c)) for c in timeline.differences]
    if timeline.agree:
        verdicts.append(Verdict(Tone.GOOD, _("Both tell the same story.")))
    server, device = selectors.heads(report.session)
    heads = [(_("Head of the portal’s chain"), server), (_("Head of the injector’s chain"), device)]
    return Section(
        _("Do the two records hold and agree?"),
        verdicts=verdicts,
        facts=[(label, _head(head)) for label, head in heads],
    )


def _verdict(bad: int | None, good_text: str, bad_text: str) -> Verdict:
    if bad is None:
        return Verdict(Tone.GOOD, good_text)
    return Verdict(Tone.BAD, bad_text % {"index": bad})


def _head(head: selectors.Head | None) -> str:
    if head is None:
        return _("not here yet")
    text = _("entry %(index)s, %(hash)s") % {"index": head.index, "hash": head.hash}
    return text + "; " + _("signed") if head.signed else text


def _record(report: selectors.Report) -> Section:
    staff = _hospital_staff(report)
    rows = [
        (
            _stamp(entry.at),
            _("Injector") if entry.side == "device" else _("Portal"),
            str(entry.index),
            _what(entry),
            _who(entry, report.session, staff),
            entry.hash[:12],
        )
        for entry in report.timeline.entries
    ]
    heads = (_("When"), _("Side"), _("Entry"), _("What"), _("Who"), _("Hash"))
    return Section(_("Record"), heads=heads, rows=rows, empty=_("Nothing is recorded yet."))


def _hospital_staff(report: selectors.Report) -> set[str]:
    """Of those who acted, who is not the vendor's: their names stay out of what is filed."""
    actors = {entry.actor for entry in report.timeline.entries}
    rows = User.objects.filter(username__in=actors, role=Role.HOSPITAL)
    return set(rows.values_list("username", flat=True))


def _what(entry: selectors.TimelineEntry) -> str:
    parts = [words.action_name(entry.action)]
    if entry.outcome != "allowed":
        parts.append(words.outcome_name(entry.outcome))
    if entry.reason:
        parts.append(words.reason_text(entry.reason))
    return " · ".join(parts)


def _who(entry: selectors.TimelineEntry, session: Session, staff: set[str]) -> str:
    if entry.actor == session.device_id:
        return session.device.serial
    if entry.actor in staff:
        return _("The hospital")
    return words.actor_name(entry.actor)
