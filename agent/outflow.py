"""What leaves next: frames of streams and messages of the outbox, each in its turn. Pure.

Theory of operation. Two measures hold back what leaves: how much the path takes (agent.wire.pacer),
and the cap that the site may have set (agent.network.pace). What must not wait (heartbeats, pings,
greetings) does not come through here and is only counted. The rest asks `next`:

    control frames          always
    interactive frames      while the path has less than twice what it takes, the cap anything left
    messages of the outbox  while what it has and they are no more than it takes; the cap likewise
    bulk frames             while it has less than it takes, and the cap more than its reserve

So a backlog of a day, which would fill a slow line for many minutes, leaves it free: a heartbeat
meets no more than the fifth of a second that the pacer allows, or one message. For a message cannot
be cut: one that is more than the path takes leaves when the path is as good as empty, and nothing
but control follows until it has arrived.

Turn about means that after a message frames may have as many bytes as it had, then a message is
next: neither a transfer nor a backlog stops the other. While the next message waits for room, no
bulk leaves; interactive frames do, as they are few, but after PATIENCE bytes they wait as well: a
person may move a file through an interactive stream.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from agent.network.pace import OVERHEAD, Cap
from agent.wire.pacer import MARKS, Pacer, Turn

PATIENCE = 4096  # bytes of frames that may pass a message whose turn it is

# Of data in a frame: two of them, with all that stands around them, fill four TLS records. A byte
# more would need a fifth.
LARGEST = 32 * 1024 - 160

Source = Callable[[Turn, int], bytes | None]  # the turn it is, and the most data in a frame


@dataclass(frozen=True, slots=True)
class Message:
    """Of the outbox: `token` comes back when the portal has decided on it."""

    topic: str
    payload: bytes
    token: object


class Outflow:
    """Of one link. `now` in seconds of a clock that never goes back; sizes in bytes."""

    def __init__(self, source: Source, now: float) -> None:
        self.pacer = Pacer()
        self.streaming = False  # frames may be pulled
        self._source = source
        self._cap = Cap(now=now)
        self._waiting: deque[Message] = deque()  # bounded by the core's window
        self._owed = 0  # bytes that frames may have before a message's turn
        self._passed = 0  # bytes that frames had since it was a message's turn

    def begin(self) -> None:
        """Another connection: nothing is known of its path, and nothing waits for it."""
        self.pacer = Pacer()
        self.streaming = False
        self._waiting.clear()
        self._owed = self._passed = 0

    def set_cap(self, rate: int | None, now: float) -> None:
        self._cap.set(rate, now)

    def spare(self, now: float) -> bool:
        """Whether the cap leaves room for what nobody misses."""
        return self._cap.turn(now) is Turn.BULK

    def offer(self, message: Message) -> None:
        self._waiting.append(message)

    def spent(self, now: float, size: int) -> None:
        """Something that does not wait has left."""
        self._cap.spent(now, size)

    def next(self, now: float) -> bytes | Message | None:
        """What leaves now, counted as sent; None when nothing may, or nothing waits."""
        pacer, cap = self.pacer, Turn.BULK
        turn, most = pacer.turn, min(pacer.frame, LARGEST)
        if self._cap.rate is not None:
            cap = self._cap.turn(now)
            turn, most = min(turn, cap), min(most, self._cap.frame)
        if self._waiting and self._owed <= 0:
            if self._fits(cap):
                return self._message(now)
            turn = min(turn, Turn.INTERACTIVE if self._passed < PATIENCE else Turn.CONTROL)
        if self.streaming:
            frame = self._source(turn, most)
            if frame is not None:
                self._frame(now, len(frame))
                return frame
        return self._message(now) if self._waiting and self._fits(cap) else None

    def wait(self, now: float) -> float:
        """Seconds until the cap lets more leave than now, if nothing else does; 0: it holds back
        nothing that the path would take."""
        if self._cap.rate is None or self._cap.turn(now) >= self.pacer.turn:
            return 0.0
        return self._cap.wait_for_any(now) or self._cap.wait(now)

    def _fits(self, cap: Turn) -> bool:
        """Whether the next message may leave."""
        if cap is Turn.CONTROL:
            return False
        pacer = self.pacer
        # What no mark has been sent for is less than `allowed / MARKS`, and is not waited for.
        room = pacer.allowed - pacer.on_the_way
        return room >= len(self._waiting[0].payload) or pacer.on_the_way < pacer.allowed / MARKS

    def _message(self, now: float) -> Message:
        message = self._waiting.popleft()
        size = len(message.payload) + OVERHEAD
        self._owed, self._passed = size, 0
        self._cap.spent(now, size)
        self.pacer.sent(now, size)
        return message

    def _frame(self, now: float, size: int) -> None:
        if self._waiting:
            self._passed += size if self._owed <= 0 else 0
            self._owed -= size
        self._cap.spent(now, size)
        self.pacer.sent(now, size)
