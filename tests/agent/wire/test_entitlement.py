"""Entitlements: what the trust key says is owed to one injector (R-ACC-9)."""

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.wire import entitlement as wire
from agent.wire.catalogue import Level
from agent.wire.chain import canonical
from tests.entitled import entitlement

TRUST = Ed25519PrivateKey.from_private_bytes(b"\x05" * 32)
NOW = 1_790_000_000_000
IT = entitlement("ct-dual", "CD-1", NOW, version=4)
DATA, SIGNATURE = wire.sign(TRUST, IT)


def verify(data: bytes = DATA, signature: bytes = SIGNATURE, version: int = 4) -> wire.Entitlement:
    return wire.verify(data, signature, trust_key=TRUST.public_key(), version=version)


def test_what_the_trust_key_signed_is_believed() -> None:
    assert verify() == IT
    assert verify(version=1) == IT


def test_nobody_else_signs_one() -> None:
    with pytest.raises(wire.EntitlementError, match="not signed"):
        verify(*wire.sign(Ed25519PrivateKey.generate(), IT))
    with pytest.raises(wire.EntitlementError, match="not signed"):
        verify(DATA, TRUST.sign(DATA))  # over the bare bytes: for something else
    longer = canonical(msgspec.structs.replace(IT, ends_at=IT.ends_at + 1))
    with pytest.raises(wire.EntitlementError, match="not signed"):
        verify(longer)


def test_there_is_no_going_back() -> None:
    with pytest.raises(wire.EntitlementError, match="older"):
        verify(version=5)


def test_only_the_canonical_form_is_read() -> None:
    spaced = DATA.replace(b",", b", ", 1)
    with pytest.raises(wire.EntitlementError, match="canonical"):
        verify(spaced, TRUST.sign(b"patency entitlement 1\n" + spaced))


def test_it_covers_its_level_from_its_start_through_its_grace() -> None:
    it = entitlement("ct-dual", "CD-1", NOW, level=Level.SERVICE)
    assert it.covers(Level.DIAGNOSTICS, NOW)
    assert it.covers(Level.SERVICE, NOW)
    assert not it.covers(Level.OS, NOW)
    assert not it.covers(Level.SERVICE, it.starts_at - 1)
    assert it.covers(Level.SERVICE, it.ends_at + 30 * wire.DAY_MS - 1)
    assert not it.covers(Level.SERVICE, it.lasts_until)
