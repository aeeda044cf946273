"""One connection attempt in a thread: a journey can block for long at each of its stages."""

import asyncio
import contextvars
import logging
import ssl
import threading
from collections.abc import Callable

from agent.network.findings import Failure, Observation
from agent.network.journey import Astray, Journey, Ready
from agent.network.route import Route, Stage

Done = Callable[["Dial", Ready | None, Observation | None], None]

log = logging.getLogger(__name__)


class Dial:
    """Reports in the loop, once: what MQTT can be spoken over, or what was met instead."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        route: Route,
        context: ssl.SSLContext,
        timeout_s: float,
        done: Done,
    ) -> None:
        self.route = route
        self.abandoned = False
        self._loop = loop
        self._journey = Journey(route, context, timeout_s)
        self._done = done
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
            seen = error.observation
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
