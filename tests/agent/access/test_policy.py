"""The site's policy: safe without a file, shut with a bad one (R-ACC-6, R-CON-9)."""

import stat
from pathlib import Path

import pytest

from agent.access import policy
from agent.access.policy import Policy, PolicyError, Rule
from agent.wire.catalogue import Level


def test_without_a_file_os_asks_and_the_rest_is_allowed(tmp_path: Path) -> None:
    found = policy.load(tmp_path)
    assert found == Policy()
    assert [found.rule(level) for level in Level] == [Rule.ALLOW, Rule.ALLOW, Rule.ASK]
    assert found.remote
    assert found.sessions == 1


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b'{"v": 2}',
        b'{"os": "allow"}',
        b'{"service": "maybe"}',
        b'{"approval_wait_s": 0}',
        b'{"approval_wait_s": 601}',
        b'{"renewal_s": 86400}',
        b'{"remote": "yes"}',
        b'{"allow_everything": true}',
        b"\xff\xfe",
    ],
)
def test_a_file_that_cannot_be_read_shuts_the_door(tmp_path: Path, data: bytes) -> None:
    (tmp_path / policy.FILE).write_bytes(data)
    found = policy.load(tmp_path)
    assert found is policy.CLOSED
    assert not found.remote
    assert {found.rule(level) for level in Level} == {Rule.DENY}


def test_what_is_saved_is_loaded_and_private(tmp_path: Path) -> None:
    new = policy.change(Policy(), {"service": "ask", "approval_wait_s": 120, "in_use": "end"})
    policy.save(tmp_path, new)
    assert policy.load(tmp_path) == new
    assert new.rule(Level.SERVICE) is Rule.ASK
    assert stat.S_IMODE((tmp_path / policy.FILE).stat().st_mode) == 0o600


def test_a_change_that_makes_no_sense(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="allow"):
        policy.change(Policy(), {"os": "allow"})
