"""SSH signatures: ours verify, nothing bent does. Real ssh-keygen: tests/system/test_sshsig.py."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.wire import sshsig
from agent.wire.sshsig import SignatureError
from tests.agent.access.authenticator import SecurityKey

KEY = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
PUBLIC = sshsig.public_blob(KEY.public_key().public_bytes_raw())


@given(st.binary(max_size=200))
@settings(max_examples=30)
def test_a_signature_names_its_key(message: bytes) -> None:
    assert sshsig.verify(sshsig.sign(KEY, message), message) == PUBLIC


def test_another_message_or_purpose_is_refused() -> None:
    blob = sshsig.sign(KEY, b"message")
    with pytest.raises(sshsig.SignatureError, match="does not match"):
        sshsig.verify(blob, b"message!")
    with pytest.raises(sshsig.SignatureError, match="another purpose"):
        sshsig.verify(sshsig.sign(KEY, b"message", "git"), b"message")


def test_every_changed_byte_is_found() -> None:
    blob = sshsig.sign(KEY, b"message")
    for at in range(len(blob)):
        changed = bytearray(blob)
        changed[at] ^= 0x01
        with pytest.raises(sshsig.SignatureError):
            sshsig.verify(bytes(changed), b"message")


@given(st.integers(0, 200), st.binary(max_size=8))
@settings(max_examples=100)
def test_cut_or_longer_is_refused(size: int, tail: bytes) -> None:
    blob = sshsig.sign(KEY, b"message")
    changed = blob[:size] + tail
    if changed != blob:
        with pytest.raises(sshsig.SignatureError):
            sshsig.verify(changed, b"message")


@given(st.binary(max_size=300))
@settings(max_examples=100)
def test_any_bytes_are_refused(blob: bytes) -> None:
    with pytest.raises(sshsig.SignatureError):
        sshsig.verify(sshsig.MAGIC + (1).to_bytes(4, "big") + blob, b"message")


@given(st.binary(max_size=300))
@settings(max_examples=30)
def test_the_text_form_reads_back(blob: bytes) -> None:
    if blob:
        assert sshsig.unarmour(sshsig.armour(blob)) == blob


@pytest.mark.parametrize(
    "text", ["", "U1NI", sshsig.armour(b"abc")[1:], "-----BEGIN SSH SIGNATURE"]
)
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(sshsig.SignatureError):
        sshsig.unarmour(text)
    with pytest.raises(sshsig.SignatureError):
        sshsig.unarmour(sshsig.armour(b"abc").replace("YWJj", "YW*j"))


# --- security keys ------------------------------------------------------------------------------


def test_a_security_key_signs_while_it_is_touched() -> None:
    key = SecurityKey()
    assert sshsig.verify(key.sign(b"message"), b"message") == key.public
    assert sshsig.public(key.public).is_hardware
    assert not sshsig.public(PUBLIC).is_hardware
    with pytest.raises(SignatureError, match="touched"):
        sshsig.verify(key.sign(b"message", flags=0), b"message")
    with pytest.raises(SignatureError):
        sshsig.verify(key.sign(b"message"), b"another")


def test_a_security_key_of_something_else_is_not_taken() -> None:
    with pytest.raises(SignatureError, match="something else"):
        sshsig.verify(SecurityKey(application=b"webauthn:").sign(b"m"), b"m")


def test_every_byte_of_a_security_keys_signature_counts() -> None:
    blob = SecurityKey().sign(b"message")
    for at in range(len(blob)):
        changed = bytearray(blob)
        changed[at] ^= 1
        try:
            signer = sshsig.verify(bytes(changed), b"message")
        except SignatureError:
            continue
        raise AssertionError(f"byte {at} says nothing: {signer!r}")


def test_a_line_of_a_pub_file_is_read() -> None:
    key = SecurityKey()
    assert sshsig.public_line(f"{key.line} noor@laptop\n") == key.public
    for line in ("", "ssh-ed25519", "ssh-ed25519 AAAA", "ssh-rsa AAAAB3NzaC1yc2E="):
        with pytest.raises(SignatureError):
            sshsig.public_line(line)
