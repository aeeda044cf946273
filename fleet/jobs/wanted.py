"""Which bundles are to be fetched: said from any thread, heard by the receiver on its event loop.

Nothing is remembered here. What was said while no receiver listened (or in another process) is said
again by `services.tick`.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol


class Listener(Protocol):
    """The receiver. Every call is on its event loop."""

    def want(self, execution: str) -> None:
        """The device has announced the bundle just now: fetch it, from the start if need be."""

    def remind(self, execution: str) -> None:
        """A bundle is due: fetch it unless that is being done, or was tried a moment ago."""

    def drop(self, execution: str) -> None:
        """The execution is over."""


class Wanted:
    def __init__(self) -> None:
        self._listener: Listener | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def attach(self, listener: Listener) -> None:
        """Hear what is wanted, on the running loop."""
        self._loop = asyncio.get_running_loop()
        self._listener = listener

    def detach(self, listener: Listener) -> None:
        if self._listener is listener:
            self._listener = self._loop = None

    def want(self, execution: str) -> None:
        if self._listener is not None:
            self._call(self._listener.want, execution)

    def remind(self, execution: str) -> None:
        if self._listener is not None:
            self._call(self._listener.remind, execution)

    def drop(self, execution: str) -> None:
        if self._listener is not None:
            self._call(self._listener.drop, execution)

    def _call(self, method: Callable[[str], None], execution: str) -> None:
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(method, execution)


wanted = Wanted()
