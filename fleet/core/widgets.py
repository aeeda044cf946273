"""The inputs of the portal's forms, as the style sheet knows them."""

from django import forms


def text() -> forms.TextInput:
    """A line that browsers do not fill in by themselves."""
    return forms.TextInput(attrs={"class": "form-control", "autocomplete": "off"})


def number() -> forms.NumberInput:
    return forms.NumberInput(attrs={"class": "form-control", "autocomplete": "off"})


def date() -> forms.DateInput:
    return forms.DateInput(attrs={"class": "form-control", "type": "date"}, format="%Y-%m-%d")


def select() -> forms.Select:
    return forms.Select(attrs={"class": "form-select"})


def paragraph(*, rows: int, most: int) -> forms.Textarea:
    """Several lines; `most` characters."""
    return forms.Textarea(
        attrs={"class": "form-control", "autocomplete": "off", "rows": rows, "maxlength": most}
    )
