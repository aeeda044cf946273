"""What every event of a storm is written to (R-CON-5, R-MNT-5)."""

import pytest
from django.db import connection
from django.db.models import Model

from fleet.mqtt.models import Decision
from fleet.telemetry.models import Event


@pytest.mark.django_db
@pytest.mark.parametrize("model", [Decision, Event])
def test_no_index_that_another_begins_with(model: type[Model]) -> None:
    """It would answer nothing that the other does not, and be written for each row."""
    with connection.cursor() as cursor:
        found = connection.introspection.get_constraints(cursor, model._meta.db_table)
    indexes = [tuple(each["columns"]) for each in found.values() if each["index"] or each["unique"]]
    assert indexes
    for index in indexes:
        assert not [other for other in indexes if other != index and other[: len(index)] == index]
    keys = {field.column for field in model._meta.fields if field.is_relation}
    assert keys <= {index[0] for index in indexes}  # whose rows these are is found at once
