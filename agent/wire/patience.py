"""How long an end waits for the other when a pipe broke: asks again, and gives up. Takes `now`."""

from agent.wire.mux import Mux

RESUME_S = 300.0  # how long a stream stands still before it is given up
ASK_S = 5.0  # without an answer: ask again


class Patience:
    """Of one mux. `look` at least every few seconds; `now` in seconds of any clock that goes on."""

    def __init__(self, mux: Mux) -> None:
        self._mux = mux
        self._waiting: dict[int, tuple[float, float]] = {}  # stream: since, last asked

    def look(self, now: float, *, connected: bool) -> list[int]:
        """Ask where an answer is late. Returns the streams to give up: reset them.

        While there is no connection every stream waits; with one, those that asked for something.
        """
        standing = self._mux.unanswered if connected else self._mux.streams
        self._waiting = {stream: self._waiting.get(stream, (now, now)) for stream in standing}
        given_up = []
        for stream, (since, last) in self._waiting.items():
            if now - since >= RESUME_S:
                given_up.append(stream)
            elif connected and now - last >= ASK_S:
                self._waiting[stream] = (since, now)
                self._mux.ask(stream)
        return given_up
