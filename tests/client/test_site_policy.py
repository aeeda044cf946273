"""The hospital's IT signs its policy; nobody else's machine is needed (R-ACC-7)."""

import json
from pathlib import Path
from typing import Any

import pytest

from agent.access import site
from agent.wire import site_policy as wire
from fleet.client import site_policy
from fleet.client.errors import ClientError
from tests.client.conftest import Command


@pytest.fixture
def folder(tmp_path: Path, command: Command) -> Path:
    command("site-policy", "new", tmp_path / "hospital")
    return tmp_path / "hospital"


def written(tmp_path: Path, policy: Any) -> Path:
    path = tmp_path / "policy.json"
    path.write_text(json.dumps(policy))
    return path


def test_an_injector_takes_what_was_signed(tmp_path: Path, folder: Path, command: Command) -> None:
    night = {"days": ["sun", "mon"], "begins": "22:00", "ends": "06:30", "os": "deny"}
    path = written(tmp_path, {"zone": "America/Toronto", "service": "ask", "hours": [night]})
    out = tmp_path / "signed.json"
    command("site-policy", "sign", path, "--site", folder, "--out", out)
    document = site.read_document(out.read_bytes())
    policy = document.verified()
    assert (policy.version, policy.zone, policy.service) == (1, "America/Toronto", "ask")
    assert policy.hours == [
        wire.Hours(days=[1, 7], begins=1320, ends=390, service=wire.Rule.ASK, os="deny")
    ]
    shown = json.loads(command("site-policy", "show", out).stdout)
    assert shown["fingerprint"] == document.fingerprint
    assert shown["version"] == 1


def test_each_signature_has_the_next_version(
    tmp_path: Path, folder: Path, command: Command
) -> None:
    path = written(tmp_path, {})
    texts = [command("site-policy", "sign", path, "--site", folder).stdout for _ in range(2)]
    documents = [site.read_document(json.dumps(json.loads(text)).encode()) for text in texts]
    assert [document.verified().version for document in documents] == [1, 2]


def test_the_key_is_made_once_and_is_private(folder: Path) -> None:
    with pytest.raises(ClientError):
        site_policy.new(folder)
    assert (folder / "site.key").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "policy",
    [
        [],
        {"os": "allow"},
        {"version": 9},
        {"remote": False},
        {"hours": [{"begins": "25:00", "ends": "06:00"}]},
        {"hours": [{"begins": "22:00", "ends": "06:00", "os": "allow"}]},
        {"hours": [{"days": ["sonntag"], "begins": "22:00", "ends": "06:00"}]},
    ],
)
def test_what_is_no_policy_is_not_signed(tmp_path: Path, policy: Any) -> None:
    with pytest.raises(ClientError, match="is no site policy"):
        site_policy.read(written(tmp_path, policy))


def test_a_signed_file_that_was_edited(tmp_path: Path, folder: Path) -> None:
    signed = site_policy.sign(folder, site_policy.read(written(tmp_path, {"os": "deny"})))
    other = site_policy.sign(folder, site_policy.read(written(tmp_path, {"os": "ask"})))
    path = tmp_path / "signed.json"
    path.write_text(json.dumps({**signed, "policy": other["policy"]}))
    with pytest.raises(ClientError, match="not signed"):
        site_policy.show(path)
