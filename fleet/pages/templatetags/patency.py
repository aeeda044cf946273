"""What every template may use: icons, times, measured values, states in words."""

import json
import re
from datetime import UTC, datetime
from typing import Any

from django import template
from django.contrib.staticfiles.storage import staticfiles_storage
from django.utils.formats import date_format, number_format
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import ngettext, pgettext

from agent.wire.catalogue import ClinicalState, JobReason, SessionReason
from fleet.access import labels as access_labels
from fleet.accounts.models import Language
from fleet.audit import labels as audit_labels
from fleet.jobs import labels as job_labels
from fleet.pages.contacts import Contact, published
from fleet.telemetry import labels

register = template.Library()
_SPRITE = "vendor/tabler-icons/sprite.svg"
_APPROVER = re.compile(r"approver-([0-9]{1,2})")
_NO_BREAK = "\N{NO-BREAK SPACE}"


@register.simple_tag
def icon(name: str, label: str = "") -> SafeString:
    """An icon of the sprite. With a label it is an image; without, decoration beside words."""
    address = f"{staticfiles_storage.url(_SPRITE)}#{name}"
    if label:
        return format_html(
            '<svg class="icon" role="img" aria-label="{}"><use href="{}"></use></svg>',
            label,
            address,
        )
    return format_html(
        '<svg class="icon" aria-hidden="true" focusable="false"><use href="{}"></use></svg>',
        address,
    )


@register.simple_tag
def when(at: datetime | None, form: str = "short") -> SafeString | str:
    """A time: in UTC from here, in the reader's own zone once when.js has seen it.

    `form`: short, precise, time, date, relative, remaining, stamp (says the zone; for print).
    """
    if at is None:
        return "–"
    utc = at.astimezone(UTC)
    text = date_format(utc, "DATE_FORMAT") if form == "date" else _utc_text(utc, form)
    return format_html(
        '<time datetime="{}" title="{} UTC" data-form="{}">{}</time>',
        utc.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        utc.strftime("%Y-%m-%d %H:%M:%S"),
        form,
        text,
    )


def _utc_text(utc: datetime, form: str) -> str:
    clock = utc.strftime("%H:%M:%S" if form in ("precise", "time", "stamp") else "%H:%M")
    if form == "time":
        return f"{clock} UTC"
    return f"{date_format(utc, 'DATE_FORMAT')} {clock} UTC"


@register.filter
def place(row: Any) -> str:
    """The site of a row's device, unless the device has another owner since: then it is not for
    those who read this row, and the row keeps no other."""
    device = row.device
    return device.site.name if device.organisation_id == row.organisation_id else ""


@register.filter
def number(value: float | None, digits: int = 0) -> str:
    """A number in the reader's language; a dash for none."""
    if value is None:
        return "–"
    return number_format(value, decimal_pos=digits, use_l10n=True, force_grouping=True)


@register.filter
def metric_name(metric: str) -> str:
    """`Pressure · A` of `pressure_kpa_a`."""
    base, syringe = labels.split_metric(metric)
    known = labels.METRICS.get(base)
    name = str(known.name) if known else metric
    return f"{name} · {syringe.upper()}" if syringe else name


@register.filter
def metric_unit(metric: str) -> str:
    known = labels.METRICS.get(labels.split_metric(metric)[0])
    return str(known.unit) if known else ""


@register.filter
def metric_value(value: float | None, metric: str) -> str:
    """The value with its unit, in the reader's language."""
    base, _syringe = labels.split_metric(metric)
    known = labels.METRICS.get(base)
    if value is None or known is None:
        return "–"
    if base == "air_selftest":
        return _("Passed") if value >= 0.5 else _("Failed")
    text = number(value * known.scale, known.digits)
    return f"{text}{_NO_BREAK}{known.unit}" if known.unit else text


@register.filter
def event_name(code: int) -> str:
    """The event in words; one that this portal does not know by its number."""
    known = labels.EVENTS.get(code)
    return str(known) if known else _("Event %(code)s") % {"code": code}


@register.filter
def event_value(row: Any) -> str:
    """What the event was about, with its unit where the catalogue says which; empty for none."""
    metric = labels.EVENT_METRIC.get(row.code)
    if row.value is None or metric is None:
        return ""
    return metric_value(row.value, metric)


@register.filter
def priority_name(priority: str) -> str:
    return str(labels.PRIORITIES.get(priority, priority))


@register.filter
def state_name(state: str) -> str:
    """A clinical state in words; before the first report it is unknown."""
    return str(labels.CLINICAL_STATES.get(state) or _("Not known yet"))


@register.filter
def state_tone(state: str) -> str:
    """Which tone a clinical state's badge has: fault, service, use or rest."""
    if state == ClinicalState.FAULT:
        return "fault"
    if state == ClinicalState.SERVICE:
        return "service"
    if state in set(ClinicalState) and ClinicalState(state).in_use:
        return "use"
    return "rest"


@register.filter
def duration(seconds: float | None) -> str:
    """`1 h 30 min` of 5400 seconds."""
    if seconds is None:
        return "–"
    total = int(seconds)
    hours, minutes, rest = total // 3600, total // 60 % 60, total % 60
    units = (pgettext("unit", "h"), pgettext("unit", "min"), pgettext("unit", "s"))
    # Seconds are told only of what lasts less than an hour.
    amounts = (hours, minutes, 0 if hours else rest)
    parts = [
        f"{amount}{_NO_BREAK}{unit}" for amount, unit in zip(amounts, units, strict=True) if amount
    ]
    parts = parts or [f"0{_NO_BREAK}{units[-1]}"]
    return _NO_BREAK.join(parts)


@register.filter
def size(count: int | None) -> str:
    """A count of bytes with a unit that fits (powers of ten)."""
    if count is None:
        return "–"
    if count < 1000:
        return ngettext("%(count)s byte", "%(count)s bytes", count) % {"count": number(count)}
    units = (pgettext("unit", "kB"), pgettext("unit", "MB"), pgettext("unit", "GB"))
    amount = float(count)
    for unit in units:
        amount /= 1000
        if amount < 999.95 or unit == units[-1]:
            break
    return f"{number(amount, 1)}{_NO_BREAK}{unit}"


@register.simple_tag(takes_context=True)
def query(context: template.Context, **changes: Any) -> str:
    """The present address's query with some parameters changed; empty ones are left out."""
    params = context["request"].GET.copy()
    for name, value in changes.items():
        params.pop(name, None)
        if value not in (None, ""):
            params[name] = str(value)
    return f"?{params.urlencode()}"


@register.simple_tag(takes_context=True)
def here(context: template.Context, *names: str) -> SafeString | str:
    """`aria-current="page"` when one of the named routes is shown, or one below it."""
    match = getattr(context.get("request"), "resolver_match", None)
    if match is not None and match.url_name in names:
        return SafeString('aria-current="page"')
    return ""


@register.filter
def to_json(value: Any) -> str:
    """For a data attribute between single or double quotes: Django escapes both."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


@register.filter
def metric_plain(value: float | None, metric: str) -> str:
    """The value in the metric's unit, without it: for a column whose head names the unit."""
    known = labels.METRICS.get(labels.split_metric(metric)[0])
    if value is None or known is None:
        return "–"
    return number(value * known.scale, known.digits)


@register.filter
def metric_bare(values: dict[str, float], metric: str) -> str:
    """`metric_plain` of one of a sample's values."""
    return metric_plain(values.get(metric), metric)


@register.filter
def action_name(action: str) -> str:
    """An audited action in words; one without words as its code."""
    return str(audit_labels.ACTIONS.get(action, action))


@register.filter
def outcome_name(outcome: str) -> str:
    return str(audit_labels.OUTCOMES.get(outcome, outcome))


@register.filter
def actor_name(actor: str) -> str:
    """Who did it: a person by their user name, an approver by number, a program in words."""
    if approver := _APPROVER.fullmatch(actor):
        return _("Approver %(number)s") % {"number": approver[1]}
    return str(audit_labels.ACTORS.get(actor, actor))


@register.filter
def difference_text(code: str) -> str:
    return str(audit_labels.DIFFERENCES.get(code, code))


@register.filter
def reason_text(code: str) -> str:
    """A coded reason of a session, a job or the portal in words; another as its code."""
    if code in set(SessionReason):
        return str(access_labels.STATE_REASONS[SessionReason(code)])
    if code in set(JobReason):
        return str(job_labels.REASONS[JobReason(code)])
    return str(audit_labels.REASONS.get(code, code))


@register.simple_tag
def languages() -> list[tuple[str, str]]:
    """(code, name in itself) of each language there is."""
    return Language.choices


@register.simple_tag
def contacts() -> list[Contact]:
    """The three published contacts; no context is needed, so an error page has them too."""
    return published()
