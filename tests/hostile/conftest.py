"""`stage`: everything real, and the check at the end that nothing got in."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fleet.accounts.models import User
from fleet.core import clock
from fleet.enrolment import ca, limits
from fleet.inventory.models import ProductLine, Site
from tests.hostile.stage import Process, Stage, doors
from tests.whole import whole

ORIGIN = "https://access.example.org"


@pytest.fixture
async def stage(
    request: pytest.FixtureRequest,
    record_property: Any,
    tmp_path: Path,
    settings: Any,
    transactional_db: None,
    owner: User,
    colleague: User,
    product_line: ProductLine,
    site: Site,
) -> AsyncIterator[Stage]:
    settings.PATENCY_ACCESS_ORIGIN = ORIGIN
    limits.enrolments.clear()
    ca.init(now=clock.now())
    async with (
        doors() as made,
        whole(
            tmp_path, settings, people=(owner, colleague), line=product_line, site=site,
            count=getattr(request, "param", 1), make=lambda state: Process(state, made),
        ) as here,
    ):  # fmt: skip
        stage = Stage(here, made)
        yield stage
        await stage.nothing_got_in()
        for line in stage.lines:
            line.close()
    assert stage.stopped, "an attack says what stopped it"
    record_property("way", " ".join((request.function.__doc__ or "").split()))
    record_property("stopped", "; ".join(stage.stopped))
