"""Rows that change together with the message that tells of it, and what is on record about them."""

import sqlite3
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from agent.jobs import table
from agent.jobs.table import Row
from agent.outbox import Entry
from agent.runtime import Agent
from agent.wire.catalogue import ExecutionState, JobReason, Outcome
from agent.wire.messages import Bundle, Cancel, Execution

NEVER = "0" * 64  # the digest of a job that was cancelled before it came
ACTION = {
    ExecutionState.SUCCEEDED: "job:succeed",
    ExecutionState.FAILED: "job:fail",
    ExecutionState.TIMED_OUT: "job:time_out",
    ExecutionState.REJECTED: "job:reject",
    ExecutionState.CANCELLED: "job:cancel",
}
_OUTCOME = {
    ExecutionState.FAILED: Outcome.FAILED,
    ExecutionState.TIMED_OUT: Outcome.FAILED,
    ExecutionState.REJECTED: Outcome.REFUSED,
}


def tombstone(cancel: Cancel, now_ms: int) -> Row:
    return Row(
        id=cancel.execution,
        kind="",
        hours=0,
        not_after=0,
        portal_key=b"",
        digest=NEVER,
        state=ExecutionState.CANCELLED,
        received_at=now_ms,
    )


def progress(row: Row, key: X25519PrivateKey | None = None) -> dict[str, Any]:
    """The fields of the message that says where a row stands; with a key, that its bundle is
    offered under it."""
    fields: dict[str, Any] = {"execution": row.id, "state": row.state, "reason": row.reason}
    if key is None or row.bundle_digest is None or row.bundle_size is None:
        return fields
    return fields | {
        "state": ExecutionState.RUNNING,
        "key": key.public_key().public_bytes_raw(),
        "bundle": Bundle(digest=row.bundle_digest, size=row.bundle_size),
    }


async def write(
    agent: Agent,
    row: Row,
    *,
    told: bool,
    new: bool = False,
    key: X25519PrivateKey | None = None,
) -> None:
    """Insert or update a row; if `told`, with the message about it in the same transaction.

    Raises StoreError.
    """
    stamp = {
        "at": agent.clock.wall_ms(),
        "boot": agent.clock.boot,
        "uptime_ms": agent.clock.uptime_ms(),
    }
    keep = table.insert if new else table.update

    def with_message(connection: sqlite3.Connection) -> tuple[Any, Entry]:
        keep(connection, row)
        return agent.outbox.insert(connection, Execution, {**stamp, **progress(row, key)})

    if told:
        await agent.outbox.committing(with_message)
    else:
        await agent.store.write(lambda db: keep(db, row))


async def record(
    agent: Agent,
    action: str,
    row: Row,
    *,
    actor: str = "agent",
    reason: JobReason | None = None,
    digest: str | None = None,
) -> None:
    """Raises AuditUnwritable: then what was to be recorded must not happen."""
    await agent.record(
        action,
        actor=actor,
        outcome=_OUTCOME.get(row.state, Outcome.ALLOWED),
        execution=row.id,
        reason=reason.value if reason else None,
        digest=digest or row.digest,
    )


async def record_end(agent: Agent, row: Row, *, actor: str = "agent") -> None:
    """`row` as it will be. Raises AuditUnwritable."""
    await record(agent, ACTION[row.state], row, actor=actor, reason=row.reason)
