"""The form that makes a job for one injector or for all that a filter finds."""

from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from agent.wire.catalogue import JobKind
from fleet.jobs.labels import KINDS

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
        widget=forms.Select(attrs={"class": "form-select"}),
    )
    hours = forms.TypedChoiceField(
        label=_("How far back"),
        coerce=int,
        choices=HOURS,
        initial=24,
        help_text=_("Coded measurements and events of this time, and no free text."),
        widget=forms.Select(attrs={"class": "form-select"}),
    )

    def cleaned(self) -> dict[str, Any]:
        return {"kind": self.cleaned_data["kind"], "hours": self.cleaned_data["hours"]}
