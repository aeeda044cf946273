"""Many rows in one statement (R-CON-5)."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from django.db import connection

from fleet.core.rows import stored


@pytest.mark.parametrize(
    "at",
    [
        datetime(2026, 11, 24, 18, 0, tzinfo=UTC),
        datetime(2026, 11, 24, 18, 0, 1, 250_000, tzinfo=UTC),
        datetime(1, 1, 1, 0, 0, 0, 1, tzinfo=UTC),
        datetime(2026, 11, 24, 18, 0, tzinfo=timezone(timedelta(hours=-5))),
    ],
)
def test_a_time_is_stored_as_django_would(at: datetime) -> None:
    assert stored(at) == connection.ops.adapt_datetimefield_value(at)
