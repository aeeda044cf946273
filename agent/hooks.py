"""What the parts of an agent plug into; `agent.runtime` says how each is used."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from agent.control import Control
from agent.wire.catalogue import ClinicalState
from agent.wire.messages import Message
from agent.wire.pacer import Turn

M = TypeVar("M", bound=Message)
P = TypeVar("P")


class Hooks:
    """The registry of one agent: who answers to what."""

    def __init__(self) -> None:
        self.control = Control()
        self.handlers: dict[type[Message], Callable[[Any, bytes], Any]] = {}
        self.roster_version: Callable[[], int] = lambda: 0
        self.entitlement_version: Callable[[], int] = lambda: 0
        self._ticks: list[Callable[[float], None]] = []
        self._state_watchers: list[Callable[[ClinicalState], None]] = []
        self._online_watchers: list[Callable[[bool], None]] = []
        self._stoppers: list[Callable[[], Awaitable[None]]] = []
        self._statuses: list[Callable[[], Mapping[str, Any]]] = []
        self._frame_source: Callable[[Turn, int], bytes | None] = lambda turn, most: None
        self._frame_sink: Callable[[bytes], None] = lambda frame: None
        self._provided: dict[type, Any] = {}

    def handle(self, kind: type[M], handler: Callable[[M, bytes], Any]) -> None:
        """`handler(message, payload)` for each message of this kind; plain or a coroutine.

        A handler that raises loses that one message: it is recorded, and the next one runs.
        """
        self.handlers[kind] = handler

    def on_tick(self, watcher: Callable[[float], None]) -> None:
        self._ticks.append(watcher)

    def on_clinical_state(self, watcher: Callable[[ClinicalState], None]) -> None:
        self._state_watchers.append(watcher)

    def on_online(self, watcher: Callable[[bool], None]) -> None:
        self._online_watchers.append(watcher)

    def on_stop(self, stopper: Callable[[], Awaitable[None]]) -> None:
        self._stoppers.append(stopper)

    def on_frame(self, sink: Callable[[bytes], None]) -> None:
        self._frame_sink = sink

    def stream_source(self, source: Callable[[Turn, int], bytes | None]) -> None:
        self._frame_source = source

    def status_from(self, source: Callable[[], Mapping[str, Any]]) -> None:
        self._statuses.append(source)

    def provide(self, thing: object) -> None:
        """Let other parts find this object by its class."""
        self._provided[type(thing)] = thing

    def get(self, kind: type[P]) -> P:
        """The object of this class that a part provided. Raises KeyError."""
        thing: P = self._provided[kind]
        return thing
