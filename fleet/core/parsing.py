"""What the API reads: JSON, whole and bounded, or an error in our own words."""

import json
from collections.abc import Mapping
from typing import IO, Any

from django.utils.translation import gettext as _
from rest_framework.exceptions import ParseError
from rest_framework.parsers import JSONParser

MAX_DEPTH = 16  # lists and objects in one another; no call of ours needs more than four


class BoundedJSONParser(JSONParser):
    """As the framework's, and whatever it gives can be handled further: it is not nested so deep
    that walking it fails, and all its text can be written as UTF-8 again."""

    def parse(
        self,
        stream: IO[Any],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        """Raises ParseError."""
        try:
            parsed = json.loads(stream.read().decode("utf-8"), parse_constant=_no_constant)
        except RecursionError as error:
            raise _too_deep() from error
        except json.JSONDecodeError as error:
            raise ParseError(
                _("This is not JSON: look at line %(line)d, column %(column)d. Send one object.")
                % {"line": error.lineno, "column": error.colno}
            ) from error
        except ValueError as error:  # no UTF-8, NaN, a number of thousands of digits
            raise ParseError(
                _("This is not JSON in UTF-8 with finite numbers. Write it anew and send it again.")
            ) from error
        _check(parsed)
        return parsed


def _no_constant(name: str) -> float:
    raise ValueError(name)


def _too_deep() -> ParseError:
    return ParseError(
        _("This is nested too deeply: at most %(most)d levels. Flatten it and send it again.")
        % {"most": MAX_DEPTH}
    )


def _check(parsed: Any) -> None:
    """Level by level, so that nothing of it can exhaust the stack."""
    level = [parsed]
    for _depth in range(MAX_DEPTH + 1):
        inner: list[Any] = []
        for value in level:
            if isinstance(value, str):
                _check_text(value)
            elif isinstance(value, list):
                inner.extend(value)
            elif isinstance(value, dict):
                for name in value:
                    _check_text(name)
                inner.extend(value.values())
        if not inner:
            return
        level = inner
    raise _too_deep()


def _check_text(text: str) -> None:
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:  # one half of a surrogate pair, such as "\ud800"
        raise ParseError(
            _("A text in this is no Unicode: it has half of a pair. Correct it and send it again.")
        ) from error
