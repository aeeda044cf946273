"""Two places with one credential: the signs, and what is no sign (THREATS, identity)."""

import random

import pytest

from fleet.enrolment import clones
from fleet.enrolment.clones import MANY, WINDOW_S, Boots, Takeovers

A, B = "device-aaaa", "device-bbbb"


def test_a_machine_that_restarts_is_no_clone() -> None:
    boots = Boots()
    assert not any(boots.heard(A, boot) for boot in ("1", "1", "2", "2", "3", "4"))
    assert not boots.heard(B, "1")  # another device, another memory


def test_a_boot_that_comes_back_is_another_machine() -> None:
    boots = Boots()
    assert [boots.heard(A, boot) for boot in ("1", "2", "1")] == [False, False, True]
    assert [boots.heard(A, boot) for boot in ("2", "1", "2")] == [False, False, True]  # and again


def _line(*addresses: str, every_s: float = 3.0, taken_over: bool = True) -> bool:
    takeovers = Takeovers()
    for number, address in enumerate(addresses):
        if number:
            takeovers.ended(A, taken_over=taken_over)
        if takeovers.came(A, address, number * every_s):
            return True
    return False


def test_addresses_that_take_turns() -> None:
    assert _line("x", "y", "x", "y", "x")
    assert not _line("x", "y", "x", "y", "x", every_s=WINDOW_S)  # that slowly, it is a bad line
    assert not _line("x", "y", "x", "y", "x", taken_over=False)  # each ended before the next came
    assert not _line("x", "y", "y", "y")  # it moved
    assert not _line("x", "y", "z", "x")


def test_many_takeovers_from_one_address() -> None:
    """Two machines behind one router."""
    assert _line(*["x"] * (MANY + 1))
    assert not _line(*["x"] * MANY)
    assert not _line(*["x"] * 40, every_s=15.0)  # an agent that finds its link dead, all day long


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clones, "DEVICES", 10)
    takeovers, boots = Takeovers(), Boots()
    for number in range(1000):
        takeovers.came(f"device-{number:04}", "x", 0.0)
        boots.heard(f"device-{number:04}", "1")
    assert len(takeovers._lines._items) == len(boots._boots._items) == 10
    for _ in range(1000):
        boots.heard(A, f"{random.getrandbits(64):x}")
    assert len(boots._boots.of(A)) <= 8
