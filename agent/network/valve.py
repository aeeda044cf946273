"""Holds back what leaves until the site's cap (agent.network.pace) lets it. The shell of a `Cap`.

What is offered leaves in order, beside the frames of streams turn about; the core's window bounds
how much of it there can be.
"""

import asyncio
from collections import deque
from collections.abc import Callable

from agent.network.pace import Cap
from agent.wire.pacer import Turn

Message = tuple[str, bytes, object]  # topic, payload, token


class Valve:
    """`send` a message; `pull` the next frame, if there is one."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        send: Callable[[str, bytes, object], None],
        pull: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._send = send
        self._pull = pull
        self._cap = Cap(now=loop.time())
        self._held: deque[Message] = deque()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def turn(self) -> Turn:
        """Up to which class something may leave now."""
        return self._cap.turn(self._loop.time())

    @property
    def frame(self) -> int:
        """Bytes of data that a frame of a stream may have."""
        return self._cap.frame

    def set(self, rate: int | None) -> None:
        """At most so many bytes a second from now on; None lifts the cap."""
        self._cap.set(rate, self._loop.time())
        self._stop()
        self._release()

    def offer(self, topic: str, payload: bytes, token: object) -> None:
        """Send it now, or behind those that wait."""
        if not self._held and self.turn is not Turn.CONTROL:
            self._send(topic, payload, token)
        else:
            self._held.append((topic, payload, token))
            self.later()

    def spent(self, size: int) -> None:
        """Something of this size leaves, whatever it is."""
        self._cap.spent(self._loop.time(), size)

    def later(self) -> None:
        """Something waits: look again when it may leave."""
        if self._timer is None:
            now = self._loop.time()
            wait = self._cap.wait_for_any(now) or self._cap.wait(now)
            self._timer = self._loop.call_later(wait, self._release)

    def clear(self) -> None:
        """The connection is gone, and what waited for it with it."""
        self._held.clear()
        self._stop()

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _release(self) -> None:
        self._timer = None
        while self._held and self.turn is not Turn.CONTROL:
            self._send(*self._held.popleft())
            self._pull()
        self._pull()
        if self._held:
            self.later()
