"""The form that makes a job for one injector or for all that a filter finds."""

from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from agent.wire.catalogue import JobKind
from fleet.core import widgets
from fleet.core.ids import new_hex32
from fleet.inventory.search import DeviceFilter
from fleet.jobs.labels import KINDS

# All that the form sends; a name beside these would narrow nothing down, whatever it was meant to.
SENT = {"csrfmiddlewaretoken", "kind", "hours", "once", "device", *DeviceFilter.__slots__}
HOURS = [
    (1, _("1 hour")),
    (8, _("8 hours")),
    (24, _("24 hours")),
    (72, _("3 days")),
    (168, _("7 days")),
]


class JobForm(forms.Form):
    """`devices` come beside it: one by id, or those of the filter's fields."""

    kind = forms.ChoiceField(
        label=_("What to do"),
        choices=[(kind.value, KINDS[kind]) for kind in JobKind],
        initial=JobKind.COLLECT_DIAGNOSTICS.value,
        widget=widgets.select(),
    )
    hours = forms.TypedChoiceField(
        label=_("How far back"),
        coerce=int,
        choices=HOURS,
        initial=24,
        help_text=_("Coded measurements and events of this time, and no free text."),
        widget=widgets.select(),
    )

    # Of this showing of the form: sent twice, by an impatient hand or a reload, it makes one job.
    once = forms.RegexField(
        r"\A[0-9a-f]{32}\Z",
        required=False,
        initial=new_hex32,
        widget=forms.HiddenInput,
        error_messages={"invalid": _("This form has been changed. Open “New job” again.")},
    )

    def cleaned(self) -> dict[str, Any]:
        return {name: self.cleaned_data[name] for name in ("kind", "hours", "once")}
