"""SSH signatures: ours verify, nothing bent does. Real ssh-keygen: tests/system/test_sshsig.py."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.wire import sshsig

KEY = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
PUBLIC = KEY.public_key().public_bytes_raw()


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
