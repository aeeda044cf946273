"""The hub: carries sealed frames between an injector and the specialist's clients, unread.

Everything here runs on the server's event loop; `end` alone may be called from any thread. The hub
knows a frame's 40-byte header and nothing of what is sealed behind it. It holds no window and keeps
no stream: flow is agreed between the ends, and what it queues for a client is bounded in bytes. A
client that lets that fill up is cut, as the alternative is to stall everybody on its injector.

Two doors. A device's frames are taken only for a session of that device. A client's frames are
taken only with its own session's id, and only while the channel is open. One session may have
several clients: a stream belongs to the client that wrote on it first, and frames of a stream that
nobody has go to the client that came last. When a client's link breaks its websocket may look
alive for a while; so OPEN and RESUME, which only the process sends whose stream it is, move the
stream to where they come from, and a client whose last stream is moved away is closed.

What cannot be passed on is dropped: the ends notice, and send it again when the link is back.

An execution's bundle comes the same way; its receiver registers as a sink under the execution's id.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from agent.wire.frames import HEADER, MAX_FRAME, TAG, VERSION, FrameType
from fleet.core import ports

MAX_QUEUED = 8 * 1024 * 1024  # bytes waiting for one client
MAX_CLIENTS = 8  # of one session
MAX_STREAMS = 256  # remembered of one client; the device allows far fewer at a time
REPLACED = 4410
_MIN_FRAME = HEADER.size + TAG
_MOVES = (FrameType.OPEN, FrameType.RESUME)


class Sink(Protocol):
    """What takes the frames of one session or execution from its device."""

    device: str

    def frame(self, frame: bytes) -> None: ...


class Client:
    """One websocket's end: what waits to be sent to it, and why it must close.

    Frames are written in the call that brings them, or wait while its transport is full, and until
    there is one.
    """

    def __init__(self) -> None:
        self.close_code: int | None = None
        self.streams: set[bytes] = set()
        self._write: Callable[[bytes], None] | None = None
        self._frames: deque[bytes] = deque()
        self._queued = 0
        self._closed = asyncio.Event()

    def put(self, frame: bytes) -> None:
        if self.close_code is not None:
            return
        if self._write is not None:
            self._write(frame)  # may lead to `pause`
            return
        self._queued += len(frame)
        if self._queued > MAX_QUEUED:
            self.close(4408)
        else:
            self._frames.append(frame)

    def pause(self) -> None:
        """There is no room for frames."""
        self._write = None

    def resume(self, write: Callable[[bytes], None]) -> None:
        """There is: write what waits, and what comes."""
        self._write = write
        while self._frames and self._write is not None:
            frame = self._frames.popleft()
            self._queued -= len(frame)
            write(frame)

    def close(self, code: int) -> None:
        """Ask for the websocket to be closed; the first code stays."""
        if self.close_code is None:
            self.close_code = code
            self._frames.clear()
            self._closed.set()

    async def closed(self) -> int:
        """Wait until the websocket must close. Returns the code."""
        await self._closed.wait()
        assert self.close_code is not None  # noqa: S101
        return self.close_code


@dataclass(eq=False)
class Channel:
    """An active session: its device, its clients, and which stream is whose."""

    session: bytes  # 16 bytes, as in a frame's header
    device: str
    clients: list[Client] = field(default_factory=list)
    owners: dict[bytes, Client] = field(default_factory=dict)
    # Not yet written to the database.
    bytes_up: int = 0
    bytes_down: int = 0

    def frame(self, frame: bytes) -> None:
        self.bytes_up += len(frame)
        owner = self.owners.get(frame[20:24])
        if owner is not None:
            owner.put(frame)
        elif self.clients:
            self.clients[-1].put(frame)


class FrameRefusedError(Exception):
    """A client's frame that must not pass; `code` is what its websocket is closed with."""

    def __init__(self, code: int) -> None:
        super().__init__(str(code))
        self.code = code


class Hub:
    def __init__(self) -> None:
        self._sinks: dict[bytes, Sink] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    # --- from devices ---------------------------------------------------------------------------

    def from_device(self, device: str, frame: bytes) -> None:
        """Pass on a frame from a device's stream lane; one that is nobody's is dropped."""
        if not _MIN_FRAME <= len(frame) <= MAX_FRAME:
            return
        sink = self._sinks.get(frame[4:20])
        if sink is not None and sink.device == device:
            sink.frame(frame)

    def register(self, session: bytes, sink: Sink) -> None:
        """Take the frames of an execution, or of anything else with 16 bytes for a name."""
        if session in self._sinks:
            raise ValueError("somebody takes these frames already")
        self._loop = asyncio.get_running_loop()
        self._sinks[session] = sink

    def unregister(self, session: bytes, sink: Sink) -> None:
        if self._sinks.get(session) is sink:
            del self._sinks[session]

    # --- clients --------------------------------------------------------------------------------

    def join(self, session: bytes, device: str) -> tuple[Channel, Client]:
        """Add a client to an active session. Raises FrameRefusedError when there are too many."""
        channel = self._sinks.get(session)
        if channel is None:
            channel = Channel(session, device)
            self.register(session, channel)
        if not isinstance(channel, Channel) or channel.device != device:
            raise FrameRefusedError(4404)
        if len(channel.clients) >= MAX_CLIENTS:
            raise FrameRefusedError(4429)
        client = Client()
        channel.clients.append(client)
        return channel, client

    def leave(self, channel: Channel, client: Client) -> None:
        """Forget a client; the channel goes with its last one."""
        if client in channel.clients:
            channel.clients.remove(client)
        for stream in client.streams:
            if channel.owners.get(stream) is client:
                del channel.owners[stream]
        if not channel.clients:
            self.unregister(channel.session, channel)

    @staticmethod
    def from_client(channel: Channel, client: Client, frame: bytes) -> bool:
        """Pass a client's frame to the device. False when the device has no room for it now.

        Raises FrameRefusedError for what is no frame of this session.
        """
        if not _MIN_FRAME <= len(frame) <= MAX_FRAME or frame[0] != VERSION:
            raise FrameRefusedError(4400)
        if frame[4:20] != channel.session:
            raise FrameRefusedError(4403)
        if client.close_code is not None:
            raise FrameRefusedError(client.close_code)
        stream = frame[20:24]
        owner = channel.owners.get(stream)
        if owner is not client:
            if owner is not None:
                if frame[1] not in _MOVES:
                    return True  # somebody else's stream: not for this one to write on
                owner.streams.discard(stream)
                if not owner.streams:
                    owner.close(REPLACED)
            if len(client.streams) >= MAX_STREAMS:
                _forget_oldest(channel, client)
            channel.owners[stream] = client
            client.streams.add(stream)
        if not ports.send_frame(channel.device, frame):
            return False
        channel.bytes_down += len(frame)
        return True

    # --- the end --------------------------------------------------------------------------------

    def end(self, session: str) -> None:
        """Close every client of a session that is over (4409). Callable from any thread."""
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._end, bytes.fromhex(session))

    def _end(self, session: bytes) -> None:
        channel = self._sinks.get(session)
        if isinstance(channel, Channel):
            for client in channel.clients:
                client.close(4409)


def _forget_oldest(channel: Channel, client: Client) -> None:
    oldest = min(client.streams)  # stream numbers only go up within a client's process
    client.streams.discard(oldest)
    channel.owners.pop(oldest, None)


hub = Hub()
