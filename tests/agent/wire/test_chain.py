"""Audit chains: what was flipped, deleted, inserted, reordered or cut off is found (R-ACC-10)."""

import random
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.wire import chain
from tests.scale import scaled

KEY = Ed25519PrivateKey.from_private_bytes(b"\x0a" * 32)
Entry = dict[str, Any]


def make(count: int) -> list[Entry]:
    entries: list[Entry] = []
    previous = chain.GENESIS
    for index in range(count):
        entry: Entry = {
            "index": index, "at": 1_790_000_000_000 + index, "action": "session:approve",
            "actor": "approver-1", "outcome": "allowed", "previous": previous,
        }  # fmt: skip
        entry["hash"] = previous = chain.entry_hash(entry)
        entries.append(entry)
    return entries


COUNT = 40
CHAIN = make(COUNT)


def test_a_whole_chain_verifies_and_can_be_continued() -> None:
    assert chain.verify(CHAIN) == (COUNT, None)
    assert chain.verify([]) == (0, None)
    rest = chain.verify(CHAIN[10:], start=10, previous=CHAIN[9]["hash"])
    assert rest == (COUNT - 10, None)


def test_the_first_bad_entry_is_named() -> None:
    """10^4 attacks at full scale, of every kind."""
    pick = random.Random(820)
    for _ in range(scaled(10_000, at_least=100)):
        bad = [dict(entry) for entry in CHAIN]
        at = pick.randrange(COUNT - 1)
        kind = pick.choice(["flip", "rehash", "delete", "insert", "swap", "duplicate"])
        if kind == "flip":
            field = pick.choice(["at", "action", "actor", "outcome", "previous", "hash", "index"])
            bad[at][field] = 5 if field in ("at", "index") and at != 5 else "x"
        elif kind == "rehash":  # an honest hash over changed content breaks the next link
            bad[at]["actor"] = "approver-2"
            bad[at]["hash"] = chain.entry_hash(bad[at])
            at += 1
        elif kind == "delete":
            del bad[at]
        elif kind == "insert":
            bad.insert(at, {**bad[at], "actor": "agent"})
        elif kind == "swap":
            bad[at], bad[at + 1] = bad[at + 1], bad[at]
        else:
            bad.insert(at + 1, dict(bad[at]))
            at += 1
        assert chain.verify(bad) == (at, at), kind


@pytest.mark.parametrize(
    "value", [2**60, float("nan"), float("inf"), {1: 2}, "\ud800", None, [[]], object()]
)
def test_an_entry_that_no_json_can_hold_is_a_bad_entry(value: object) -> None:
    bad = [*CHAIN[:3], {**CHAIN[3], "at": value}, *CHAIN[4:]]
    assert chain.verify(bad) == (3, 3)
    assert chain.verify([*CHAIN[:3], {}]) == (3, 3)


def test_a_head_shows_what_was_cut_off() -> None:
    head = chain.sign_head(KEY, chain="dev_Alpha-01", index=39, hash=CHAIN[39]["hash"], at=1)
    assert chain.head_is_signed_by(head, KEY.public_key())
    kept, bad = chain.verify(CHAIN[:30])
    assert (kept, bad) == (30, None)  # a shortened chain is whole in itself …
    assert kept <= head.index  # … and shorter than what was signed


def test_a_head_is_bound_to_all_its_fields() -> None:
    head = chain.sign_head(KEY, chain="dev_Alpha-01", index=39, hash=CHAIN[39]["hash"], at=1)
    for changes in ({"chain": "dev_Bravo-02"}, {"index": 38}, {"hash": "0" * 64}, {"at": 2}):
        assert not chain.head_is_signed_by(
            msgspec.structs.replace(head, **changes), KEY.public_key()
        )
    assert not chain.head_is_signed_by(head, Ed25519PrivateKey.generate().public_key())


def test_canonical_form_is_that_of_rfc_8785() -> None:
    """The example of RFC 8785, clause 3.2.2."""
    value = {
        "numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": "\u20ac$\u000f\u000aA'\u0042\u0022\u005c\\\"/",
        "literals": [None, True, False],
    }
    assert chain.canonical(value) == (
        b'{"literals":[null,true,false],'
        b'"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        b'"string":"\xe2\x82\xac$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )
