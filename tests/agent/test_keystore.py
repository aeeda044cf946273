"""A key that is damaged is named, without a programmer's words, with a way out to be pasted."""

import subprocess
from pathlib import Path

import pytest

from agent import identity, keystore
from agent.errors import StateError
from agent.keystore import Slot
from tests.agent.support import enrolled
from tests.tls import Authority


def spoil(path: Path) -> None:
    path.write_bytes(b"-----BEGIN PRIVATE KEY-----\nrubbish\n-----END PRIVATE KEY-----\n")
    path.chmod(0o600)


def test_a_damaged_key_is_put_aside_as_advised_and_a_new_one_is_born(tmp_path: Path) -> None:
    """R-CON-2: then the injector enrols by itself, with the new bundle that the text asks for."""
    state = enrolled(tmp_path / "CT 2", Authority(), 1)
    spoil(state / "device.key")
    with pytest.raises(StateError) as caught:
        identity.load(state)
    text = str(caught.value)
    assert f"{state}/device.key is damaged" in text
    assert "http" not in text
    command = text[text.index("mkdir -p") : text.index("  Then start")]
    subprocess.run(["sh", "-c", command], check=True)
    assert {path.name for path in (state / "aside").iterdir()} == {"device.key", "device.pem"}
    assert identity.load(state) is None
    assert keystore.of(state).make(Slot.CURRENT).public_key()


def test_a_damaged_key_of_a_renewal_is_in_nobodys_way(tmp_path: Path) -> None:
    state = enrolled(tmp_path / "state", Authority(), 1)
    spoil(state / "device-next.key")
    with pytest.raises(StateError) as caught:
        keystore.of(state).get(Slot.NEXT)
    command = str(caught.value).rpartition(": ")[2]
    subprocess.run(["sh", "-c", command], check=True)
    assert identity.load(state) is not None


def test_another_damaged_key_is_for_support(tmp_path: Path) -> None:
    spoil(tmp_path / "audit.key")
    with pytest.raises(StateError, match="call device support"):
        keystore.read_private(tmp_path / "audit.key")
