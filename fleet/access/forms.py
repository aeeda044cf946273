"""The form that asks for access to one injector."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from agent.wire.catalogue import Level
from fleet.access.labels import LEVELS, REASONS
from fleet.core import widgets

LIVES = [
    (15, _("15 minutes")),
    (30, _("30 minutes")),
    (60, _("1 hour")),
    (120, _("2 hours")),
    (240, _("4 hours")),
    (480, _("8 hours")),
]
LEVEL_HELP = {
    Level.DIAGNOSTICS: _("Read measurements and logs. Nothing on the injector changes."),
    Level.SERVICE: _("Use the injector’s service pages. No shell, no files."),
    Level.OS: _("A shell, a screen or files. Somebody at the injector must approve."),
}


class RequestForm(forms.Form):
    """Choices only; access.services.request decides what is allowed."""

    level = forms.ChoiceField(label=_("Level"), widget=forms.RadioSelect)
    services = forms.MultipleChoiceField(label=_("Services"), widget=forms.CheckboxSelectMultiple)
    reason = forms.ChoiceField(label=_("Reason"), widget=widgets.select())
    ticket = forms.CharField(
        label=_("Ticket"),
        required=False,
        max_length=32,
        help_text=_("Letters, digits and “-”. Leave it empty if it is to follow."),
        widget=widgets.text(),
    )
    note = forms.CharField(
        label=_("Note for the technologist"),
        required=False,
        max_length=200,
        help_text=_("Shown at the injector, at most 200 characters. Nothing about a patient."),
        widget=widgets.text(),
    )
    minutes = forms.TypedChoiceField(
        label=_("For how long"),
        coerce=int,
        initial=30,
        widget=widgets.select(),
    )

    def __init__(self, *args: Any, offered: Mapping[str, str], **kwargs: Any) -> None:
        """`offered`: the device's services and the level each needs."""
        super().__init__(*args, **kwargs)
        fields: dict[str, Any] = self.fields
        levels = [level for level in Level if any(level.covers(Level(n)) for n in offered.values())]
        fields["level"].choices = [(level.value, LEVELS[level]) for level in levels or Level]
        fields["services"].choices = [(name, name) for name in sorted(offered)]
        fields["reason"].choices = [
            ("", _("Choose one")),
            *((r.value, t) for r, t in REASONS.items()),
        ]
        fields["minutes"].choices = LIVES
        self.offered = dict(offered)

    @property
    def levels(self) -> list[tuple[str, Any, Any, bool]]:
        """(value, name, help, checked) of each level, for the template."""
        chosen = self["level"].value()
        fields: dict[str, Any] = self.fields
        return [
            (value, name, LEVEL_HELP[Level(value)], value == chosen)
            for value, name in fields["level"].choices
        ]

    @property
    def service_choices(self) -> list[tuple[str, str, Any, bool]]:
        """(name, level needed, its name, checked) of each service, for the template."""
        chosen = self["services"].value() or []
        return [
            (name, needed, LEVELS[Level(needed)], name in chosen)
            for name, needed in sorted(self.offered.items())
        ]

    @property
    def life(self) -> timedelta:
        return timedelta(minutes=self.cleaned_data["minutes"])
