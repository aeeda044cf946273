"""The trust ceremony and the specialist's key: outside the portal, without it (R-ACC-4)."""

import base64
import json
import os
import pty
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from agent.wire import entitlement, roster, sshsig
from agent.wire.catalogue import Level, ProductLineCode
from fleet.client import trust
from fleet.client.errors import ClientError
from tests.agent.access.authenticator import Authenticator, SecurityKey
from tests.client.conftest import Command

NOW = int(datetime.now(UTC).timestamp() * 1000)


def member(**changes: Any) -> dict[str, Any]:
    return {
        "id": "noor", "name": "Noor Haddad", "keys": [base64.b64encode(bytes(32)).decode()],
        "level": "os", "patient_data": True, "product_lines": ["ct-multi", "mr-dual"],
        "until": "2030-06-30",
    } | changes  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, command: Command) -> Path:
    command("trust", "new", tmp_path / "trust")
    return tmp_path / "trust"


def members_file(tmp_path: Path, *members: dict[str, Any]) -> Path:
    path = tmp_path / "members.json"
    path.write_text(json.dumps(members))
    return path


def signed_by(folder: Path, text: bytes) -> roster.Roster:
    given = json.loads(text)
    raw = base64.b64decode((folder / "trust.pub").read_text())
    return roster.verify(
        base64.b64decode(given["roster"]),
        base64.b64decode(given["signature"]),
        trust_key=Ed25519PublicKey.from_public_bytes(raw),
        version=0,
        now=NOW,
    )


def test_a_trust_key_is_made_once(folder: Path, command: Command) -> None:
    assert (folder / "trust.key").stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    before = (folder / "trust.key").read_bytes()
    assert "not replaced" in command("trust", "new", folder, expect=1).stderr.decode()
    assert (folder / "trust.key").read_bytes() == before


def test_a_signed_roster_is_what_a_device_believes(
    folder: Path, command: Command, tmp_path: Path
) -> None:
    path = members_file(tmp_path, member())
    done = command(
        "trust", "sign", "--trust", folder, "--members", path, "-o", tmp_path / "r.json", "--yes"
    )
    assert "SHA256:" in done.stderr.decode()  # to be compared out of band
    first = signed_by(folder, (tmp_path / "r.json").read_bytes())
    (one,) = first.members
    assert (one.id, one.keys, one.level) == ("noor", [sshsig.public_blob(bytes(32))], Level.OS)
    assert one.product_lines == [ProductLineCode.CT_MULTI, ProductLineCode.MR_DUAL]
    assert datetime.fromtimestamp(one.until / 1000, UTC).date().isoformat() == "2030-06-30"
    assert first.expires_at - first.issued_at == 7 * 24 * 3600 * 1000
    second = signed_by(
        folder, command("trust", "sign", "--trust", folder, "--members", path).stdout
    )
    assert (first.version, second.version) == (1, 2)


@pytest.mark.parametrize(
    "members",
    [
        [member(), member()],
        [member(keys=[])],
        [member(keys=["AAAA"])],
        [member(level="root")],
        [member(until="next year")],
        [member(product_lines=["x"])],
        [member(also=1)],
    ],
)
def test_bad_members_sign_nothing(
    folder: Path, command: Command, tmp_path: Path, members: list[dict[str, Any]]
) -> None:
    path = members_file(tmp_path, *members)
    command("trust", "sign", "--trust", folder, "--members", path, "--yes", expect=1)
    assert not (folder / "version").exists()


def test_a_fingerprint_is_compared_once_and_again_when_it_changes_hands(
    folder: Path, command: Command, tmp_path: Path
) -> None:
    """R-ACC-4: nobody signs a key in that was not compared; nobody compares it every week."""

    def sign(*members: dict[str, Any], expect: int, yes: bool = False) -> str:
        path = members_file(tmp_path, *members)
        more = ["--yes"] if yes else []
        done = command("trust", "sign", "--trust", folder, "--members", path, *more, expect=expect)
        return done.stderr.decode()

    told = sign(member(), expect=1)
    assert "not signed before" in told
    assert "Noor Haddad" in told
    assert not (folder / "version").exists()
    sign(member(), expect=0, yes=True)
    sign(member(name="Noor H."), expect=0)
    assert "not signed before" in sign(member(id="mallory"), expect=1)
    second = base64.b64encode(b"\x01" * 32).decode()
    assert "not signed before" in sign(member(keys=[*member()["keys"], second]), expect=1)
    (folder / "checked.json").write_text("what")
    assert "compare every fingerprint" in sign(member(), expect=1)


def test_at_a_terminal_each_new_fingerprint_is_asked_for(folder: Path, tmp_path: Path) -> None:
    path = members_file(tmp_path, member())
    for answer, code in ((b"n\n", 1), (b"y\n", 0)):
        person, terminal = pty.openpty()
        with subprocess.Popen(
            [sys.executable, "-m", "fleet.client.main", "trust", "sign", "--trust", folder,
             "--members", path],
            stdin=terminal, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        ) as process:  # fmt: skip
            os.write(person, answer)
            assert process.stderr is not None
            asked = process.stderr.read().decode()
            assert process.wait(30) == code
        os.close(person)
        os.close(terminal)
        assert "Has Noor Haddad read out SHA256:" in asked


def test_os_without_patient_data_is_no_grant(
    folder: Path, command: Command, tmp_path: Path
) -> None:
    path = members_file(tmp_path, member(patient_data=False))
    done = command("trust", "sign", "--trust", folder, "--members", path, "--yes", expect=1)
    assert "patient_data" in done.stderr.decode()


def test_keys_and_passkeys_of_every_kind_are_signed_in(
    folder: Path, command: Command, tmp_path: Path
) -> None:
    """R-ACC-4: two keys, so that one dead key at 03:00 is no night lost; and passkeys."""
    security, passkey = SecurityKey(), Authenticator().passkey
    keys = [f"{security.line} noor@laptop", base64.b64encode(bytes(32)).decode()]
    passkeys = msgspec.to_builtins([passkey])
    path = members_file(tmp_path, member(keys=keys, passkeys=passkeys))
    done = command("trust", "sign", "--trust", folder, "--members", path, "--yes")
    (one,) = signed_by(folder, done.stdout).members
    assert one.keys == [security.public, sshsig.public_blob(bytes(32))]
    assert one.passkeys == [passkey]
    assert done.stderr.decode().count("SHA256:") == 2
    assert "passkey:" in done.stderr.decode()


def test_an_entitlement_is_what_an_injector_believes(
    folder: Path, command: Command, tmp_path: Path
) -> None:
    """R-ACC-9"""
    grant = {"product_line": "ct-dual", "serial": "CD-1", "level": "service",
             "begins": "2026-01-01", "ends": "2026-12-31", "organisation": "Hospital"}  # fmt: skip
    path = members_file(tmp_path, grant)
    done = command("trust", "entitle", "--trust", folder, "--grants", path)
    (row,) = json.loads(done.stdout)["entitlements"]
    raw = base64.b64decode((folder / "trust.pub").read_text())
    it = entitlement.verify(
        base64.b64decode(row["entitlement"]),
        base64.b64decode(row["signature"]),
        trust_key=Ed25519PublicKey.from_public_bytes(raw),
        version=1,
    )
    assert (it.serial, it.level, it.grace_days) == ("CD-1", Level.SERVICE, 30)
    assert datetime.fromtimestamp(it.ends_at / 1000, UTC).date().isoformat() == "2026-12-31"
    for bad in (
        [grant, grant],
        [grant | {"ends": "2025-12-31"}],
        [grant | {"grace_days": 91}],
        [grant | {"level": "root"}],
    ):
        path = members_file(tmp_path, *bad)
        command("trust", "entitle", "--trust", folder, "--grants", path, expect=1)


def test_the_version_never_goes_back(folder: Path) -> None:
    (folder / "version").write_text("41\n")
    with pytest.raises(ClientError, match="seven days"):
        trust.sign(folder, [], now=datetime.now(UTC), life=timedelta(days=8))
    made = trust.sign(folder, [], now=datetime.now(UTC))
    assert json.loads(base64.b64decode(made["roster"]))["version"] == 42
    (folder / "version").write_text("what")
    with pytest.raises(ClientError, match="highest version"):
        trust.sign(folder, [], now=datetime.now(UTC))


def test_a_new_key_is_shown_with_its_fingerprint(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "key"
    made = command.json("key", "new", path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert made["public_key"].startswith("ssh-ed25519 ")
    assert len(base64.b64decode(made["raw"])) == 32
    assert command.json("key", "show", path) == made
    command("key", "new", path, expect=1)
    path.chmod(0o600)
    path.write_text("no key")
    assert "no OpenSSH private key" in command("key", "show", path, expect=1).stderr.decode()


def test_the_client_knows_neither_django_nor_amqtt() -> None:
    """The command is installed on its own: importing all of it brings in nothing of the portal."""
    program = (
        "import sys, pkgutil, importlib, fleet.client as c\n"
        "for m in pkgutil.iter_modules(c.__path__):\n"
        "    importlib.import_module('fleet.client.' + m.name)\n"
        "bad = {n.split('.')[0] for n in sys.modules} & "
        "{'django','amqtt','rest_framework','channels','uvicorn','paho','textual','broker'}\n"
        "bad |= {n for n in sys.modules if n.startswith('fleet.') "
        "and not n.startswith('fleet.client')}\n"
        "sys.exit(str(bad) if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
