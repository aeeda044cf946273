"""What the driver shows, as messages: samples in batches for the record, events at once."""

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

from agent.clock import Clock
from agent.drivers import Driver, DriverEvent
from agent.wire.catalogue import Metric
from agent.wire.messages import Durable, Event, Sample, Telemetry

EVERY_S = 10.0
BATCH = 6  # samples of one message

Emit = Callable[..., Any]

log = logging.getLogger(__name__)


class Sampler:
    """`emit(kind, **fields)` stores a durable message; `own()` gives the agent's own metrics."""

    def __init__(
        self,
        driver: Driver,
        clock: Clock,
        emit: Callable[..., Any],
        own: Callable[[], Mapping[Metric, float]],
    ) -> None:
        self._driver = driver
        self._clock = clock
        self._emit = emit
        self._own = own
        self._due = 0.0
        self._batch: list[Sample] = []
        self._first = True  # the first sample does not wait for company: a chart begins at once

    def values(self) -> dict[Metric, float]:
        """The driver's metrics and the agent's own; what is no number is left out."""
        values = {**self._driver.values(), **self._own()}
        return {metric: value for metric, value in values.items() if math.isfinite(value)}

    def tick(self, now: float) -> None:
        """`now` in seconds of the boot clock."""
        if now < self._due:
            return
        self._due = now + EVERY_S
        self._batch.append(
            Sample(
                at=self._clock.wall_ms(),
                uptime_ms=self._clock.uptime_ms(),
                state=self._driver.state,
                values=self.values(),
            )
        )
        if self._first or len(self._batch) >= BATCH:
            self._first = False
            self.flush()

    def flush(self) -> None:
        """Store what was sampled so far."""
        if self._batch:
            batch, self._batch = self._batch, []
            self._emit(Telemetry, samples=batch)

    def event(self, event: DriverEvent) -> None:
        kind: type[Durable] = Event
        self._emit(
            kind,
            code=event.code,
            priority=event.priority,
            phase=event.phase,
            syringe=event.syringe,
            value=event.value,
        )
