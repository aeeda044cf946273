"""Sessions and jobs in their states, borrowed from where they are tested, and a page reader."""

from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest

from fleet.accounts.models import User
from fleet.core import clock
from fleet.inventory.models import Device
from fleet.jobs import services as jobs
from fleet.jobs.models import Execution

# pytest finds fixtures by name in this module.
from tests.fleet.access.conftest import ask as ask
from tests.fleet.access.conftest import injector as injector
from tests.fleet.access.conftest import now as now
from tests.fleet.access.conftest import reach as reach
from tests.fleet.access.conftest import sign as sign
from tests.fleet.access.conftest import specialist_key as specialist_key


@pytest.fixture
def execution(owner: User, device: Device) -> Execution:
    """A queued run of the owner's job on `device`."""
    job = jobs.create(
        actor=owner, kind="collect-diagnostics", hours=24, devices=[device], now=clock.now()
    )
    return Execution.objects.select_related("device", "organisation").get(job=job)


class _Reader(HTMLParser):
    """Keeps each element with its attributes, and what stands inside script and style."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inside: list[tuple[str, str]] = []
        self._open = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open = tag

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open in ("script", "style") and data.strip():
            self.inside.append((self._open, data))


@pytest.fixture
def read() -> Callable[[Any], _Reader]:
    """read(response): its elements."""

    def make(response: Any) -> _Reader:
        reader = _Reader()
        reader.feed(response.content.decode())
        return reader

    return make
