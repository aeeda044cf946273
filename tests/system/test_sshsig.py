"""Our SSH signatures and those of the real ssh-keygen are the same thing (R-ACC-4)."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from agent.wire import sshsig
from fleet.client import keys
from fleet.client.errors import ClientError
from tests.agent.access.authenticator import SecurityKey

pytestmark = pytest.mark.system
MESSAGE = b"\x00 what the device asked to sign \xff\n" * 9


@pytest.fixture
def key(tmp_path: Path) -> tuple[Ed25519PrivateKey, Path]:
    private = Ed25519PrivateKey.generate()
    path = tmp_path / "id_ed25519"
    path.touch(0o600)
    path.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    public = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    (tmp_path / "allowed").write_text(f"noor {public}\n")
    return private, path


def _keygen(*arguments: str | Path, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["ssh-keygen", *map(str, arguments)], input=given, capture_output=True, timeout=30
    )


@pytest.mark.parametrize("hash", ["sha256", "sha512"])
def test_what_ssh_keygen_signs_we_verify(
    key: tuple[Ed25519PrivateKey, Path], tmp_path: Path, hash: str
) -> None:
    private, path = key
    signed = _keygen(
        "-Y", "sign", "-q", "-f", path, "-n", sshsig.NAMESPACE, "-O", f"hashalg={hash}",
        given=MESSAGE,
    )  # fmt: skip
    assert signed.returncode == 0, signed.stderr
    blob = sshsig.unarmour(signed.stdout.decode())
    assert sshsig.verify(blob, MESSAGE) == sshsig.public_blob(
        private.public_key().public_bytes_raw()
    )
    if hash == "sha512":
        assert blob == sshsig.sign(private, MESSAGE)  # Ed25519 is deterministic


def test_what_we_sign_ssh_keygen_verifies(
    key: tuple[Ed25519PrivateKey, Path], tmp_path: Path
) -> None:
    private, _ = key
    signature = tmp_path / "signature"
    signature.write_text(sshsig.armour(sshsig.sign(private, MESSAGE)))

    def verify(message: bytes, namespace: str) -> int:
        return _keygen(
            "-Y", "verify", "-f", tmp_path / "allowed", "-I", "noor", "-n", namespace,
            "-s", signature, given=message,
        ).returncode  # fmt: skip

    assert verify(MESSAGE, sshsig.NAMESPACE) == 0
    assert verify(MESSAGE + b"!", sshsig.NAMESPACE) != 0
    assert verify(MESSAGE, "git") != 0


def test_what_a_security_key_signs_ssh_keygen_verifies(tmp_path: Path) -> None:
    """Our own reading of PROTOCOL.u2f, and so our simulated key, is OpenSSH's."""
    key = SecurityKey()
    (tmp_path / "allowed").write_text(f"noor {key.line}\n")
    signature = tmp_path / "signature"
    blob = key.sign(MESSAGE)
    assert sshsig.verify(blob, MESSAGE) == key.public
    signature.write_text(sshsig.armour(blob))
    done = _keygen(
        "-Y", "verify", "-f", tmp_path / "allowed", "-I", "noor", "-n", sshsig.NAMESPACE,
        "-s", signature, given=MESSAGE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.fixture
def ssh_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    socket = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.DEVNULL)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
    try:
        deadline = time.monotonic() + 10
        while not socket.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        yield
    finally:
        process.terminate()
        process.wait(10)


def test_a_key_in_ssh_agent_signs(key: tuple[Ed25519PrivateKey, Path], ssh_agent: None) -> None:
    """R-ACC-4: the file may be away, as with a key that was added on another machine."""
    private, path = key
    added = subprocess.run(["ssh-add", path], capture_output=True, timeout=30)
    assert added.returncode == 0, added.stderr
    public = path.with_name("id_ed25519.pub")
    public.write_text(keys.public_line(keys.FileKey(private).public) + "\n")
    path.unlink()
    signer = keys.signer(public)
    assert isinstance(signer, keys.HeldKey)
    assert sshsig.verify(signer.sign(MESSAGE), MESSAGE) == keys.FileKey(private).public
    subprocess.run(["ssh-add", "-D"], capture_output=True, timeout=30)
    with pytest.raises(ClientError, match="ssh-add -L"):
        signer.sign(MESSAGE)
