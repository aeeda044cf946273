"""Carries hints from whatever thread they are made in to the consumers, by the channel layer.

Hints are a convenience: a page that misses one catches up by its own slow refresh. So nothing here
waits, and beyond `MAX_PENDING` hints on their way the newest is dropped.
"""

import asyncio
import logging
import threading
from concurrent.futures import Future
from typing import Any

from channels.layers import get_channel_layer

from fleet.live.groups import parse

MAX_PENDING = 2000

log = logging.getLogger(__name__)


class Hinter:
    """Callable from any thread. Drops everything until a consumer has bound its event loop."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pending = 0
        self._lock = threading.Lock()

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Deliver on this loop: the one where the consumers live."""
        with self._lock:
            if self._loop is not loop:
                self._loop, self._pending = loop, 0

    def __call__(self, group: str, payload: dict[str, Any]) -> None:
        name = parse(group)
        if name is None:
            log.error("hint for a group that nobody can watch")
            return
        with self._lock:
            loop = self._loop
            if loop is None or loop.is_closed() or self._pending >= MAX_PENDING:
                return
            self._pending += 1
        message = {"type": "hint", "group": str(name), "payload": payload}
        try:
            asyncio.run_coroutine_threadsafe(_send(str(name), message), loop).add_done_callback(
                self._sent
            )
        except RuntimeError:  # the loop closed between the two lines
            with self._lock:
                self._pending -= 1

    def _sent(self, future: "Future[None]") -> None:
        with self._lock:
            self._pending = max(0, self._pending - 1)
        if not future.cancelled() and (error := future.exception()) is not None:
            log.error("a hint was not delivered", exc_info=error)


async def _send(name: str, message: dict[str, Any]) -> None:
    layer = get_channel_layer()
    if layer is not None:
        await layer.group_send(name, message)


hinter = Hinter()
