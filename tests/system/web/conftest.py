"""The two engines, started once: node, and a page of the access origin in headless Chromium."""

import subprocess
from collections.abc import Iterator

import pytest

from tests.system.web.engines import DRIVER, Engine, in_node


@pytest.fixture(scope="session")
def node() -> Iterator[Engine]:
    with subprocess.Popen(
        ["node", "--no-warnings", str(DRIVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True,
    ) as process:  # fmt: skip
        try:
            yield in_node(process)
        finally:
            process.kill()


@pytest.fixture(params=["node"])
def engine(request: pytest.FixtureRequest) -> Engine:
    found: Engine = request.getfixturevalue(request.param)
    return found
