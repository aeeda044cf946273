"""Our SSH signatures and those of the real ssh-keygen are the same thing (R-ACC-4)."""

import subprocess
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
    assert sshsig.verify(blob, MESSAGE) == private.public_key().public_bytes_raw()
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
