"""One file on a session of its own: a diagnostics bundle for whoever holds the other end's key."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from agent.wire.mux import (
    Acknowledged,
    Credited,
    Data,
    Event,
    Mux,
    Opened,
    Reset,
    ResetCode,
)
from agent.wire.patience import Patience

READ = 128 * 1024  # bytes of the file read at once

log = logging.getLogger(__name__)


@dataclass(eq=False)
class FileChannel:
    """One file for whoever holds the other end of the seal, as often as it is asked for."""

    mux: Mux
    service: str
    path: Path
    done: Callable[[bool], None]
    paused: bool = False
    open: dict[int, BinaryIO] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.patience = Patience(self.mux)

    def event(self, event: Event) -> None:
        stream = event.stream
        if isinstance(event, Opened):
            self._opened(event)
        elif isinstance(event, Credited):
            self._more(stream)
        elif isinstance(event, Acknowledged):
            self._close(stream)
            self.done(True)
        elif isinstance(event, Reset):
            self._close(stream)
        elif isinstance(event, Data):
            self.mux.reset(stream, ResetCode.PROTOCOL)  # nothing is read from the peer
            self._close(stream)

    def close(self) -> None:
        for stream in list(self.open):
            self._close(stream)

    def reset(self) -> None:
        for stream in list(self.open):
            self.cut(stream)

    def cut(self, stream: int) -> None:
        self.mux.reset(stream)
        self._close(stream)

    def _opened(self, event: Opened) -> None:
        if event.service != self.service:
            self.mux.reset(event.stream, ResetCode.REFUSED)
            return
        self.reset()  # a new attempt: nobody is left who takes the last one
        try:
            self.open[event.stream] = self.path.open("rb")
        except OSError:
            log.exception("a file to be sent cannot be read")
            self.mux.reset(event.stream, ResetCode.INTERNAL)
            self.done(False)
            return
        self.mux.accept(event.stream)
        self._more(event.stream)

    def _more(self, stream: int) -> None:
        # Read in the loop: bundles are small and were just written, so they come from memory.
        file = self.open.get(stream)
        while file is not None and (room := min(READ, self.mux.writable(stream))) > 0:
            data = file.read(room)
            if not data:
                self.mux.end(stream)
                return
            self.mux.send(stream, data)

    def _close(self, stream: int) -> None:
        file = self.open.pop(stream, None)
        if file is not None:
            file.close()
