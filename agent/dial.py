"""One connection attempt in a thread: a journey can block for long at each of its stages."""

import asyncio
import contextvars
import logging
import ssl
import threading
from collections.abc import Callable
from dataclasses import replace

from agent.network.findings import Failure, Observation, dated
from agent.network.journey import Astray, Journey, Ready
from agent.network.route import Route, Stage

Date = Callable[[], float | None]
Done = Callable[["Dial", Ready | None, Observation | None], None]

log = logging.getLogger(__name__)


class Dial:
    """Reports in the loop, once: what MQTT can be spoken over, or what was met instead. `date` asks
    what time it really is, where that decides what was met."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        route: Route,
        context: ssl.SSLContext,
        timeout_s: float,
        done: Done,
        date: Date | None = None,
    ) -> None:
        self.route = route
        self.abandoned = False
        self._loop = loop
        self._journey = Journey(route, context, timeout_s)
        self._done = done
        self._date = date
        self._seen: Observation | None = None  # what was met, while a closer look is taken
        # A daemon: a name server that does not answer must not keep the process from ending.
        self._thread = threading.Thread(
            target=contextvars.copy_context().run,  # the log names the agent
            args=(self._run,),
            name=f"dial {route.server}",
            daemon=True,
        )
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def stage(self) -> Stage:
        return self._journey.stage

    def late(self) -> Observation:
        """What is known of an attempt that has not ended."""
        if self._seen is not None:
            return self._seen
        return Observation(
            stage=self.stage,
            failure=Failure.UNANSWERED if self.stage is Stage.NAME else Failure.TIMEOUT,
            server=str(self.route.server),
            proxy=str(self.route.proxy or ""),
            carrier=self.route.carrier,
        )

    def abandon(self) -> None:
        """Nobody waits any more; wake the thread so that it ends."""
        self.abandoned = True
        self._journey.abandon()

    def _run(self) -> None:
        ready: Ready | None = None
        seen: Observation | None = None
        try:
            ready = self._journey.travel()
        except Astray as error:
            seen = self._seen = error.observation
            if self._date is not None and dated(seen):
                seen = replace(seen, server_date=self._date())
        except Exception as error:
            log.exception("dialling failed")
            seen = Observation(
                stage=self.stage, failure=Failure.PROTOCOL, detail=type(error).__name__
            )
        try:
            self._loop.call_soon_threadsafe(self._done, self, ready, seen)
        except RuntimeError:  # the loop has closed
            if ready is not None:
                ready.close()
