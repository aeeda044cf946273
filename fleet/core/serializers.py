"""What every serializer that writes is made of."""

from collections.abc import Mapping
from typing import Any

from django.utils.translation import gettext as _
from rest_framework import serializers

_SHOWN = 64  # characters of a name that we do not know
_TOLD = 8  # unknown names


class Strict:
    """Put before a serializer class: refuses fields that nobody can write. A misspelt one would be
    dropped, and what it was to narrow down would be done to everything."""

    fields: Any

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, Mapping):
            known = [name for name, field in self.fields.items() if not field.read_only]
            unknown = [str(name)[:_SHOWN] for name in data if name not in known]
            if unknown:
                text = _("There is no such field. The fields are: %(fields)s.") % {
                    "fields": ", ".join(known)
                }
                raise serializers.ValidationError({name: [text] for name in unknown[:_TOLD]})
        return super().to_internal_value(data)  # type: ignore[misc]  # the serializer's


class StrictSerializer(Strict, serializers.Serializer[Any]):
    """For what is no row."""
