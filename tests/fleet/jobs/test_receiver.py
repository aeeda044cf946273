"""Fetching bundles over a real multiplexer: whole, once, nothing else (R-MNT-3, R-PRV-1)."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from agent.wire.bundle import MAX_BUNDLE
from agent.wire.catalogue import ExecutionState, JobReason
from fleet.access.hub import Hub
from fleet.accounts.models import User
from fleet.core import ports
from fleet.core.threads import in_thread
from fleet.jobs import bundles, receiver, services
from fleet.jobs.models import Execution
from fleet.jobs.receiver import Receiver
from fleet.jobs.wanted import wanted
from tests.fleet.jobs.injector import Injector, bundle_for

S = ExecutionState
Reach = Callable[..., Execution]


@pytest.fixture
def running(transactional_db: None, reach: Reach, injector: Injector) -> Iterator[Execution]:
    """An execution at work, on a device that is connected."""
    execution = reach(S.RUNNING)
    ports.set_frame_sender(injector.frame)
    yield execution
    ports.set_frame_sender(None)


@asynccontextmanager
async def receiving(hub: Hub) -> AsyncIterator[Receiver]:
    it = Receiver(hub)
    task = asyncio.create_task(it.run())
    async with asyncio.timeout(5):
        while wanted._listener is None:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    try:
        yield it
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert wanted._listener is None
        assert hub._sinks == {}


async def until(execution: Execution, *states: ExecutionState) -> None:
    async with asyncio.timeout(10):
        while True:
            await in_thread(execution.refresh_from_db)
            if execution.state in states:
                return
            await asyncio.sleep(0.01)


async def eventually(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def drafts() -> list[Path]:
    return list(bundles.folder().glob("*.part"))


def kept(execution: Execution) -> Path:
    return bundles.folder() / bundles.file_name(execution.pk)


async def test_a_bundle_comes_whole(running: Execution, injector: Injector, hub: Hub) -> None:
    data = bundle_for(running, samples=20_000)
    assert len(data) > 100_000
    async with receiving(hub) as it:
        await in_thread(injector.announces, running, data)
        await until(running, S.SUCCEEDED)
        await eventually(lambda: not it._known)
        assert injector.done
    assert kept(running).read_bytes() == data
    assert kept(running).stat().st_mode & 0o077 == 0
    assert (running.bundle_path, running.attempt) == (f"bundles/{running.pk}.zip", 1)
    assert bytes(running.private_key) == b""
    assert drafts() == []


async def test_the_device_may_delete_only_after_it_is_safe_here(
    running: Execution, injector: Injector, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last acknowledgement follows the commit."""
    seen: list[tuple[bool, bool]] = []
    real = bundles.arrived

    def arrived(attempt: bundles.Attempt, *, now: datetime) -> bool:
        seen.append((injector.done, kept(running).exists()))
        return real(attempt, now=now)

    monkeypatch.setattr(bundles, "arrived", arrived)
    async with receiving(hub):
        await in_thread(injector.announces, running, bundle_for(running))
        await until(running, S.SUCCEEDED)
        await eventually(lambda: injector.done)
    assert seen == [(False, True)]


# --- what must not be stored --------------------------------------------------------------------


def another_execution(execution: Execution) -> bytes:
    return bundle_for(execution, samples=5, execution="f" * 32)


def another_device(execution: Execution) -> bytes:
    return bundle_for(execution, samples=5, device="device-0002")


def no_bundle(_execution: Execution) -> bytes:
    return b"DOE^JANE 1970-01-01 " * 4000


def a_tail_of_text(execution: Execution) -> bytes:
    return bundle_for(execution, samples=5) + b"DOE^JANE"


@pytest.mark.parametrize(
    ("make", "changes", "reason"),
    [
        (bundle_for, {"digest": "0" * 64}, JobReason.ALTERED),
        (bundle_for, {"size": 10}, JobReason.ALTERED),
        (bundle_for, {"size": MAX_BUNDLE}, JobReason.ALTERED),
        (another_execution, {}, JobReason.ALTERED),
        (another_device, {}, JobReason.ALTERED),
        (no_bundle, {}, JobReason.SCHEMA),
        (a_tail_of_text, {}, JobReason.SCHEMA),
    ],
)
async def test_what_is_not_the_bundle_fails_the_execution(
    running: Execution,
    injector: Injector,
    hub: Hub,
    make: Callable[[Execution], bytes],
    changes: dict[str, Any],
    reason: JobReason,
) -> None:
    async with receiving(hub) as it:
        data = await in_thread(make, running)
        await in_thread(lambda: injector.announces(running, data, **changes))
        await until(running, S.FAILED, S.SUCCEEDED)
        await eventually(lambda: not it._known)
    assert (running.state, running.reason) == (S.FAILED, reason)
    assert not injector.done
    assert running.cancel_owed
    assert not kept(running).exists()
    assert drafts() == []


async def test_a_key_that_is_none(running: Execution, injector: Injector, hub: Hub) -> None:
    await in_thread(injector.announces, running, bundle_for(running, samples=1))
    await in_thread(lambda: Execution.objects.update(device_key=bytes(32)))
    async with receiving(hub):
        wanted.want(running.pk)
        await until(running, S.FAILED)
    assert running.reason == JobReason.INTERNAL


# --- what is tried again ------------------------------------------------------------------------


async def test_a_stream_that_breaks_is_opened_again_under_another_number(
    running: Execution, injector: Injector, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No stream number, so no nonce, is used twice under the same keys."""
    monkeypatch.setattr(receiver, "TRY_AGAIN_S", 0.05)
    data = bundle_for(running)
    injector.cut_after = 10_000
    async with receiving(hub) as it:
        await in_thread(injector.announces, running, data)
        await eventually(lambda: not it._known)
        await in_thread(running.refresh_from_db)
        assert running.state == S.RUNNING
        await asyncio.sleep(0.06)
        wanted.remind(running.pk)
        await until(running, S.SUCCEEDED)
    assert injector.opened == [1, 2]
    assert kept(running).read_bytes() == data


async def test_a_link_that_breaks_under_a_transfer_interrupts_nothing(
    running: Execution, injector: Injector, hub: Hub
) -> None:
    """R-CON-5: the device is back, asks, and both send again what was lost; the same stream."""
    data = bundle_for(running, samples=20_000)
    injector.mute = True
    async with receiving(hub) as it:
        await in_thread(injector.announces, running, data)
        await eventually(lambda: injector.opened == [1])
        injector.mute, injector.lose = False, 10**6
        injector.reconnects()  # and breaks with everything on its way
        injector.offline, injector.lose = True, 0
        await asyncio.sleep(0.1)
        injector.reconnects()
        await until(running, S.SUCCEEDED)
        await eventually(lambda: not it._known)
    assert injector.opened == [1]
    assert injector.done
    assert kept(running).read_bytes() == data


async def test_frames_that_were_lost_without_a_word_are_asked_for(
    running: Execution, injector: Injector, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiver, "ASK_S", 0.05)
    data = bundle_for(running)
    injector.lose = 10**6
    async with receiving(hub):
        await in_thread(injector.announces, running, data)
        await eventually(lambda: injector.opened == [1])
        injector.lose = 0
        await until(running, S.SUCCEEDED)
    assert injector.opened == [1]
    assert kept(running).read_bytes() == data


async def test_reminders_wait_a_while_and_announcements_do_not(
    running: Execution, injector: Injector, hub: Hub
) -> None:
    data = bundle_for(running)
    injector.cut_after = 1
    async with receiving(hub) as it:
        await in_thread(injector.announces, running, data)
        await eventually(lambda: not it._known)
        for _ in range(3):
            wanted.remind(running.pk)
        await asyncio.sleep(0.05)
        assert injector.opened == [1]
        await in_thread(injector.announces, running, data)
        await until(running, S.SUCCEEDED)


async def test_a_silent_device_is_let_go(
    running: Execution, injector: Injector, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiver, "SILENCE_S", 0.05)
    injector.mute = True
    async with receiving(hub) as it:
        await in_thread(injector.announces, running, bundle_for(running))
        await eventually(lambda: it._tried)
        await eventually(lambda: not it._known)
    await in_thread(running.refresh_from_db)
    assert running.state == S.RUNNING
    assert drafts() == []


async def test_a_device_that_takes_no_frames(
    running: Execution, injector: Injector, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiver, "SEND_S", 0.05)
    injector.offline = True
    async with receiving(hub) as it:
        await in_thread(injector.announces, running, bundle_for(running))
        await eventually(lambda: it._tried)


async def test_frames_that_were_altered_on_the_way_are_as_if_lost(
    running: Execution, injector: Injector, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiver, "SILENCE_S", 0.05)
    injector.flip = True
    async with receiving(hub) as it:
        await in_thread(injector.announces, running, bundle_for(running))
        await eventually(lambda: it._tried)
    await in_thread(running.refresh_from_db)
    assert running.state == S.RUNNING


async def test_an_announcement_starts_a_transfer_under_way_over(
    running: Execution, injector: Injector, hub: Hub
) -> None:
    """The device has connected again: what it was sent before is lost."""
    data = bundle_for(running)
    injector.mute = True
    async with receiving(hub):
        await in_thread(injector.announces, running, data)
        await eventually(lambda: injector.opened == [1])
        injector.mute = False
        await in_thread(injector.announces, running, data)
        await until(running, S.SUCCEEDED)
    assert injector.opened == [1, 2]
    assert kept(running).read_bytes() == data


async def test_trouble_with_one_leaves_the_others_alone(
    running: Execution,
    reach: Reach,
    injector: Injector,
    hub: Hub,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = os.fsync

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    async with receiving(hub) as it:
        await in_thread(injector.announces, running, bundle_for(running))
        await eventually(lambda: it._tried)
        await eventually(lambda: not it._known)
        assert not kept(running).exists()
        assert not injector.done
        monkeypatch.setattr(os, "fsync", real)
        await in_thread(injector.announces, running, bundle_for(running))
        await until(running, S.SUCCEEDED)


# --- races --------------------------------------------------------------------------------------


async def test_cancelled_while_it_comes(
    running: Execution, injector: Injector, hub: Hub, owner: User, now: datetime
) -> None:
    injector.mute = True
    async with receiving(hub) as it:
        await in_thread(injector.announces, running, bundle_for(running))
        await eventually(lambda: injector.opened == [1])
        await in_thread(services.cancel, actor=owner, execution=running, now=now)
        await eventually(lambda: not it._known)
    assert drafts() == []
    assert not kept(running).exists()


async def test_cancelled_at_the_last_moment(
    running: Execution,
    injector: Injector,
    hub: Hub,
    owner: User,
    now: datetime,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between the check and the commit: the file is not kept, and the device is told."""
    real = bundles.arrived

    def arrived(attempt: bundles.Attempt, *, now: datetime) -> bool:
        services.cancel(actor=owner, execution=running, now=now)
        return real(attempt, now=now)

    monkeypatch.setattr(bundles, "arrived", arrived)
    async with receiving(hub) as it:
        await in_thread(injector.announces, running, bundle_for(running))
        await until(running, S.CANCELLED)
        await eventually(lambda: not it._known)
        await eventually(lambda: not kept(running).exists())
    assert not injector.done


async def test_another_bundle_is_announced_meanwhile(
    running: Execution, injector: Injector, hub: Hub
) -> None:
    await in_thread(injector.announces, running, bundle_for(running, samples=3))
    attempt = await in_thread(bundles.begin_attempt, running.pk)
    assert attempt is not None
    await in_thread(injector.announces, running, bundle_for(running, samples=4))
    assert not await in_thread(bundles.arrived, attempt, now=injector.now)
    await in_thread(bundles.failed, attempt, JobReason.ALTERED, now=injector.now)
    await in_thread(running.refresh_from_db)
    assert running.state == S.RUNNING


async def test_what_is_not_due_is_left_alone(running: Execution, hub: Hub) -> None:
    async with receiving(hub) as it:
        wanted.want(running.pk)  # nothing was announced
        wanted.want("f" * 32)
        await eventually(lambda: not it._known)
    assert drafts() == []


async def test_drafts_of_an_earlier_process_are_removed(transactional_db: None, hub: Hub) -> None:
    draft = bundles.folder() / "left.1.part"
    draft.write_bytes(b"half")
    async with receiving(hub):
        assert not draft.exists()


def test_without_a_receiver_nothing_is_heard() -> None:
    for say in (wanted.want, wanted.remind, wanted.drop):
        say("f" * 32)
