"""The forms of an access server. What is allowed, fleet.servers.services decides."""

from django import forms
from django.utils.translation import gettext_lazy as _

from fleet.core import widgets


class ChangeForm(forms.Form):
    """What may change without another access server."""

    place = forms.CharField(
        label=_("Place"),
        max_length=80,
        help_text=_("Town and country, as hospitals read it."),
        widget=widgets.text(),
    )
    region = forms.CharField(label=_("Region"), max_length=32, widget=widgets.text())
    link = forms.CharField(
        label=_("Link"),
        max_length=270,
        help_text=_("Where the portal reaches it, as host:port. Not for hospitals."),
        widget=widgets.text(),
    )
    position = forms.IntegerField(
        label=_("Order"),
        min_value=0,
        max_value=32767,
        initial=100,
        help_text=_("Injectors try the lowest first."),
        widget=widgets.number(),
    )


class AddForm(ChangeForm):
    name = forms.CharField(
        label=_("Name"),
        max_length=32,
        help_text=_("Lower-case letters, digits and “-”, at most 32."),
        widget=widgets.text(),
    )
    host = forms.CharField(
        label=_("Host"),
        max_length=253,
        help_text=_("What injectors connect to. It cannot change later."),
        widget=widgets.text(),
    )
    address = forms.GenericIPAddressField(
        label=_("Static address"),
        help_text=_("For firewalls that go by addresses. It cannot change later."),
        widget=widgets.text(),
    )
    port = forms.IntegerField(
        label=_("Port"),
        min_value=1,
        max_value=65535,
        initial=443,
        widget=widgets.number(),
    )
    listed_on = forms.DateField(
        label=_("In use from"),
        help_text=_("Published at once; injectors are sent there from this day on."),
        widget=widgets.date(),
    )
    field_order = [
        "name", "host", "address", "port", "place", "region", "link", "position", "listed_on",
    ]  # fmt: skip


class RetireForm(forms.Form):
    unlisted_on = forms.DateField(
        label=_("Not needed from"),
        help_text=_("Hospitals may close their firewall to it from this day on."),
        widget=widgets.date(),
    )
