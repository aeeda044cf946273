"""Runs jobs, each once, and says how they go.

                     in use: stays, reason in_use
                            ╭──╮
    a job ──▶ sent ─────────┴──┴──▶ running ──▶ running, with key and bundle ──▶ succeeded
               │                       │                     │
               ╰───────────────────────┴─────────────────────┴──▶ failed timed_out cancelled
    a job ──▶ rejected

Theory. A job is a row before it is anything else; a delivery that finds its row is answered with
where the execution stands, and starts nothing. A row and the message that tells of its change are
one transaction, so the portal learns of every change, once, whatever crashes. The work itself only
reads, so one that a crash cut short starts over and nobody can tell. A cancellation for a job that
never came leaves a row as well: should the job come after all, it is over.

The bundle is served until the portal has taken every byte, under one key for as long as this
process lives: a restart forgets where the streams were, so it makes a new key, or a nonce could
be used twice. The portal opens a new stream for each attempt. A portal that lost the bundle
afterwards sends the job again, and as long as the file is there it is offered again.
"""

import asyncio
import hashlib
import logging
import shutil
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from agent import posix, privacy
from agent.access import site
from agent.errors import AuditUnwritable, PeerError, StoreError
from agent.i18n import _
from agent.jobs import diagnostics, ledger, table
from agent.jobs.table import Row
from agent.privacy import PrivacyError
from agent.runtime import AGENT_VERSION, Agent
from agent.streams import Streams
from agent.wire import seal
from agent.wire.bundle import MAX_BUNDLE
from agent.wire.catalogue import (
    EXECUTION_TRANSITIONS,
    ClinicalState,
    ExecutionState,
    JobReason,
)
from agent.wire.messages import Bundle, Cancel, Execution, Job
from agent.wire.seal import Role, SealError

FOLDER = "bundles"
SERVICE = "bundle"
MAX_OPEN = 32  # executions that wait or run
MAX_KEPT = 8  # bundles kept after the portal took them
MAX_SERVED = 6  # at a time; others wait their turn
KEEP_FILE_MS = 24 * 3600 * 1000  # after the deadline
ANSWER_AGAIN_S = 5.0  # a job that comes again is answered at most this often
MAX_ANSWERED = 1_000  # jobs of which this is remembered
RETRY_S = 5.0  # after the disk refused
FREE_BYTES = 2 * MAX_BUNDLE  # that the disk must have before a bundle is made

log = logging.getLogger(__name__)


class Runner:
    """One per agent. Everything runs in the loop, but for the making of a bundle."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._folder: Path = agent.state_dir / FOLDER
        self._open: dict[str, Row] = {}  # not over, or with a file to serve
        self._keys: dict[str, X25519PrivateKey] = {}  # of the bundles that are served
        self._answered: dict[str, tuple[float, str]] = {}  # when, and the digest of the job
        self._lock = asyncio.Lock()  # held by whoever changes rows
        self._wake = asyncio.Event()
        self._loaded = asyncio.Event()

    def start(self) -> None:
        agent = self._agent
        agent.handle(Job, self._job)
        agent.handle(Cancel, self._cancel)
        agent.on_clinical_state(self._clinical)
        agent.on_tick(self._tick)
        agent.status_from(self._status)
        agent.spawn(self._work(), name="jobs")

    # --- what comes down -------------------------------------------------------------------------

    async def _job(self, job: Job, payload: bytes) -> None:
        """Raises PeerError, StoreError."""
        digest = hashlib.sha256(payload).hexdigest()
        if self._answered_lately(job.execution, digest):
            return
        await self._loaded.wait()
        async with self._lock:
            known = await self._agent.store.write(lambda db: table.find(db, job.execution))
            if known is not None:
                self._again(known, digest)
            else:
                await self._new(job, digest)
        self._agent.accept("job", job.execution, payload)
        self._wake.set()

    async def _new(self, job: Job, digest: str) -> None:
        row = Row(
            id=job.execution,
            kind=job.kind.value,
            hours=job.hours,
            not_after=job.not_after,
            portal_key=job.key,
            digest=digest,
            state=ExecutionState.SENT,
            received_at=self._agent.clock.wall_ms(),
        )
        await ledger.record(self._agent, "job:receive", row, actor="portal")
        refused = self._refusal(row)
        if refused is None:
            await ledger.write(self._agent, row, told=False, new=True)
            self._open[row.id] = row
            return
        row = msgspec.structs.replace(row, state=refused[0], reason=refused[1])
        await ledger.record_end(self._agent, row)
        await ledger.write(self._agent, row, told=True, new=True)

    def _refusal(self, row: Row) -> tuple[ExecutionState, JobReason] | None:
        """Why a job is over before it begins."""
        if row.not_after <= self._agent.clock.wall_ms():
            return ExecutionState.TIMED_OUT, JobReason.DEADLINE
        policy = site.in_force(self._agent.state_dir, self._agent.clock.wall_ms())
        if not policy.remote:
            return ExecutionState.REJECTED, JobReason.REMOTE_OFF
        if policy.jobs == "deny":
            return ExecutionState.REJECTED, JobReason.POLICY
        if sum(not known.state.over for known in self._open.values()) >= MAX_OPEN:
            return ExecutionState.REJECTED, JobReason.POLICY
        try:
            self._seal(row, X25519PrivateKey.generate())
        except SealError:  # the portal's key is none
            return ExecutionState.REJECTED, JobReason.POLICY
        return None

    def _answered_lately(self, id: str, digest: str) -> bool:
        """Whether this very job was answered a moment ago; from now on it was."""
        now = self._agent.clock.now()
        at, known = self._answered.get(id, (-ANSWER_AGAIN_S, ""))
        if known == digest and now - at < ANSWER_AGAIN_S:
            return True
        if len(self._answered) >= MAX_ANSWERED:
            self._answered.clear()
        self._answered[id] = (now, digest)
        return False

    def _again(self, row: Row, digest: str) -> None:
        """The job came before: nothing runs, the portal hears where it stands. Raises PeerError."""
        if digest != row.digest and row.digest != ledger.NEVER:
            raise PeerError(_("A job came again under the same number with other content."))
        wanted_again = row.state is ExecutionState.SUCCEEDED and row.has_bundle
        if wanted_again and row.id not in self._keys and len(self._keys) < MAX_SERVED:
            self._serve(row, X25519PrivateKey.generate())
        self._agent.emit(Execution, **ledger.progress(row, self._keys.get(row.id)))

    async def _cancel(self, cancel: Cancel, payload: bytes) -> None:
        """Raises StoreError."""
        await self._loaded.wait()
        async with self._lock:
            row = self._open.get(cancel.execution)
            if row is None:
                await self._agent.store.write(
                    lambda db: table.bury(db, ledger.tombstone(cancel, self._agent.clock.wall_ms()))
                )
            elif row.state.over:
                await self._forget_file(row)
            else:
                await self._end(row, ExecutionState.CANCELLED, None, actor="portal")
        self._agent.accept("cancel", cancel.execution, payload)

    # --- what time and the clinic do -------------------------------------------------------------

    def _clinical(self, _state: ClinicalState) -> None:
        self._wake.set()

    def _tick(self, _now: float) -> None:
        wall = self._agent.clock.wall_ms()
        if any(_due(row, wall) for row in self._open.values()):
            self._wake.set()

    def _status(self) -> dict[str, Any]:
        return {"jobs_open": sum(not row.state.over for row in self._open.values())}

    # --- the work --------------------------------------------------------------------------------

    async def _work(self) -> None:
        """Every change of a row but its first and its cancellation happens here, one at a time."""
        await asyncio.to_thread(self._folder.mkdir, mode=posix.PRIVATE_DIR, exist_ok=True)
        for row in await self._agent.store.write(table.create):
            self._open[row.id] = row
        self._sweep()
        self._loaded.set()
        self._wake.set()
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._round()
            except (StoreError, AuditUnwritable) as error:
                log.warning("jobs wait for the disk: %s", error)
                await asyncio.sleep(RETRY_S)
                self._wake.set()

    async def _round(self) -> None:
        """Everything that can be done now. Raises StoreError."""
        for id in list(self._open):
            async with self._lock:
                row = self._open.get(id)
                if row is not None:
                    await self._one(row)

    async def _one(self, row: Row) -> None:
        late = _due(row, self._agent.clock.wall_ms())
        if row.state.over:
            if late:
                await self._forget_file(row)
        elif late:
            await self._end(row, ExecutionState.TIMED_OUT, JobReason.DEADLINE)
        elif row.id in self._keys or len(self._keys) >= MAX_SERVED:
            return  # the portal fetches it, or others first
        elif row.has_bundle:
            await self._offer(row)  # made before this process started
        elif self._agent.clinical_state.in_use:
            await self._defer(row)
        else:
            await self._run(row)

    async def _defer(self, row: Row) -> None:
        if row.state is ExecutionState.SENT and row.reason is not JobReason.IN_USE:
            log.info("job %s waits: the injector is in use", row.id)
            await self._change(row, reason=JobReason.IN_USE)

    async def _run(self, row: Row) -> None:
        await ledger.record(self._agent, "job:run", row)
        if row.state is ExecutionState.SENT:
            row = await self._change(row, state=ExecutionState.RUNNING, reason=None)
        reason = JobReason.INTERNAL
        try:
            bundle = await self._make(row)
        except (StoreError, AuditUnwritable):
            raise
        except PrivacyError as error:
            log.error("a bundle was refused: %s", error)
            reason = JobReason.SCHEMA
        except OSError:
            log.exception("a bundle could not be kept")
            reason = JobReason.DISK_FULL
        except Exception:
            log.exception("a job failed")
        else:
            await self._offer(
                msgspec.structs.replace(row, bundle_digest=bundle.digest, bundle_size=bundle.size)
            )
            return
        await self._end(row, ExecutionState.FAILED, reason)

    async def _make(self, row: Row) -> Bundle:
        """Collect, pass the gate, keep as a file. Raises PrivacyError, OSError."""
        agent = self._agent
        disk = await asyncio.to_thread(shutil.disk_usage, self._folder)
        if disk.free < FREE_BYTES:
            raise OSError("the disk has no room for a bundle")
        audit = await agent.store.write(diagnostics.audit_entries)
        seen = diagnostics.look(
            execution=row.id,
            device=agent.device,
            agent_version=AGENT_VERSION,
            driver=agent.driver,
            clock=agent.clock,
            hours=row.hours,
            audit=audit,
        )
        return await asyncio.to_thread(self._keep, seen, self._path(row.id))

    @staticmethod
    def _keep(seen: diagnostics.Seen, path: Path) -> Bundle:
        """In a thread of its own: a week of samples takes a second or two."""
        data = privacy.seal_off(diagnostics.contents(seen))
        posix.write_private(path, data)
        return Bundle(digest=hashlib.sha256(data).hexdigest(), size=len(data))

    # --- serving ---------------------------------------------------------------------------------

    async def _offer(self, row: Row) -> None:
        """Key and digest go up, and the portal opens a stream for the bundle. Raises StoreError."""
        key = X25519PrivateKey.generate()
        self._serve(row, key)  # first: the portal may open the moment it is told
        try:
            await ledger.write(self._agent, row, told=True, key=key)
        except BaseException:
            self._stop_serving(row.id)
            raise
        self._open[row.id] = row

    def _serve(self, row: Row, key: X25519PrivateKey) -> None:
        self._keys[row.id] = key
        self._agent.get(Streams).serve_file(
            bytes.fromhex(row.id),
            self._seal(row, key),
            SERVICE,
            self._path(row.id),
            lambda whole: self._served(row.id, whole),
        )

    def _stop_serving(self, id: str) -> None:
        if self._keys.pop(id, None) is not None:
            self._agent.get(Streams).withdraw(bytes.fromhex(id))

    def _served(self, id: str, whole: bool) -> None:
        self._agent.spawn(self._after_serving(id, whole), name=f"job {id}")

    async def _after_serving(self, id: str, whole: bool) -> None:
        async with self._lock:
            row = self._open.get(id)
            if row is None or id not in self._keys:
                return
            try:
                if not whole:  # the file is gone
                    await self._lost(row)
                elif not row.state.over:
                    await ledger.record(self._agent, "job:succeed", row, digest=row.bundle_digest)
                    await self._change(row, state=ExecutionState.SUCCEEDED, reason=None)
                    await self._thin_out()
                self._stop_serving(id)
            except (StoreError, AuditUnwritable):
                # It stays running; the portal, which has the bundle, tells us that it is over.
                log.exception("the end of job %s was not written", id)
        self._wake.set()

    async def _lost(self, row: Row) -> None:
        if row.state.over:
            await self._forget_file(row)
        else:
            await self._end(row, ExecutionState.FAILED, JobReason.INTERNAL)

    async def _thin_out(self) -> None:
        kept = [row for row in self._open.values() if row.state.over]
        for oldest in kept[:-MAX_KEPT]:
            await self._forget_file(oldest)

    def _seal(self, row: Row, private: X25519PrivateKey) -> seal.Seal:
        """Raises SealError."""
        return seal.derive(
            private=private,
            peer=row.portal_key,
            binding=bytes.fromhex(row.digest),
            session=bytes.fromhex(row.id),
            role=Role.DEVICE,
        )

    def _path(self, id: str) -> Path:
        return self._folder / f"{id}.zip"

    def _sweep(self) -> None:
        """Files that no row speaks of: a crash between the two."""
        for path in self._folder.iterdir():
            if path.stem not in self._open or not self._open[path.stem].has_bundle:
                posix.remove(path)

    # --- changes ---------------------------------------------------------------------------------

    async def _end(
        self, row: Row, state: ExecutionState, reason: JobReason | None, *, actor: str = "agent"
    ) -> None:
        """Over, without a bundle."""
        over = msgspec.structs.replace(row, state=state, reason=reason)
        await ledger.record_end(self._agent, over, actor=actor)
        await self._change(row, state=state, reason=reason, bundle_digest=None)
        self._drop(row)

    async def _forget_file(self, row: Row) -> None:
        row = msgspec.structs.replace(row, bundle_digest=None)
        await ledger.write(self._agent, row, told=False)
        self._drop(row)

    def _drop(self, row: Row) -> None:
        self._open.pop(row.id, None)
        self._stop_serving(row.id)
        posix.remove(self._path(row.id))

    async def _change(self, row: Row, **fields: Any) -> Row:
        """Change a row and tell the portal, in one transaction."""
        changed = msgspec.structs.replace(row, **fields)
        if changed.state is not row.state and changed.state not in EXECUTION_TRANSITIONS[row.state]:
            raise AssertionError(f"{row.state} does not lead to {changed.state}")
        await ledger.write(self._agent, changed, told=True)
        self._open[row.id] = changed
        return changed


def _due(row: Row, wall_ms: int) -> bool:
    """Whether time has something to do: the deadline, or the end of a kept file."""
    return wall_ms >= row.not_after + (KEEP_FILE_MS if row.state.over else 0)
