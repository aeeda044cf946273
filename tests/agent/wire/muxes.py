"""Two ends of a session without a network, and a peer that breaks the rules on purpose."""

from collections import deque

from agent.wire.frames import FrameType, Header
from agent.wire.mux import Data, Event, Mux, Opened
from agent.wire.seal import Role, Seal

SESSION = bytes(range(16))


def seals() -> tuple[Seal, Seal]:
    """The client's and the device's seal, with keys that everybody knows."""
    up, down = b"u" * 32, b"d" * 32
    return (
        Seal(session=SESSION, role=Role.CLIENT, send=down, receive=up),
        Seal(session=SESSION, role=Role.DEVICE, send=up, receive=down),
    )


class Pair:
    """A client, a device, and the pipe between them, which keeps order and can lose frames."""

    def __init__(self, **options: int) -> None:
        ours, theirs = seals()
        self.client = Mux(ours, **options)
        self.device = Mux(theirs, **options)
        self.down: deque[bytes] = deque()
        self.up: deque[bytes] = deque()

    def flush(self, mux: Mux) -> list[bytes]:
        """Everything that this end would send now."""
        frames = []
        while (frame := mux.next_frame()) is not None:
            frames.append(frame)
        return frames

    def settle(self, *, accept: bool = True, consume: bool = True) -> list[tuple[str, Event]]:
        """Move frames until nothing moves. Returns (who heard it, event)."""
        heard: list[tuple[str, Event]] = []
        while True:
            self.down.extend(self.flush(self.client))
            self.up.extend(self.flush(self.device))
            if not self.down and not self.up:
                return heard
            for name, mux, pipe in (
                ("device", self.device, self.down),
                ("client", self.client, self.up),
            ):
                while pipe:
                    for event in mux.receive(pipe.popleft()):
                        heard.append((name, event))
                        if accept and isinstance(event, Opened):
                            mux.accept(event.stream)
                        if consume and isinstance(event, Data):
                            mux.consumed(event.stream, len(event.data))

    def running(self, stream: int = 1, *, bulk: bool = False) -> int:
        self.client.open(stream, "ssh", bulk)
        self.settle()
        return stream


class Rogue:
    """One end that holds the right key and obeys nothing."""

    def __init__(self, role: Role) -> None:
        self.seal = seals()[0 if role is Role.CLIENT else 1]
        self.numbers: dict[int, int] = {}

    def frame(
        self,
        kind: FrameType,
        payload: bytes = b"",
        *,
        stream: int = 1,
        offset: int = 0,
        number: int | None = None,
    ) -> bytes:
        if number is None:
            number = self.numbers.get(stream, 0)
            self.numbers[stream] = number + 1
        return self.seal.close(Header(kind, SESSION, stream, number, offset), payload)
