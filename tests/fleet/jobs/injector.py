"""The device's side of jobs: what it says, and the bundle it serves over a real multiplexer."""

import hashlib
import itertools
from datetime import datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from agent.wire import bundle as bundles
from agent.wire import messages as m
from agent.wire.catalogue import (
    ClinicalState,
    ExecutionState,
    JobKind,
    JobReason,
    Metric,
    ProductLineCode,
)
from agent.wire.messages import Sample
from agent.wire.mux import Acknowledged, Ended, Mux, MuxError, Opened, ResetCode
from agent.wire.seal import Role, derive
from fleet.access.hub import Hub
from fleet.core import clock
from fleet.jobs import inbound
from fleet.jobs.models import Execution
from fleet.jobs.outbound import job_message

BOOT = "b0" * 16


def bundle_for(execution: Execution, /, *, samples: int = 2000, **changes: Any) -> bytes:
    """A bundle as the device would make it; enough of it to need several frames."""
    rows = [
        Sample(
            at=n,
            uptime_ms=n,
            state=ClinicalState.IDLE,
            values={
                Metric("fan_rpm"): float((n * 7919) % 10007),
                Metric("pressure_kpa_a"): float((n * 104729) % 2099),
            },
        )
        for n in range(samples)
    ]
    fields: dict[str, Any] = {
        "kind": JobKind.COLLECT_DIAGNOSTICS,
        "execution": execution.pk,
        "device": execution.device_id,
        "product_line": ProductLineCode.CT_DUAL,
        "software_version": "4.2.0",
        "agent_version": "0.1.0",
        "state": ClinicalState.IDLE,
        "boot": BOOT,
        "uptime_ms": 5,
        "from_at": 0,
        "to_at": samples,
        "samples": samples,
        "events": 0,
        "audit": 0,
    }
    manifest = bundles.Manifest(**{**fields, **changes})
    return bundles.pack(bundles.Contents(manifest=manifest, samples=rows, events=[], audit=[]))


class Injector:
    """Speaks for a device about its executions, and serves one bundle."""

    def __init__(self, hub: Hub, now: datetime) -> None:
        self.hub = hub
        self.now = now
        self.key = X25519PrivateKey.generate()
        self.done = False
        self.opened: list[int] = []
        self.mute = False  # takes frames and answers none
        self.cut_after: int | None = None  # bytes after which it resets the stream
        self.flip = False  # alters what it sends
        self.offline = False
        self.lose = 0  # frames, from now on, that are lost on their way up
        self._seq = itertools.count(1)
        self._mux: Mux | None = None
        self._data = b""
        self._sent: dict[int, int] = {}
        self._device = ""

    # --- messages ---

    def stamp(self) -> dict[str, Any]:
        return {
            "at": clock.to_ms(self.now),
            "boot": BOOT,
            "uptime_ms": 1000,
            "outbox": "0b" * 16,
            "seq": next(self._seq),
        }

    def says(
        self,
        execution: Execution,
        state: ExecutionState,
        reason: JobReason | None = None,
        **fields: Any,
    ) -> None:
        message = m.Execution(
            **self.stamp(), execution=execution.pk, state=state, reason=reason, **fields
        )
        inbound.execution(execution.device, message, self.now)
        execution.refresh_from_db()

    def says_accepted(self, of: Any, execution: Execution, payload: bytes) -> None:
        digest = hashlib.sha256(payload).hexdigest()
        message = m.Accepted(**self.stamp(), of=of, ref=execution.pk, digest=digest)
        inbound.accepted(execution.device, message, self.now)
        execution.refresh_from_db()

    def announces(self, execution: Execution, data: bytes, **changes: Any) -> None:
        """RUNNING, with key, digest and size; from now on the bundle is served."""
        self.serve(execution, data)
        bundle = {"digest": hashlib.sha256(data).hexdigest(), "size": len(data), **changes}
        self.says(
            execution,
            ExecutionState.RUNNING,
            key=self.key.public_key().public_bytes_raw(),
            bundle=m.Bundle(**bundle),
        )

    # --- the bundle's stream ---

    def serve(self, execution: Execution, data: bytes) -> None:
        job = job_message(execution)
        assert isinstance(job, m.Job)
        self._device = execution.device_id
        self._data = data
        self._mux = Mux(
            derive(
                private=self.key,
                peer=job.key,
                binding=hashlib.sha256(bytes(execution.message)).digest(),
                session=bytes.fromhex(execution.pk),
                role=Role.DEVICE,
            )
        )

    def frame(self, device: str, frame: bytes) -> bool:
        """What fleet.core.ports calls to send a frame down."""
        mux = self._mux
        if self.offline or device != self._device or mux is None:
            return False
        try:
            events = mux.receive(frame)
        except MuxError:  # sent again, and had arrived
            events = []
        for event in events:
            if isinstance(event, Opened):
                assert (event.service, event.bulk) == ("bundle", True)
                self.opened.append(event.stream)
                self._sent[event.stream] = 0
                mux.accept(event.stream)
            elif isinstance(event, Acknowledged):
                self.done = True
            elif isinstance(event, Ended):
                pass  # the portal sends nothing on it
        if not self.mute:
            self._pump(mux)
        return True

    def reconnects(self) -> None:
        assert self._mux is not None
        self.offline = False
        self._mux.resume()
        self._pump(self._mux)

    def _pump(self, mux: Mux) -> None:
        for stream in mux.streams:
            at = self._sent[stream]
            size = min(mux.writable(stream), len(self._data) - at)
            mux.send(stream, self._data[at : at + size])
            self._sent[stream] = at + size
            if self.cut_after is not None and at + size >= self.cut_after:
                self.cut_after = None
                mux.reset(stream, ResetCode.BUSY)
            elif at + size == len(self._data):
                mux.end(stream)
        while (out := mux.next_frame()) is not None:
            if self.lose:
                self.lose -= 1
                continue
            if self.flip:
                out = out[:-1] + bytes([out[-1] ^ 1])
            self.hub.from_device(self._device, out)
