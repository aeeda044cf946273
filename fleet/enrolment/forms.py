"""The form that moves an injector."""

from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from fleet.core import widgets
from fleet.inventory.models import Site


def _label(site: Site) -> str:
    return f"{site.organisation.name} · {site.name}"


class MoveForm(forms.Form):
    """Choices only; inventory.departures.move decides what is allowed."""

    site = forms.ModelChoiceField(
        label=_("To site"),
        queryset=Site.objects.none(),
        widget=widgets.select(),
    )
    room = forms.CharField(
        label=_("Room"),
        required=False,
        max_length=32,
        widget=widgets.text(),
    )
    asset_number = forms.CharField(
        label=_("Asset number"),
        required=False,
        max_length=32,
        widget=widgets.text(),
    )

    def __init__(self, *args: Any, sites: Any, **kwargs: Any) -> None:
        """`sites`: those that the person may choose."""
        super().__init__(*args, **kwargs)
        fields: dict[str, Any] = self.fields
        fields["site"].queryset = sites
        fields["site"].label_from_instance = _label
