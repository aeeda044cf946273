"""PINs: five tries, a lock that outlives restarts, nobody else's PIN (R-ACC-6, R-PRV-1)."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.access import pins
from agent.access.pins import LOCK_S, MAX_APPROVERS, Pins, Verdict
from agent.clock import Clock
from agent.errors import ControlError
from agent.store import Store

WRONG = "999999"


class Hands:
    """A clock whose hands the test moves."""

    def __init__(self) -> None:
        self.at = 1000.0

    def clock(self, boot: str = "b" * 32) -> Clock:
        return Clock(boot=boot, boot_seconds=lambda: self.at, wall_seconds=lambda: 1.8e9)


@asynccontextmanager
async def opened(path: Path, clock: Clock) -> AsyncIterator[Pins]:
    store = Store(path / "agent.db")
    try:
        made = Pins(store, clock)
        await made.open()
        yield made
    finally:
        await store.close()


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pins, "_N", 2)


async def test_whose_pin_it_is(tmp_path: Path) -> None:
    async with opened(tmp_path, Hands().clock()) as made:
        assert await made.approvers() == []
        await made.set(1, "123456")
        await made.set(7, "777777")
        assert await made.approvers() == [1, 7]
        assert await made.check("777777") == Verdict(7)
        assert await made.check("123456") == Verdict(1)
        await made.set(1, "654321")
        assert (await made.check("123456")).approver is None
        assert await made.check("654321") == Verdict(1)


async def test_five_tries_then_fifteen_minutes(tmp_path: Path) -> None:
    hands = Hands()
    async with opened(tmp_path, hands.clock()) as made:
        await made.set(1, "123456")
        for left in (4, 3, 2, 1):
            assert await made.check(WRONG) == Verdict(None, left=left)
        assert await made.check(WRONG) == Verdict(None, locked=True)
        assert await made.check("123456") == Verdict(None, locked=True)
        hands.at += LOCK_S - 1
        assert (await made.check("123456")).locked
        hands.at += 1
        assert await made.check("123456") == Verdict(1)


async def test_a_right_pin_forgives_the_wrong_ones(tmp_path: Path) -> None:
    async with opened(tmp_path, Hands().clock()) as made:
        await made.set(1, "123456")
        for _round in range(3):
            for _try in range(4):
                await made.check(WRONG)
            assert await made.check("123456") == Verdict(1)


async def test_a_restart_forgets_neither_tries_nor_lock(tmp_path: Path) -> None:
    hands = Hands()
    async with opened(tmp_path, hands.clock()) as made:
        await made.set(1, "123456")
    for left in (4, 3, 2, 1):
        async with opened(tmp_path, hands.clock()) as made:
            assert await made.check(WRONG) == Verdict(None, left=left)
    async with opened(tmp_path, hands.clock()) as made:
        assert (await made.check(WRONG)).locked
    async with opened(tmp_path, hands.clock()) as made:
        assert (await made.check("123456")).locked
        hands.at += LOCK_S
        assert await made.check("123456") == Verdict(1)


async def test_after_a_boot_the_lock_begins_again(tmp_path: Path) -> None:
    """The boot clock began anew, and the wall clock may have been set."""
    hands = Hands()
    async with opened(tmp_path, hands.clock()) as made:
        await made.set(1, "123456")
        for _try in range(5):
            await made.check(WRONG)
    hands.at = 5.0
    async with opened(tmp_path, hands.clock(boot="c" * 32)) as made:
        assert (await made.check("123456")).locked
        hands.at += LOCK_S - 1
        assert (await made.check("123456")).locked
        hands.at += 1
        assert await made.check("123456") == Verdict(1)


async def test_a_try_that_was_cut_short_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill -9 between the question and the answer gives no free try."""
    async with opened(tmp_path, Hands().clock()) as made:
        await made.set(1, "123456")

        def die(*_arguments: object) -> None:
            raise KeyboardInterrupt

        for _try in range(5):
            with monkeypatch.context() as patch:
                patch.setattr(asyncio, "to_thread", die)
                with pytest.raises(KeyboardInterrupt):
                    await made.check("123456")
        assert (await made.check("123456")).locked


async def test_tries_at_the_same_time_are_all_counted(tmp_path: Path) -> None:
    async with opened(tmp_path, Hands().clock()) as made:
        await made.set(1, "123456")
        verdicts = await asyncio.gather(*(made.check(WRONG) for _ in range(20)))
        assert sum(not v.locked for v in verdicts) == 4
        assert (await made.check("123456")).locked


@pytest.mark.parametrize(
    "pin", ["", "12345", "1234567890123", "12345a", "１２３４５６", "123456\n"]
)
async def test_what_is_no_pin(tmp_path: Path, pin: str) -> None:
    async with opened(tmp_path, Hands().clock()) as made:
        with pytest.raises(ControlError):
            await made.set(1, pin)
        await made.set(1, "123456")
        assert (await made.check(pin)).approver is None


async def test_two_approvers_have_two_pins(tmp_path: Path) -> None:
    """A receipt must name the right one."""
    async with opened(tmp_path, Hands().clock()) as made:
        await made.set(1, "123456")
        with pytest.raises(ControlError) as caught:
            await made.set(2, "123456")
        assert caught.value.reason == "bad_pin"
        await made.set(1, "123456")


async def test_approvers_are_counted_and_numbered(tmp_path: Path) -> None:
    async with opened(tmp_path, Hands().clock()) as made:
        for number in (0, 100, -1):
            with pytest.raises(ControlError):
                await made.set(number, "123456")
        for number in range(1, MAX_APPROVERS + 1):
            await made.set(number, f"{number:06d}")
        with pytest.raises(ControlError) as caught:
            await made.set(99, "999990")
        assert caught.value.reason == "too_many"


async def test_no_pin_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pins, "_N", 2**14)
    async with opened(tmp_path, Hands().clock()) as made:
        await made.set(1, "31415926")
        assert await made.check("31415926") == Verdict(1)
    assert b"31415926" not in (tmp_path / "agent.db").read_bytes()
    connection = sqlite3.connect(tmp_path / "agent.db")
    salts = connection.execute("SELECT length(salt), length(hash) FROM pin").fetchall()
    connection.close()
    assert salts == [(16, 32)]
