"""The roster: only the trust key makes one, it never goes back, and it dies in a week (R-ACC-4)."""

from datetime import timedelta

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.wire import roster, sshsig
from agent.wire.catalogue import Level, ProductLineCode
from agent.wire.chain import canonical

TRUST = Ed25519PrivateKey.from_private_bytes(b"\x05" * 32)
NOW = 1_790_000_000_000
DAY = 24 * 3600 * 1000
MEMBER = roster.Member(
    id="noor", name="Noor Haddad", keys=[sshsig.public_blob(bytes(range(32)))],
    level=Level.OS, patient_data=True,
    product_lines=[ProductLineCode.CT_DUAL], until=NOW + 300 * DAY,
)  # fmt: skip
ROSTER = roster.Roster(version=4, issued_at=NOW, expires_at=NOW + 7 * DAY, members=[MEMBER])
DATA, SIGNATURE = roster.sign(TRUST, ROSTER)


def verify(
    data: bytes = DATA, signature: bytes = SIGNATURE, *, version: int = 4, now: int = NOW
) -> roster.Roster:
    return roster.verify(data, signature, trust_key=TRUST.public_key(), version=version, now=now)


def test_a_signed_roster_is_read() -> None:
    assert verify() == ROSTER
    assert verify(version=0).member("noor") == MEMBER
    assert verify().member("Noor") is None


def test_another_key_or_another_purpose_is_refused() -> None:
    with pytest.raises(roster.RosterError, match="trust key"):
        verify(*roster.sign(Ed25519PrivateKey.generate(), ROSTER))
    with pytest.raises(roster.RosterError, match="trust key"):
        verify(DATA, TRUST.sign(DATA))  # a signature over the bare bytes is for something else
    with pytest.raises(roster.RosterError, match="trust key"):
        verify(DATA, b"")


def test_every_changed_byte_is_found() -> None:
    for at in range(len(DATA)):
        changed = bytearray(DATA)
        changed[at] ^= 1
        with pytest.raises(roster.RosterError):
            verify(bytes(changed))


def test_it_never_goes_back() -> None:
    assert verify(version=4).version == 4  # the same one again is no way back
    with pytest.raises(roster.RosterError, match="older"):
        verify(version=5)


def test_it_expires_and_may_not_live_longer_than_a_week() -> None:
    assert verify(now=ROSTER.expires_at - 1)
    with pytest.raises(roster.RosterError, match="expired"):
        verify(now=ROSTER.expires_at)
    assert timedelta(days=7) == roster.MAX_LIFE
    for changes in ({"expires_at": NOW + 7 * DAY + 1}, {"issued_at": NOW - 1}):
        with pytest.raises(roster.RosterError, match="seven days"):
            verify(*roster.sign(TRUST, msgspec.structs.replace(ROSTER, **changes)))


@pytest.mark.parametrize(
    "changes",
    [
        {"v": 2}, {"version": 0}, {"also": 1}, {"members": [{"id": "noor"}]}, {"members": None},
        {"members": [{**msgspec.to_builtins(MEMBER), "keys": []}]},
        {"members": [{**msgspec.to_builtins(MEMBER), "level": "root"}]},
        {"members": [{**msgspec.to_builtins(MEMBER), "name": "N\nH"}]},
    ],
)  # fmt: skip
def test_signed_nonsense_is_refused(changes: dict[str, object]) -> None:
    data = canonical({**msgspec.to_builtins(ROSTER), **changes})
    with pytest.raises(roster.RosterError):
        verify(data, TRUST.sign(b"patency roster 1\n" + data))
