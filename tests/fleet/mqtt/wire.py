"""What a device would send, as items of the ingest queue."""

import itertools
from collections.abc import Callable
from typing import Any

from agent.wire import messages
from agent.wire.messages import Event, Heartbeat, Hello, Sample, Telemetry
from fleet.core import clock
from fleet.mqtt.queue import Item

OUTBOX = "a" * 32
BOOT = "b" * 32


class Sender:
    """A device's side: numbers its messages and counts its acknowledgements."""

    def __init__(self, device: str, outbox: str = OUTBOX) -> None:
        self.device = device
        self.outbox = outbox
        self.acked: list[int] = []
        self._seq = itertools.count(1)
        self._sent = itertools.count()

    def envelope(self, seq: int | None = None) -> dict[str, Any]:
        return {
            "at": clock.to_ms(clock.now()),
            "boot": BOOT,
            "uptime_ms": 1000,
            "outbox": self.outbox,
            "seq": next(self._seq) if seq is None else seq,
        }

    def event(self, *, seq: int | None = None, **fields: Any) -> Item:
        values = {"code": 103, "priority": "M", "phase": "raised", **fields}
        return self.item(messages.encode(Event(**self.envelope(seq), **values)), "event")

    def telemetry(self, *, samples: int = 2, seq: int | None = None) -> Item:
        one = Sample(at=1_700_000_000_000, uptime_ms=5, state="idle", values={"fan_rpm": 900.0})  # type: ignore[arg-type]
        message = Telemetry(**self.envelope(seq), samples=[one] * samples)
        return self.item(messages.encode(message), "telemetry")

    def hello(self, **fields: Any) -> Item:
        values: dict[str, Any] = {
            "at": 0,
            "boot": BOOT,
            "uptime_ms": 1,
            "agent_version": "0.1.0",
            "software_version": "4.2.1",
            "product_line": "ct-dual",
            "state": "ready",
            "knows": {"hello": [1]},
            "outbox": self.outbox,
            "high": 0,
            "roster_version": 3,
            "services": {"ssh": "os"},
            "head": None,
            **fields,
        }
        return self.item(messages.encode(Hello(**values)), "hello")

    def heartbeat(self, state: str = "armed") -> Item:
        message = Heartbeat(  # type: ignore[call-arg]
            at=0,
            boot=BOOT,
            uptime_ms=1,
            state=state,
            outbox_depth=4,
            rtt_ms=None,  # type: ignore[arg-type]
        )
        return self.item(messages.encode(message), "heartbeat", qos=0)

    def item(self, payload: bytes, type: str, version: int = 1, qos: int = 1) -> Item:
        number = next(self._sent)
        ack: Callable[[], None] = lambda: self.acked.append(number)  # noqa: E731
        return Item(self.device, type, version, payload, clock.now(), qos, ack)
