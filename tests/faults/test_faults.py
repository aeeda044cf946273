"""Every experiment keeps its pass mark (R-CON-4, R-CON-5, R-MNT-6); `make faults` runs them."""

from pathlib import Path

import pytest

from tests import faults
from tests.faults import Experiment
from tests.faults.__main__ import ROW, row, written


@pytest.mark.faults
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("each", faults.load(), ids=lambda each: each.name)
def test_experiment(each: Experiment, tmp_path: Path) -> None:
    print(each.run(tmp_path))


def _experiment(name: str) -> Experiment:
    return Experiment(name, "fault", "must", lambda folder: "")


def test_a_row_that_was_measured_replaces_the_old_one_and_the_others_stay() -> None:
    names = faults.ORDER[2], faults.ORDER[0]
    page = written("", {name: row(_experiment(name), "first") for name in names})
    assert [found[1] for found in ROW.finditer(page)] == sorted(names, key=faults.ORDER.index)
    again = written(page, {names[0]: row(_experiment(names[0]), "second")})
    assert (again.count("first"), again.count("second")) == (1, 1)
    assert again.startswith("# ")


def test_every_experiment_has_its_place() -> None:
    assert len({each.name for each in faults.load()}) == len(faults.load())
    assert {each.name for each in faults.load()} <= set(faults.ORDER)
