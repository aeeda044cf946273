"""The store: group commit, failures told to whom they concern, private files."""

import asyncio
import sqlite3
import stat
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent import store as store_module
from agent.errors import StoreDamaged, StoreError
from agent.store import Store, get_meta, set_meta


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = Store(tmp_path / "agent.db")
    yield opened
    await opened.close()


async def test_the_file_is_private_and_durable(store: Store) -> None:
    await store.write(lambda db: set_meta(db, "a", 1))
    for path in store.path.parent.glob("agent.db*"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    settings = await store.write(
        lambda db: [
            db.execute(f"PRAGMA {p}").fetchone()[0] for p in ("journal_mode", "synchronous")
        ]
    )
    assert settings == ["wal", 2]  # 2: FULL


async def test_a_write_that_raises_fails_alone(store: Store) -> None:
    def broken(db: sqlite3.Connection) -> None:
        set_meta(db, "half", 1)
        raise ValueError("mine")

    def twice(db: sqlite3.Connection) -> None:
        db.execute("INSERT INTO meta VALUES ('first', 2)")

    results = await asyncio.gather(
        store.write(lambda db: set_meta(db, "first", 1)),
        store.write(broken),
        store.write(twice),
        store.write(lambda db: set_meta(db, "last", 1)),
        return_exceptions=True,
    )
    assert [type(result).__name__ for result in results] == [
        "NoneType", "ValueError", "IntegrityError", "NoneType",
    ]  # fmt: skip
    found = await store.write(lambda db: [get_meta(db, key) for key in ("first", "half", "last")])
    assert found == [1, None, 1]
    assert store.healthy


async def test_a_full_disk_is_told_to_all_and_passes(store: Store) -> None:
    """THREATS, faults: disk full. The batch is rolled back whole; caches read the file again."""
    await store.write(lambda db: db.execute("PRAGMA max_page_count=30"))
    reread: list[int] = []
    store.on_rollback(lambda db: reread.append(1))
    results = await asyncio.gather(
        store.write(lambda db: set_meta(db, "small", 1)),
        store.write(lambda db: set_meta(db, "large", "x" * 1_000_000)),
        return_exceptions=True,
    )
    assert all(isinstance(result, StoreError) for result in results)
    assert reread
    assert not store.healthy
    assert await store.write(lambda db: get_meta(db, "small")) is None
    await store.write(lambda db: set_meta(db, "small", 2))
    assert store.healthy


async def test_500_writes_a_second_share_commits_and_do_not_hold_the_loop(store: Store) -> None:
    """R-CON-4: group commit in 10 ms; the loop goes on meanwhile."""
    commits = 0

    def count(statement: str) -> None:
        nonlocal commits
        commits += statement == "COMMIT"

    await store.write(lambda db: db.set_trace_callback(count))
    late: list[float] = []
    naps: list[float] = []

    def note(began: float) -> None:
        late.append(time.monotonic() - began)

    began = time.monotonic()
    for number in range(250):  # half a second of it
        due = began + number / 500
        while (left := due - time.monotonic()) > 0:
            before = time.monotonic()
            await asyncio.sleep(min(left, 0.001))
            naps.append(time.monotonic() - before)
        asked = time.monotonic()
        future = store.write(lambda db, n=number: set_meta(db, f"k{n}", n))
        future.add_done_callback(lambda _f, asked=asked: note(asked))
    await future
    elapsed = time.monotonic() - began
    await store.write(lambda db: db.set_trace_callback(None))
    assert len(late) == 250
    assert commits <= elapsed / store_module.GATHER_S + 3
    assert commits < 125
    assert sorted(late)[len(late) // 2] < 0.05
    assert sorted(naps)[len(naps) * 9 // 10] < 0.05  # a busy machine may stand still now and then


async def test_too_many_writes_are_refused_not_kept(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "MAX_WAITING", 5)
    begun, released = threading.Event(), threading.Event()

    def slowly(_db: object) -> None:
        begun.set()
        released.wait(10)

    slow = store.write(slowly)
    assert await asyncio.to_thread(begun.wait, 10)
    futures = [store.write(lambda db: None) for _each in range(8)]
    refused = [f for f in futures if f.done() and isinstance(f.exception(), StoreError)]
    assert len(refused) == 3
    released.set()
    await slow


async def test_what_waits_is_written_at_close(tmp_path: Path) -> None:
    store = Store(tmp_path / "agent.db")
    futures = [store.write(lambda db, n=n: set_meta(db, f"k{n}", n)) for n in range(100)]
    await store.close()
    await asyncio.gather(*futures)
    with pytest.raises(StoreError):
        await store.write(lambda db: None)
    with sqlite3.connect(tmp_path / "agent.db") as db:
        assert db.execute("SELECT COUNT(*) FROM meta").fetchone() == (100,)
    db.close()


async def test_a_file_of_a_newer_agent_or_no_database_is_refused(tmp_path: Path) -> None:
    newer = tmp_path / "newer.db"
    db = sqlite3.connect(newer)
    db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(StoreError, match="newer agent"):
        Store(newer)
    (tmp_path / "text.db").write_text("this is no database at all, is it?" * 10)
    with pytest.raises(StoreDamaged, match="is damaged"):
        Store(tmp_path / "text.db")
    with pytest.raises(StoreError, match="cannot be written"):
        Store(tmp_path / "missing" / "agent.db")


async def test_a_damaged_file_is_named_and_the_remedy_works_as_it_is_pasted(tmp_path: Path) -> None:
    """Free space would not help: the file is put aside, with what SQLite left beside it."""
    state = tmp_path / "CT 2; rm -r"
    state.mkdir()
    (state / "agent.db").write_bytes(b"no database" * 500)
    with pytest.raises(StoreDamaged) as caught:
        Store(state / "agent.db")
    text = str(caught.value)
    assert f"{state}/agent.db is damaged" in text
    assert "free space" not in text
    command = text[text.index("mkdir -p") : text.index("  Then start")]
    (state / "agent.db-wal").write_bytes(b"left over")
    pasted = await asyncio.create_subprocess_exec("sh", "-c", command)
    assert await pasted.wait() == 0
    assert {path.name for path in (state / "aside").iterdir()} == {"agent.db", "agent.db-wal"}
    fresh = Store(state / "agent.db")
    await fresh.write(lambda db: set_meta(db, "a", 1))
    await fresh.close()


async def test_damage_that_shows_later_is_called_damage(tmp_path: Path) -> None:
    opened = Store(tmp_path / "agent.db")

    def spoilt(_db: sqlite3.Connection) -> None:
        error = sqlite3.DatabaseError("database disk image is malformed")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error

    with pytest.raises(StoreError, match="is damaged"):
        await opened.write(spoilt)
    await opened.close()
