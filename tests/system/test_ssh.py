"""A real OpenSSH client through `patency forward` into a real sshd on the port the driver names.

R-ACC-3..8: asked, challenged, signed, approved at the panel, tunnelled; sealed from end to end.
"""

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.demo import Demo, until
from tests.sessions import echo, exchange, forward, open_session
from tests.system.tap import Tap

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

MEGABYTES = 200
CANARY = b"patency-known-plaintext-7f3a91c2"


@pytest.fixture
def sshd(demo: Demo, tmp_path: Path) -> Iterator[tuple[dict[str, Any], Path]]:
    """An sshd on the `ssh` port of one device: (device, client key)."""
    device = demo.device("ct-dual")
    port = device["services"]["ssh"]
    host_key, user_key = tmp_path / "host", tmp_path / "user"
    for key in (host_key, user_key):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    authorised = tmp_path / "authorized_keys"
    authorised.write_bytes(user_key.with_suffix(".pub").read_bytes())
    config = tmp_path / "sshd_config"
    config.write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {host_key}\nAuthorizedKeysFile {authorised}\n"
        f"PidFile {tmp_path}/pid\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n"
        "PermitRootLogin prohibit-password\nSubsystem sftp internal-sftp\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)
    process = subprocess.Popen(
        ["/usr/sbin/sshd", "-D", "-e", "-f", str(config)], stderr=subprocess.DEVNULL
    )
    try:
        yield device, user_key
    finally:
        process.terminate()
        process.wait(10)


def options(key: Path, known: Path) -> list[str]:
    return [
        "-i", str(key), "-o", f"UserKnownHostsFile={known}", "-o", "StrictHostKeyChecking=no",
        "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR",
        "-o", "Compression=no",
    ]  # fmt: skip


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def test_ssh_login_and_200_mb_each_way(
    demo: Demo, sshd: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    device, key = sshd
    session = open_session(demo, device, level="os", service="ssh")
    with forward(demo, device, "ssh") as port:
        ssh = options(key, tmp_path / "known")
        login = subprocess.run(
            ["ssh", *ssh, "-p", str(port), "root@127.0.0.1", "echo in; exit 7"],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert (login.returncode, login.stdout) == (7, "in\n"), login.stderr

        sent, stored, returned = (tmp_path / n for n in ("sent", "stored", "returned"))
        with sent.open("wb") as file:
            for _ in range(MEGABYTES):
                file.write(os.urandom(1 << 20))
        for source, target in (
            (str(sent), f"root@127.0.0.1:{stored}"),
            (f"root@127.0.0.1:{stored}", str(returned)),
        ):
            subprocess.run(
                ["scp", "-q", *ssh, "-P", str(port), source, target], check=True, timeout=240
            )
        assert digest(sent) == digest(stored) == digest(returned)
    demo.patency("end", session)

    def sides() -> set[str]:
        entries = json.loads(demo.patency("audit", "--session", session, "-o", "json").stdout)
        return {entry["side"] for entry in entries}

    until(lambda: sides() == {"device", "server"})


def test_nothing_readable_crosses_the_portal(demo: Demo) -> None:
    """The plaintext of a session is in no frame that the portal relays (R-ACC-5, R-PRV-1)."""
    device = demo.device("ct-multi")
    with echo(device["services"]["ssh"]) as heard, Tap(demo.http) as tap:
        session = open_session(demo, device, level="os", service="ssh")
        with forward(demo, device, "ssh", url=tap.url) as port:
            answer = exchange(port, CANARY * 1000)
        assert answer == CANARY * 1000
        assert CANARY in heard()
        demo.patency("end", session)
    down, up = tap.payload("client"), tap.payload("portal")
    assert len(down) > len(CANARY) * 1000
    assert len(up) > len(CANARY) * 1000
    for captured in (down, up):
        assert CANARY not in captured
        assert CANARY[8:24] not in captured
