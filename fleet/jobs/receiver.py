"""Fetches bundles: the portal's end of the sealed stream that a device serves a bundle on.

One transfer at a time for an execution, `MAX_TRANSFERS` in all. Bytes go to a draft beside the
bundles; size, digest and content are checked, the draft is flushed to the disk and renamed, the
execution succeeds in the database, and only then is the last of it acknowledged to the device. So
the device deletes its copy after ours is safe, and a crash anywhere before costs one more attempt.

A link that breaks for less than SEND_S interrupts nothing: the device asks for what was lost when
it is back, and this end asks when it hears nothing for ASK_S (R-CON-5).

Every attempt uses a stream number of its own, so that no nonce is used twice under the same keys.
What may be better the next time (a device that stays away, is busy, is silent) is tried again, when
the device announces the bundle again or when the tick reminds. What would be the same the next time
(too large, another digest, content off-schema) fails the execution.
"""

import asyncio
import hashlib
import logging
import os
from collections import deque
from functools import partial
from pathlib import Path
from typing import BinaryIO

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from agent.wire import bundle as bundle_format
from agent.wire.catalogue import JobReason
from agent.wire.mux import Data, Ended, Event, Mux, MuxError, Reset
from agent.wire.seal import Role, Seal, SealError, derive
from fleet.access.hub import Hub
from fleet.access.hub import hub as the_hub
from fleet.core import clock, ports
from fleet.core.threads import in_thread
from fleet.jobs import bundles
from fleet.jobs.bundles import Attempt
from fleet.jobs.wanted import wanted

MAX_TRANSFERS = 16
MAX_WAITING = 2000  # executions known here; more wait for the tick
# An injector that comes into use holds bulk back; longer than that, and the stream is opened again.
SILENCE_S = 300.0
ASK_S = 20.0  # of silence: ask the device whether anything was lost
SEND_S = 60.0  # for the device's connection to take a frame; a broken link is back within 30
TRY_AGAIN_S = 30.0
_MAX_QUEUED = 4 * 1024 * 1024  # bytes of frames not yet looked at; four times the window

log = logging.getLogger(__name__)


class BundleRefusedError(Exception):
    """The bundle must not be stored, now or ever; `reason` says why."""

    def __init__(self, reason: JobReason) -> None:
        super().__init__(reason.value)
        self.reason = reason


class InterruptedTransferError(Exception):
    """The transfer stopped; the next one may not."""


class Transfer:
    """One attempt, from OPEN to the last acknowledgement. A sink of the hub."""

    def __init__(self, attempt: Attempt, file: BinaryIO, hub: Hub) -> None:
        self.device = attempt.device
        self._attempt = attempt
        self._file = file
        self._hub = hub
        self._session = bytes.fromhex(attempt.execution)
        self._frames: deque[bytes] = deque()
        self._queued = 0
        self._wake = asyncio.Event()
        self._heard_at = 0.0  # loop time of the last frame that the device sealed
        self._size = 0
        self._digest = hashlib.sha256()
        self._held = 0  # bytes of the last chunk, not yet acknowledged
        self._mux = Mux(_seal(attempt), max_streams=1)

    def frame(self, frame: bytes) -> None:
        """From the hub. What overflows is lost, and asked for again: an honest device has credit
        for a quarter of it."""
        if self._queued + len(frame) <= _MAX_QUEUED:
            self._queued += len(frame)
            self._frames.append(frame)
            self._wake.set()

    async def fetch(self) -> None:
        """Write the bundle to the file. Raises BundleRefusedError, InterruptedTransferError."""
        stream = self._attempt.number
        self._hub.register(self._session, self)
        self._heard_at = asyncio.get_running_loop().time()
        self._mux.open(stream, "bundle", bulk=True)
        self._mux.end(stream)
        await self._send()
        while not await self._receive():
            await self._send()
        if (self._size, self._digest.hexdigest()) != (self._attempt.size, self._attempt.digest):
            raise BundleRefusedError(JobReason.ALTERED)

    async def acknowledge(self) -> None:
        """The bundle is safe here: the device may delete its copy."""
        self._mux.consumed(self._attempt.number, self._held)
        await self._send()

    def close(self) -> None:
        """Let go of the stream, if it is still open, and of the hub."""
        try:
            self._mux.reset(self._attempt.number)
            while (frame := self._mux.next_frame()) is not None:
                ports.send_frame(self.device, frame)
        finally:
            self._hub.unregister(self._session, self)

    async def _receive(self) -> bool:
        """Take what has arrived, waiting for something. True at the end of the bundle."""
        await self._wait()
        self._wake.clear()
        ended = False
        while self._frames:
            frame = self._frames.popleft()
            self._queued -= len(frame)
            try:
                events = self._mux.receive(frame)
            except MuxError as error:  # not of this stream's making: it changes nothing
                log.info("execution %s: %s", self._attempt.execution, error)
                continue
            self._heard_at = asyncio.get_running_loop().time()
            for event in events:
                ended = self._event(event) or ended
        return ended

    async def _wait(self) -> None:
        """For a frame. Raises InterruptedTransferError SILENCE_S after the last one."""
        loop = asyncio.get_running_loop()
        while not self._wake.is_set():
            left = self._heard_at + SILENCE_S - loop.time()
            if left <= 0:
                raise InterruptedTransferError("the device is silent")
            try:
                async with asyncio.timeout(min(left, ASK_S)):
                    await self._wake.wait()
            except TimeoutError:
                self._mux.ask(self._attempt.number)
                await self._send()

    def _event(self, event: Event) -> bool:
        if isinstance(event, Data):
            self._size += len(event.data)
            if self._size > self._attempt.size:
                raise BundleRefusedError(JobReason.ALTERED)
            self._file.write(event.data)
            self._digest.update(event.data)
            # One chunk behind: the last is acknowledged when everything is safe.
            self._mux.consumed(event.stream, self._held)
            self._held = len(event.data)
        elif isinstance(event, Reset):
            raise InterruptedTransferError(f"the device reset the stream: {event.code.name}")
        return isinstance(event, Ended)

    async def _send(self) -> None:
        while (frame := self._mux.next_frame()) is not None:
            try:
                async with asyncio.timeout(SEND_S):
                    # Nothing says when there is room, and nothing here is in a hurry.
                    while not ports.send_frame(self.device, frame):  # noqa: ASYNC110
                        await asyncio.sleep(0.02)
            except TimeoutError:
                raise InterruptedTransferError("the device takes no frames") from None


def _seal(attempt: Attempt) -> Seal:
    try:
        return derive(
            private=X25519PrivateKey.from_private_bytes(attempt.private_key),
            peer=attempt.device_key,
            binding=attempt.binding,
            session=bytes.fromhex(attempt.execution),
            role=Role.CLIENT,
        )
    except (SealError, ValueError):
        raise BundleRefusedError(JobReason.INTERNAL) from None


class Receiver:
    """Runs the transfers. See `fleet.jobs.wanted` for who says what is wanted."""

    def __init__(self, hub: Hub | None = None) -> None:
        self._hub = hub or the_hub
        self._waiting: asyncio.Queue[str] = asyncio.Queue(MAX_WAITING)
        self._known: dict[str, asyncio.Task[None] | None] = {}  # None: waiting for its turn
        self._once_more: set[str] = set()
        self._tried: dict[str, float] = {}  # loop time of the last attempt that was interrupted
        self._places = asyncio.Semaphore(MAX_TRANSFERS)

    async def run(self) -> None:
        """Until cancelled."""
        await asyncio.to_thread(_remove_drafts)
        async with asyncio.TaskGroup() as group:
            wanted.attach(self)
            try:
                while True:
                    execution = await self._waiting.get()
                    await self._places.acquire()
                    task = group.create_task(self._transfer(execution))
                    self._known[execution] = task
                    task.add_done_callback(partial(self._done, execution))
            finally:
                wanted.detach(self)

    def want(self, execution: str) -> None:
        self._tried.pop(execution, None)
        task = self._known.get(execution)
        if task is not None:
            self._once_more.add(execution)
            task.cancel()
        else:
            self._enqueue(execution)

    def remind(self, execution: str) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._tried.get(execution, -TRY_AGAIN_S) >= TRY_AGAIN_S:
            self._enqueue(execution)

    def drop(self, execution: str) -> None:
        self._tried.pop(execution, None)
        self._once_more.discard(execution)
        task = self._known.get(execution)
        if task is not None:
            task.cancel()

    def _enqueue(self, execution: str) -> None:
        if execution not in self._known and not self._waiting.full():
            self._known[execution] = None
            self._waiting.put_nowait(execution)

    def _done(self, execution: str, _task: asyncio.Task[None]) -> None:
        self._places.release()
        del self._known[execution]
        if execution in self._once_more:
            self._once_more.discard(execution)
            self._enqueue(execution)

    async def _transfer(self, execution: str) -> None:
        try:
            attempt = await in_thread(bundles.begin_attempt, execution)
            if attempt is not None:
                await self._attempt(attempt)
        except InterruptedTransferError as error:
            log.info("execution %s: interrupted: %s", execution, error)
            self._wait_before(execution)
        except Exception:  # a full disk, a locked database: the others go on, and this one later
            log.exception("execution %s", execution)
            self._wait_before(execution)

    def _wait_before(self, execution: str) -> None:
        if len(self._tried) >= MAX_WAITING:
            self._tried.clear()
        self._tried[execution] = asyncio.get_running_loop().time()

    async def _attempt(self, attempt: Attempt) -> None:
        folder = await asyncio.to_thread(bundles.folder)
        final = folder / bundles.file_name(attempt.execution)
        draft = folder / f"{attempt.execution}.{attempt.number}.part"
        try:
            with await asyncio.to_thread(_create, draft) as file:
                transfer = Transfer(attempt, file, self._hub)
                try:
                    await transfer.fetch()
                    if await in_thread(_store, attempt, file, draft, final):
                        await transfer.acknowledge()
                finally:
                    transfer.close()
        except BundleRefusedError as error:
            log.warning("execution %s: bundle refused: %s", attempt.execution, error.reason)
            await in_thread(bundles.failed, attempt, error.reason, now=clock.now())
        finally:
            draft.unlink(missing_ok=True)


def _create(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600), "w+b")


def _store(attempt: Attempt, file: BinaryIO, draft: Path, final: Path) -> bool:
    """Check what the bundle holds, put it under its name for good, and say so in the database.

    One call, so that a cancelled wait leaves no half of it. False when the bundle is not wanted any
    more. Raises BundleRefusedError.
    """
    file.seek(0)
    try:
        manifest = bundle_format.unpack(file.read()).manifest
    except bundle_format.BundleError as error:
        log.warning("execution %s: %s", attempt.execution, error)  # it quotes no content
        raise BundleRefusedError(JobReason.SCHEMA) from None
    if (manifest.execution, manifest.device) != (attempt.execution, attempt.device):
        raise BundleRefusedError(JobReason.ALTERED)
    file.flush()
    os.fsync(file.fileno())
    draft.replace(final)
    folder = os.open(final.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    stored = bundles.arrived(attempt, now=clock.now())
    if not stored:
        final.unlink(missing_ok=True)
    return stored


def _remove_drafts() -> None:
    """What an earlier process left half done."""
    for draft in bundles.folder().glob("*.part"):
        draft.unlink(missing_ok=True)
