"""Fields of the API that the framework lacks."""

import base64
import binascii

from django.utils.translation import gettext_lazy as _
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers


@extend_schema_field(OpenApiTypes.BYTE)
class Base64Field(serializers.Field[bytes, str, str, bytes]):
    """Bytes as base64. `max_length` bounds the bytes."""

    default_error_messages = {
        "base64": _("This is not base64. Encode the bytes again."),
        "length": _("This is too long: at most {max_length} bytes."),
    }

    def __init__(self, *, max_length: int = 4096, **kwargs: object) -> None:
        super().__init__(**kwargs)  # type: ignore[arg-type]
        self.max_length = max_length

    def to_internal_value(self, data: object) -> bytes:
        try:
            if not isinstance(data, str):
                raise ValueError("not text")  # noqa: TRY004  (one error for both)
            decoded = base64.b64decode(data, validate=True)
        except (ValueError, binascii.Error):
            self.fail("base64")
        if len(decoded) > self.max_length:
            self.fail("length", max_length=self.max_length)
        return decoded

    def to_representation(self, value: bytes) -> str:
        return base64.b64encode(bytes(value)).decode()
