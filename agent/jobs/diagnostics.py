"""What `collect-diagnostics` puts together: the driver's history, its events, the audit chain."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from agent.clock import Clock
from agent.drivers import Driver
from agent.drivers.base import History
from agent.wire.bundle import MAX_ENTRIES, MAX_SAMPLES, BundleEvent, Contents, Manifest
from agent.wire.catalogue import ClinicalState, JobKind, ProductLineCode
from agent.wire.messages import AuditEntry, Sample

_HOUR_MS = 3_600_000


def audit_entries(connection: sqlite3.Connection) -> list[bytes]:
    """The newest entries of the chain, newest first, as they stand in the file; in the writer
    thread, so they are not decoded here."""
    rows = connection.execute("SELECT entry FROM audit ORDER BY idx DESC LIMIT ?", (MAX_ENTRIES,))
    return [entry for (entry,) in rows]


@dataclass(frozen=True, slots=True)
class Seen:
    """What was there at one moment of the loop. The rest is arithmetic, and may take its time."""

    execution: str
    device: str
    product_line: ProductLineCode
    software_version: str
    agent_version: str
    state: ClinicalState
    boot: str
    now_s: float
    from_at: int
    to_at: int
    history: History
    audit: Sequence[bytes]  # newest first


def look(
    *,
    execution: str,
    device: str,
    agent_version: str,
    driver: Driver,
    clock: Clock,
    hours: int,
    audit: Sequence[bytes],
) -> Seen:
    to_at = clock.wall_ms()
    return Seen(
        execution=execution,
        device=device,
        product_line=driver.product_line,
        software_version=driver.software_version,
        agent_version=agent_version,
        state=driver.state,
        boot=clock.boot,
        now_s=clock.now(),
        from_at=to_at - hours * _HOUR_MS,
        to_at=to_at,
        history=driver.history(hours),
        audit=audit,
    )


def contents(seen: Seen) -> Contents:
    """The bundle's contents, unchecked: `privacy.seal_off` decides whether they may leave."""

    def wall(at_s: float) -> int:
        # The boot clock says how long ago; the wall clock, when that was.
        return seen.to_at - round((seen.now_s - at_s) * 1000)

    samples = [
        Sample(
            at=wall(point.at_s),
            uptime_ms=round(point.at_s * 1000),
            state=point.state,
            values={metric: float(value) for metric, value in point.values.items()},
        )
        for point in seen.history.points[-MAX_SAMPLES:]
    ]
    events = [
        BundleEvent(
            at=wall(entry.at_s),
            code=entry.event.code,
            priority=entry.event.priority,
            phase=entry.event.phase,
            syringe=entry.event.syringe,  # type: ignore[arg-type]  # the gate checks it
            value=entry.event.value,
        )
        for entry in seen.history.events[-MAX_ENTRIES:]
    ]
    entries = _since(seen.from_at, seen.audit)
    manifest = Manifest(
        kind=JobKind.COLLECT_DIAGNOSTICS,
        execution=seen.execution,
        device=seen.device,
        product_line=seen.product_line,
        software_version=seen.software_version,
        agent_version=seen.agent_version,
        state=seen.state,
        boot=seen.boot,
        uptime_ms=round(seen.now_s * 1000),
        from_at=seen.from_at,
        to_at=seen.to_at,
        samples=len(samples),
        events=len(events),
        audit=len(entries),
    )
    return Contents(manifest=manifest, samples=samples, events=events, audit=entries)


def _since(from_at: int, newest_first: Sequence[bytes]) -> list[AuditEntry]:
    decoder = msgspec.json.Decoder(AuditEntry)
    entries = []
    for data in newest_first:
        entry = decoder.decode(data)
        if entry.at < from_at:
            break
        entries.append(entry)
    return entries[::-1]
