"""Many rows of one table in one statement, for where devices send thousands of messages a second.

Django's own `bulk_create` builds each row through its fields and is three times slower, which is
felt where everything behind a PUBACK waits for it. Use it for everything else.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from django.db import connection
from django.db.models import Model


class Insert:
    """`Insert(Event, "device", "code").many([("d-1", 103)])`. The values are what the database
    takes: keys for relations, `stored` times. Raises what the database raises."""

    def __init__(self, model: type[Model], *fields: str) -> None:
        self._model = model
        self._fields = fields
        self._sql = ""

    def many(self, rows: Sequence[tuple[Any, ...]]) -> None:
        if not rows:
            return
        if not self._sql:
            self._sql = self._build()
        with connection.cursor() as cursor:
            cursor.executemany(self._sql, rows)

    def _build(self) -> str:
        quote, meta = connection.ops.quote_name, self._model._meta
        known = {field.name: field.column for field in meta.concrete_fields}
        columns = ", ".join(quote(known[name] or name) for name in self._fields)
        places = ", ".join(["%s"] * len(self._fields))
        return f"INSERT INTO {quote(meta.db_table)} ({columns}) VALUES ({places})"  # noqa: S608


@lru_cache(4096)  # a message's time of arrival is in several rows
def stored(at: datetime) -> Any:
    """A time as the database takes it."""
    if at.tzinfo is UTC and _as_naive_text():
        return str(at.replace(tzinfo=None))
    return connection.ops.adapt_datetimefield_value(at)


@lru_cache(1)
def _as_naive_text() -> bool:
    """Whether Django would make a naive text of it (SQLite), at ten times the cost."""
    return connection.vendor == "sqlite" and connection.timezone is UTC
