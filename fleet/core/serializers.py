"""What every serializer that writes is made of."""

from collections.abc import Mapping
from typing import Any

from django.utils.translation import gettext as _
from rest_framework import serializers

_SHOWN = 64  # characters of a name that we do not know


class StrictSerializer(serializers.Serializer[Any]):
    """Refuses fields that it does not know: a misspelt one would be dropped, and what it was to
    narrow down would be done to everything."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, Mapping):
            unknown = [str(name) for name in data if name not in self.fields]
            if unknown:
                known = ", ".join(
                    name for name, field in self.fields.items() if not field.read_only
                )
                text = _("There is no such field. The fields are: %(fields)s.") % {"fields": known}
                raise serializers.ValidationError({n[:_SHOWN]: [text] for n in unknown[:8]})
        return super().to_internal_value(data)
