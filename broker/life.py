"""The life of one connection: its state, its tasks, and when nothing is left of it.

A connection is *gone* when its socket is closed and its last task has ended. Its successor waits
for that, so that one device never has two sessions in amqtt.
"""

import asyncio
import logging
from abc import abstractmethod
from collections.abc import Coroutine
from enum import Enum
from typing import Any

from broker import acl
from broker.errors import GateError, Reason
from broker.house import House

log = logging.getLogger(__name__)


class State(Enum):
    NEW = "new"
    OPENING = "opening"
    LIVE = "live"
    OVER = "over"


class Life(asyncio.BufferedProtocol):
    """What `broker.gate.Connection` is beneath its socket and its packets."""

    identity: acl.Identity

    def __init__(self, house: House) -> None:
        self._house = house
        self._loop = asyncio.get_running_loop()
        self._state = State.NEW
        self._socket_open = False
        self._tasks = 0
        self._gone: asyncio.Future[None] | None = None

    @property
    def introduced(self) -> bool:
        """A CONNECT has been accepted."""
        return self._state is not State.NEW

    @property
    def live(self) -> bool:
        return self._state is State.LIVE

    @property
    def over(self) -> bool:
        return self._state is State.OVER

    @abstractmethod
    def end(self, reason: Reason) -> None:
        """Close, once, for this reason."""

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        self._tasks += 1
        return self._house.spawn(self._guard(work))

    async def _guard(self, work: Coroutine[Any, Any, None]) -> None:
        """A task of this connection ends this connection when it fails, and no other."""
        try:
            await work
        except (GateError, TimeoutError):
            self.end(Reason.BROKER)
        except Exception:
            log.exception("connection of %s", self.identity.device)
            self.end(Reason.INTERNAL)
        finally:
            self._tasks -= 1
            self._check_gone()

    async def gone(self) -> None:
        """Wait until the socket is closed and the last task has ended."""
        if self._gone is None:
            self._gone = self._loop.create_future()
            self._check_gone()
        await asyncio.shield(self._gone)

    def _check_gone(self) -> None:
        if self._socket_open or self._tasks:
            return
        if self._state is State.OVER and hasattr(self, "identity"):
            seats = self._house.seats
            if seats.get(self.identity.device) is self:
                del seats[self.identity.device]
        if self._gone is not None and not self._gone.done():
            self._gone.set_result(None)
