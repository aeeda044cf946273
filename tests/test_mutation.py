"""The table of defences that `make mutation` removes: each line still fits the code and the tests.

The run itself takes minutes and is not part of `make test`.
"""

from pathlib import Path

import pytest

from tests.mutation import ROOT, TABLE, Mutation
from tests.mutation.__main__ import caught, copy, main


@pytest.mark.parametrize("mutation", TABLE, ids=lambda mutation: mutation.name)
def test_each_line_fits(mutation: Mutation) -> None:
    text = (ROOT / mutation.file).read_text()
    assert mutation.old in text, "the defence has moved: bring tests/mutation/ up to date"
    compile(text.replace(mutation.old, mutation.new), mutation.file, "exec")
    for test in mutation.tests:
        file, _, name = test.partition("::")
        assert f"def {name}(" in (ROOT / file).read_text(), test


def test_no_line_twice() -> None:
    assert len({mutation.name for mutation in TABLE}) == len(TABLE) >= 10


def test_one_for_real(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Caught where a test watches, and not where none does."""
    assert main(["no will"]) == 0
    assert "caught          no will" in capsys.readouterr().out
    copy(tmp_path)
    unwatched = Mutation(
        "nobody looks",
        "broker/packets.py",
        "if flags & 0x3C:",
        "if False:",
        ("tests/broker/test_packets.py::test_a_packet_too_long_to_say",),
    )
    assert caught(unwatched, tmp_path) is False
    assert "if flags & 0x3C:" in (tmp_path / "broker/packets.py").read_text()
