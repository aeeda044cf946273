"""The device's audit chain (R-ACC-10)."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent import audit
from agent.audit import AuditLog
from agent.clock import Clock
from agent.errors import AuditUnwritable, StateError
from agent.outbox import Entry, Outbox
from agent.store import Store
from agent.wire import chain, messages
from agent.wire.catalogue import Outcome
from agent.wire.messages import Audit

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
SERVER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))


class Bench:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.sent: list[Entry] = []

    async def open(self) -> "Bench":
        self.store = Store(self.path)
        clock = Clock(boot="00" * 16)
        self.outbox = Outbox(self.store, clock)
        self.outbox.on_committed = self.sent.append
        await self.outbox.open()
        self.log = AuditLog(self.store, self.outbox, clock, device="device-0001", key=KEY)
        await self.log.open()
        return self

    def record(self, action: str = "access:approve", **fields: Any) -> Any:
        return self.log.record(
            action, **{"actor": "approver-1", "outcome": Outcome.ALLOWED, **fields}
        )

    async def edit(self, statement: str, *values: Any) -> None:
        await self.store.write(lambda db: db.execute(statement, values))


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    opened = await Bench(tmp_path / "agent.db").open()
    yield opened
    await opened.store.close()


async def test_an_entry_and_its_message_are_one(bench: Bench) -> None:
    entry = await bench.record(session="ab" * 16, digest="cd" * 32)
    message = messages.decode_up("audit", 1, bench.sent[0].payload)
    assert isinstance(message, Audit)
    assert message.entries == [entry]
    assert bench.log.head == message.head
    assert chain.head_is_signed_by(message.head, KEY.public_key())
    assert (entry.index, entry.previous) == (0, chain.GENESIS)
    assert chain.verify([msgspec.to_builtins(entry)]) == (1, None)


async def test_the_chain_goes_on_after_a_restart(bench: Bench) -> None:
    await asyncio.gather(*(bench.record() for _each in range(5)))
    await bench.store.close()
    await bench.open()
    assert bench.log.head is not None
    assert bench.log.head.index == 4
    assert (await bench.record()).index == 5
    verdict = audit.verify(bench.path)
    assert verdict.good
    assert verdict.entries == 6
    assert verdict.head == bench.log.head.hash


@pytest.mark.parametrize(
    ("statement", "bad"),
    [
        ("UPDATE audit SET entry = replace(entry, 'approver-1', 'approver-2') WHERE idx = 3", 3),
        ("DELETE FROM audit WHERE idx = 2", 2),
        ("UPDATE audit SET idx = 100 + idx WHERE idx = 1", 1),
        ("UPDATE audit SET entry = '{}' WHERE idx = 4", 4),
        ("UPDATE audit SET entry = x'ff00' WHERE idx = 0", 0),
        ("INSERT INTO audit SELECT 99, hash, entry FROM audit WHERE idx = 2", 6),
        ("UPDATE audit SET entry = replace(entry, '\"uptime_ms\":', '\"uptime_ms\":1e9') "
         "WHERE idx = 5", 5),
    ],
)  # fmt: skip
async def test_an_edit_is_found_and_the_first_bad_entry_named(
    bench: Bench, statement: str, bad: int
) -> None:
    """THREATS, audit: flip, delete, insert, reorder."""
    for _each in range(6):
        await bench.record()
    await bench.edit(statement)
    verdict = audit.verify(bench.path)
    assert verdict.bad == bad


async def test_a_cut_end_is_found_with_the_head_the_server_holds(bench: Bench) -> None:
    for _each in range(4):
        await bench.record()
    head = bench.log.head
    await bench.edit("DELETE FROM audit WHERE idx >= 2")
    assert audit.verify(bench.path).good
    assert audit.verify(bench.path, head=head).bad == 2


async def test_a_full_disk_refuses_and_leaves_no_half(bench: Bench) -> None:
    """THREATS, audit: disk full, so remote access is refused; the chain stays whole."""
    await bench.record()
    (pages,) = await bench.store.write(lambda db: db.execute("PRAGMA page_count").fetchone())
    await bench.edit(f"PRAGMA max_page_count={pages}")
    written = 1
    with pytest.raises(AuditUnwritable, match="remote access is refused"):
        while True:
            await bench.record()
            written += 1
    await bench.edit("PRAGMA max_page_count=100000")
    assert (await bench.record()).index == written
    assert audit.verify(bench.path).entries == written + 1
    assert len(bench.sent) == written + 1


async def test_a_full_outbox_refuses_as_well(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.outbox.MAX_BYTES", 1)
    with pytest.raises(AuditUnwritable):
        for _each in range(2):
            await bench.record()
    monkeypatch.undo()
    assert (await bench.record()).index == 1
    assert audit.verify(bench.path).good


async def test_no_audit_log_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="no audit log"):
        audit.verify(tmp_path / "agent.db")
    sqlite3.connect(tmp_path / "empty.db").close()
    with pytest.raises(StateError, match="no audit log"):
        audit.verify(tmp_path / "empty.db")


async def test_the_servers_heads_are_kept_and_two_histories_are_found(bench: Bench) -> None:
    """THREATS, audit: the server rewrites its log; any device's copy of the head shows it."""

    def head(index: int, hash: str, key: Ed25519PrivateKey = SERVER) -> messages.SignedHead:
        return chain.sign_head(key, chain="north", index=index, hash=hash, at=1)

    async def keep(head: messages.SignedHead) -> str:
        return await bench.log.keep_server_head(head, SERVER.public_key())

    assert await keep(head(5, "aa" * 32)) == "kept"
    assert await keep(head(5, "aa" * 32)) == "known"
    assert await keep(head(9, "bb" * 32)) == "kept"
    assert await keep(head(5, "cc" * 32)) == "fork"
    assert await keep(head(5, "aa" * 32)) == "fork"  # it was longer: entries were cut off its end
    assert await keep(head(9, "cc" * 32)) == "fork"
    assert await keep(head(9, "bb" * 32)) == "known"
    assert await keep(head(7, "dd" * 32)) == "fork"
    assert await keep(head(11, "ee" * 32, KEY)) == "unsigned"
