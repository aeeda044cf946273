"""What the connections of one gate share."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from broker import packets
from broker.denied import DenyList
from broker.errors import Reason
from broker.lanes import Counters, Handler
from broker.options import GateOptions
from broker.session import Registry

if TYPE_CHECKING:
    from broker.gate import Connection

log = logging.getLogger(__name__)

READ_BUFFER = 256 * 1024


@dataclass(slots=True)
class House:
    """Options, handler, registry, counters, and every connection; `buffer` is filled by all."""

    options: GateOptions
    handler: Handler
    registry: Registry
    spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
    counters: Counters = field(default_factory=Counters)
    seats: dict[str, "Connection"] = field(default_factory=dict)  # by device
    connections: set["Connection"] = field(default_factory=set)
    denied: DenyList = field(default_factory=DenyList)
    buffer: memoryview = field(default_factory=lambda: memoryview(bytearray(READ_BUFFER)))
    packets: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        self.packets = packets.from_device(self.options.limits.payload_bytes)

    def tell(self, call: Callable[..., object], *arguments: object) -> None:
        """Call the handler; what it raises is logged and goes no further."""
        try:
            call(*arguments)
        except Exception:
            log.exception("the gate's handler failed")

    def refuse(self, peer: str, device: str | None, reason: Reason) -> None:
        self.counters.refused[reason] = self.counters.refused.get(reason, 0) + 1
        self.tell(self.handler.refused, peer, device, reason)
