"""The challenge: exact bytes, one reading, and a code that both ends compute (R-ACC-4, R-ACC-6)."""

import time

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings

from agent.wire import challenge
from agent.wire.catalogue import Level
from tests.agent.wire import samples, strategies

TERMS = challenge.Terms(
    session=samples.SESSION, request="d2" * 32, device=samples.DEVICE, specialist="noor",
    level=Level.OS, services=["ssh"], life_s=1800, presence=True, boot="b0" * 16,
    nonce="0f" * 32, key=bytes(range(32)),
)  # fmt: skip
BYTES = challenge.encode(TERMS)


@given(strategies.of(challenge.Terms))
@settings(max_examples=50, deadline=None)
def test_terms_read_back(value: dict[str, object]) -> None:
    terms = msgspec.convert(value, challenge.Terms, builtin_types=(), strict=True)
    assert challenge.decode(challenge.encode(terms)) == terms


@pytest.mark.parametrize(
    "edited",
    [
        BYTES + b"\n",
        BYTES.replace(b'"v":1', b'"v": 1'),
        BYTES.replace(b'"v":1', b'"v":2'),
        BYTES.replace(b'"level":"os"', b'"level":"root"'),
        BYTES.replace(b'"life_s":1800', b'"life_s":1800.0'),
        BYTES.replace(b'"life_s":1800', b'"life_s":999999'),
        BYTES.replace(b'"services":["ssh"]', b'"services":[]'),
        BYTES.replace(b'"services":["ssh"]', b'"services":["127.0.0.1:22"]'),
        BYTES.replace(b'{"boot"', b'{"also":1,"boot"'),
        BYTES.replace(b'"level":"os"', b'"level":"service","level":"os"'),  # one key twice
        BYTES.replace(b"noor", b"n\\u006for"),
        msgspec.json.format(BYTES, indent=1),
        b"",
        b"\xff",
    ],
)
def test_other_bytes_are_no_challenge(edited: bytes) -> None:
    assert edited != BYTES
    with pytest.raises(challenge.ChallengeError):
        challenge.decode(edited)


def test_what_is_signed_covers_both_ends_of_the_key_exchange() -> None:
    mine = challenge.to_sign(BYTES, bytes(32))
    assert mine != challenge.to_sign(BYTES, b"\x01" + bytes(31))
    edited = challenge.encode(msgspec.structs.replace(TERMS, level=Level.SERVICE))
    assert mine != challenge.to_sign(edited, bytes(32))
    other_key = challenge.encode(msgspec.structs.replace(TERMS, key=bytes(32)))
    assert mine != challenge.to_sign(other_key, bytes(32))


def test_the_code_is_short_and_follows_every_term() -> None:
    codes = {
        challenge.code(challenge.encode(msgspec.structs.replace(TERMS, nonce=f"{n:064x}")))
        for n in range(5)
    }
    assert len(codes) == 5
    for code in codes:
        left, right = code.split("-")
        assert len(left) == len(right) == 4
        assert not set(code) & set("ILOU")


def test_a_code_is_slow_to_search_for() -> None:
    """Someone in the middle needs about 2^39 tries for a challenge whose code matches."""
    start = time.process_time()
    challenge.code(BYTES)
    assert time.process_time() - start > 0.005


def test_a_receipt_is_believed_only_from_the_device_that_signed_it() -> None:
    key, other = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    receipt = challenge.PresenceReceipt(
        session=samples.SESSION, challenge="c0" * 32, approver=1, at=5, uptime_ms=6, index=7
    )
    data, signature = challenge.sign_receipt(key, receipt)
    assert challenge.verify_receipt(data, signature, key.public_key()) == receipt
    with pytest.raises(challenge.ChallengeError):
        challenge.verify_receipt(data, signature, other.public_key())
    with pytest.raises(challenge.ChallengeError):
        challenge.verify_receipt(data + b" ", signature, key.public_key())
    for bytes_ in (data + b" ", b"[]", b"\xff"):  # signed, and still no receipt
        signed = key.sign(b"patency receipt 1\n" + bytes_)
        with pytest.raises(challenge.ChallengeError):
            challenge.verify_receipt(bytes_, signed, key.public_key())
