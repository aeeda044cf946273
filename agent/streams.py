"""Bytes between a session's streams and the loopback ports that the driver names (R-ACC-5, 8).

Theory of operation. `agent.wire.mux` keeps the books of each session, `agent.pipes` moves bytes:

    link ──frame──▶ receive() ─▶ mux ─▶ events ─▶ Pipe ─▶ socket on 127.0.0.1
    link ◀─frame─── next_frame() ◀─ mux ◀───────── Pipe ◀─ socket

Where a stream leads is decided here and by nobody else: the peer says the *name* of a service. It
must be one that the desk granted to this very session, and the driver must name it now, at a level
that the session has; then the port is the driver's and the address is 127.0.0.1. No host, port or
address that came from the network is ever looked at.

Nothing is unbounded. Towards the service: what its socket does not take is not credited, so the
peer stops at the window. Towards the peer: a socket is read only into what the mux has credit for.
Streams of a session, sessions, and the time to connect have limits.

`pause` (the injector is in use) lets no byte through either way and opens no socket; what is on its
way waits within the window. `deactivate` cuts every socket at once.

A lost link loses nothing: streams stand still, their sockets stay open, and when the link is back
the mux asks for what was on the way (R-CON-5). A stream whose other end does not answer for five
minutes is reset; the rest of the session goes on. An agent that starts again has no keys and no
sessions.

Across sessions frames go out in turns, control and interactive before bulk, one at a time as the
link asks for them; files (diagnostics bundles) are bulk and stand still in `armed injecting hold`.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.drivers import Service
from agent.files import FileChannel
from agent.pipes import Channel, Pipe
from agent.wire.catalogue import ClinicalState, Level
from agent.wire.frames import MAX_DATA
from agent.wire.mux import (
    Credited,
    Data,
    Ended,
    Event,
    Mux,
    MuxError,
    Opened,
    Reset,
    ResetCode,
)
from agent.wire.pacer import Turn
from agent.wire.seal import Seal

if TYPE_CHECKING:
    from agent.runtime import Agent

LOOPBACK = "127.0.0.1"
DIAL_S = 5.0
MAX_FILES = 8  # at a time; sessions are bounded by the site's policy

Services = Callable[[], Mapping[str, Service]]
Spawn = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]

log = logging.getLogger(__name__)


class TooManyFiles(RuntimeError):
    """MAX_FILES are being served."""


class Streams:
    """All sessions of one agent. `ready` is called when next_frame may have something."""

    def __init__(self, *, ready: Callable[[], None], services: Services, spawn: Spawn) -> None:
        self._ready = ready
        self._services = services
        self._spawn = spawn
        self._channels: dict[bytes, Channel] = {}
        self._files: dict[bytes, FileChannel] = {}
        self._turns: deque[Channel | FileChannel] = deque()
        self._is_online = False

    # --- sessions --------------------------------------------------------------------------------

    def activate(
        self, session: str, seal: Seal, services: tuple[str, ...], level: Level, *, paused: bool
    ) -> None:
        """Take this session's frames from now on."""
        channel = Channel(Mux(seal), self._ready, frozenset(services), level, paused)
        self._channels[bytes.fromhex(session)] = channel
        self._turns.append(channel)

    def deactivate(self, session: str) -> None:
        """Close every socket of this session now, and forget its keys."""
        channel = self._channels.pop(bytes.fromhex(session), None)
        if channel is not None:
            self._turns.remove(channel)
            for pipe in list(channel.pipes.values()):
                pipe.abort()

    def pause(self, session: str) -> None:
        channel = self._channels.get(bytes.fromhex(session))
        if channel is not None:
            channel.paused = True
            for pipe in channel.pipes.values():
                pipe.hold()

    def resume(self, session: str) -> None:
        channel = self._channels.get(bytes.fromhex(session))
        if channel is not None:
            channel.paused = False
            held, channel.held = channel.held, []
            for opened in held:
                self._open(channel, opened)
            for pipe in list(channel.pipes.values()):
                pipe.go_on()
            self._ready()

    def moved(self, session: str) -> tuple[int, int]:
        """Bytes so far: to the peer, from the peer."""
        channel = self._channels.get(bytes.fromhex(session))
        return (channel.bytes_up, channel.bytes_down) if channel else (0, 0)

    # --- files -----------------------------------------------------------------------------------

    def serve_file(
        self, session: bytes, seal: Seal, service: str, path: Path, done: Callable[[bool], None]
    ) -> None:
        """Send the file to whoever opens `service` on this session, as often as they do.

        `done(True)` says that the peer has used all of it; `done(False)` that it cannot be read.
        Called again for a session that is served already, this changes only path and `done`: the
        books of its streams must last as long as its key, or a nonce could be used twice. For the
        same reason a key must not outlive the process. Raises TooManyFiles.
        """
        known = self._files.get(session)
        if known is not None:
            known.path, known.done = path, done
            return
        if len(self._files) >= MAX_FILES:
            raise TooManyFiles(f"{MAX_FILES} files are being served")
        channel = FileChannel(Mux(seal), service, path, done)
        self._files[session] = channel
        self._turns.append(channel)

    def withdraw(self, session: bytes) -> None:
        """Serve this file no more, and forget its key."""
        channel = self._files.pop(session, None)
        if channel is not None:
            channel.close()
            self._turns.remove(channel)

    def clinical_state(self, state: ClinicalState) -> None:
        for channel in self._files.values():
            channel.paused = state.critical
        self._ready()

    # --- frames ----------------------------------------------------------------------------------

    def receive(self, frame: bytes) -> None:
        """A frame came down. What is not of an active session, or not sealed, is dropped."""
        session = bytes(frame[4:20])
        channel = self._channels.get(session)
        served = self._files.get(session)
        try:
            if channel is not None:
                for event in channel.mux.receive(frame):
                    self._event(channel, event)
            elif served is not None:
                for event in served.mux.receive(frame):
                    served.event(event)
            else:
                return
        except MuxError as error:
            if channel is not None:
                channel.faults += 1
            log.debug("a frame was dropped: %s", error)
            return
        self._ready()

    def next_frame(self, turn: Turn = Turn.BULK, most: int = MAX_DATA) -> bytes | None:
        """The frame that goes out next, of those whose turn it is, with at most so many bytes of
        data; None when there is none to send now."""
        turns = self._turns
        # One mux keeps the order itself; of several none sends bulk while another has better.
        rounds = (True, False) if len(turns) > 1 else (False,)
        for hold_bulk in rounds if turn is Turn.BULK else (True,):
            for _each in range(len(turns)):
                channel = turns[0]
                turns.rotate(-1)
                mux = channel.mux
                mux.max_frame = most
                mux.hold_bulk = hold_bulk
                mux.hold_data = channel.paused or turn is Turn.CONTROL
                if (frame := mux.next_frame()) is not None:
                    return frame
        return None

    def online(self, online: bool) -> None:
        """The link came or went. What was on it when it went is asked for when it is back."""
        self._is_online = online
        if online:
            for channel in self._turns:
                channel.mux.resume()
            self._ready()

    def tick(self, now: float) -> None:
        """Ask again those who did not answer, and give them up in the end. `now` in seconds of the
        boot clock."""
        for channel in self._turns:
            for stream in channel.patience.look(now, connected=self._is_online):
                log.info("a stream is given up: nobody answers")
                channel.cut(stream)
        self._ready()

    async def close(self) -> None:
        """The agent stops."""
        for session in list(self._channels):
            self.deactivate(session.hex())
        for served in list(self._files):
            self.withdraw(served)

    # --- inside ----------------------------------------------------------------------------------

    def _event(self, channel: Channel, event: Event) -> None:
        if isinstance(event, Opened):
            if channel.paused:
                channel.held.append(event)
            else:
                self._open(channel, event)
            return
        pipe = channel.pipes.get(event.stream)
        if pipe is None:
            channel.held = [held for held in channel.held if held.stream != event.stream]
            return
        if isinstance(event, Data):
            pipe.data(event.data)
        elif isinstance(event, Credited):
            pipe.credited()
        elif isinstance(event, Ended):
            pipe.ended()
        elif isinstance(event, Reset):
            pipe.abort()

    def _open(self, channel: Channel, event: Opened) -> None:
        port = self._port(channel, event.service)
        if port is None:
            channel.mux.reset(event.stream, ResetCode.REFUSED)
            return
        pipe = Pipe(channel, event.stream)
        channel.pipes[event.stream] = pipe
        pipe.dial = self._spawn(self._dial(channel, event.stream, pipe, port))

    def _port(self, channel: Channel, service: str) -> int | None:
        """The driver's port for a service that this session was granted, or None."""
        if service not in channel.services:
            return None
        known = self._services().get(service)
        if known is None or not channel.level.covers(known.level):
            return None
        return known.port

    async def _dial(self, channel: Channel, stream: int, pipe: Pipe, port: int) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(DIAL_S):
                await loop.create_connection(lambda: pipe, LOOPBACK, port)
        except (OSError, TimeoutError):
            channel.pipes.pop(stream, None)
            channel.mux.reset(stream, ResetCode.UNREACHABLE)
            self._ready()


def install(agent: "Agent") -> None:
    """Plug into the agent: frames both ways, and files for jobs. Access activates sessions."""
    streams = Streams(
        ready=agent.frames_ready,
        services=agent.driver.services,
        spawn=lambda work: agent.spawn(work, name="dial a service"),
    )
    agent.provide(streams)
    agent.on_frame(streams.receive)
    agent.stream_source(streams.next_frame)
    agent.on_online(streams.online)
    agent.on_tick(streams.tick)
    agent.on_clinical_state(streams.clinical_state)
    agent.on_stop(streams.close)
