"""What the portal looks at before it serves with it."""

from pathlib import Path

import pytest

from fleet.core import clock
from fleet.core.errors import Conflict
from fleet.enrolment import ca, ceremony, soundness

FILES = [
    "audit.key", "device-ca.key", "device-ca.pem", "device-root.pem", "server-ca.key",
    "server-ca.pem", "server.key", "server.pem",
]  # fmt: skip


@pytest.fixture
def folder(portal_data: Path) -> Path:
    ca.init(now=clock.now())
    return portal_data / "ca"


def test_whole_files_are_sound_and_none_are_nothing_to_check(portal_data: Path) -> None:
    soundness.check()
    ca.init(now=clock.now())
    assert sorted(path.name for path in (portal_data / "ca").iterdir()) == FILES
    soundness.check()


@pytest.mark.parametrize("garbage", [b"", b"garbage", bytes(range(256))])
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_named_with_the_remedy(folder: Path, name: str, garbage: bytes) -> None:
    (folder / name).write_bytes(garbage)
    remedy = "renew-server" if name.startswith("server.") else "Restore it from a backup"
    with pytest.raises(Conflict, match=rf"{name} is missing or damaged.*{remedy}"):
        soundness.check()


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(Conflict, match=rf"{name} is missing"):
        soundness.check()


def test_a_key_that_is_lost_while_the_next_is_asked_for_is_named(folder: Path) -> None:
    ceremony.ask()
    (folder / "device-ca.key").unlink()
    with pytest.raises(Conflict, match=r"device-ca\.key is missing"):
        soundness.check()


def test_a_key_of_another_certificate_is_named(folder: Path) -> None:
    (folder / "server.key").write_bytes((folder / "device-ca.key").read_bytes())
    with pytest.raises(Conflict, match=r"server\.key"):
        soundness.check()


def test_keys_open_to_others_are_closed_and_that_is_said(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """R-CON-6, R-PRV-1."""
    keys = sorted(folder.glob("*.key"))
    for path in keys:
        path.chmod(0o644)
    soundness.check()
    assert {path.stat().st_mode & 0o777 for path in keys} == {0o600}
    assert all(str(path) in caplog.text for path in keys)
    assert "replace it" in caplog.text
    caplog.clear()
    soundness.check()
    assert caplog.text == ""
