"""The deny-list on disk. Requirements: R-CON-9."""

from pathlib import Path

import pytest

from broker.denied import DenyList
from broker.errors import NotStarted
from broker.link import store


def test_kept_whole_and_private(tmp_path: Path) -> None:
    assert store.load(tmp_path) == DenyList()
    denied = DenyList(devices=frozenset({"device-aaaa"}), certificates=frozenset({"AB", "1F"}))
    store.save(tmp_path, denied)
    assert store.load(tmp_path) == denied
    assert [each.name for each in tmp_path.iterdir()] == ["denied.json"]
    assert (tmp_path / "denied.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'{"v":1,"devices":[1]}'])
def test_one_that_cannot_be_read_keeps_the_gate_shut(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "denied.json").write_bytes(content)
    with pytest.raises(NotStarted, match=r"denied\.json cannot be read"):
        store.load(tmp_path)
