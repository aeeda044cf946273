"""A session's websocket, kept up while the session lasts, and a local port on top of it."""

import asyncio
import contextlib
import random
import signal
import socket
import struct
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

from websockets.asyncio.client import connect
from websockets.exceptions import InvalidHandshake, WebSocketException

from agent.wire.frames import MAX_FRAME
from agent.wire.patience import RESUME_S
from fleet.client import advice, words
from fleet.client.carrier import Carrier, Stream, StreamReset
from fleet.client.errors import ClientError, NotAllowed, NotFound, SessionOver, Unreachable
from fleet.client.i18n import _, gettext_noop
from fleet.client.portal import Portal

# Holds the websocket and calls back once it is there: carry() with all but its last argument.
Carrying = Callable[[Callable[[], None]], Coroutine[Any, Any, None]]
E = TypeVar("E", bound=BaseException)

CHUNK = 256 * 1024  # bytes read from a local socket at a time, at most
AWAY_S = 30.0  # how long the portal may be unreachable before a command without streams gives up
_SILENT_S = 2.0  # a shorter break is not worth a word
_STEADY_S = 5.0  # a connection that lasted so long counts as good
_MAX_DELAY_S = 5.0
_GOODBYE_S = 2.0
_REFUSALS = {
    4401: gettext_noop("The portal does not accept the token. Sign in again with: {command}"),
    4403: gettext_noop("Only the specialist who asked for the session may use it."),
    4404: gettext_noop("The portal does not know this session."),
    4429: gettext_noop("Too many commands use this session at once. End one of them."),
}


async def carry(
    portal: Portal,
    session: str,
    carrier: Carrier,
    say: Callable[[str], None],
    ready: Callable[[], None],
) -> None:
    """Hold the session's websocket; connect again when it breaks and the session is still active.

    Open streams go on over the next one. `say` tells the person of a break that they would notice.
    Never returns. Raises a group with SessionOver, NotAllowed, NotFound or Unreachable.
    """
    async with asyncio.TaskGroup() as group:
        group.create_task(carrier.watch())
        await _hold(portal, session, carrier, say, ready)


async def _hold(
    portal: Portal,
    session: str,
    carrier: Carrier,
    say: Callable[[str], None],
    ready: Callable[[], None],
) -> None:
    loop = asyncio.get_running_loop()
    told = False
    good_at, delay_s = loop.time(), 0.2
    while True:
        started = loop.time()
        why, close_code = _("it closed the connection"), None
        try:
            async with connect(
                portal.stream_url(session),
                additional_headers={"Authorization": portal.headers["Authorization"]},
                user_agent_header=portal.headers["User-Agent"],
                ssl=portal.ssl,
                proxy=None if portal.is_loopback else True,
                compression=None,  # sealed bytes do not compress
                max_size=MAX_FRAME,
                open_timeout=10,
                close_timeout=3,
                ping_interval=10,
                ping_timeout=15,
            ) as websocket:
                ready()
                if told:
                    say(_("Connected again."))
                    told = False
                await carrier.attach(websocket)
                close_code = websocket.close_code
        except (OSError, TimeoutError, WebSocketException) as error:
            why = _plain(error)
        if loop.time() - started > _STEADY_S:
            good_at, delay_s = loop.time(), 0.2
        await _judge(portal, session, close_code)
        away_s = loop.time() - good_at
        if away_s > _SILENT_S and carrier.mux.streams and not told:
            say(
                _(
                    "The connection is lost: {why}. Connecting again; "
                    "nothing typed or sent is lost."
                ).format(why=why)
            )
            told = True
        if away_s > (RESUME_S if carrier.mux.streams else AWAY_S):
            raise Unreachable(
                _(
                    "The connection to {url} is lost: {why}. "
                    "The session may still be active: run the command again."
                ).format(url=portal.url, why=why)
            )
        await asyncio.sleep(delay_s * random.uniform(0.5, 1))  # noqa: S311
        delay_s = min(2 * delay_s, _MAX_DELAY_S)


def _plain(error: Exception) -> str:
    if isinstance(error, InvalidHandshake):
        return _("it does not take the connection ({error})").format(error=error)
    return str(error) or type(error).__name__


async def _judge(portal: Portal, session: str, close_code: int | None) -> None:
    """Return when it makes sense to connect again."""
    with contextlib.suppress(Unreachable):
        shown = await asyncio.to_thread(portal.session, session)
        if shown["state"] != "active":
            raise SessionOver(words.over(shown["state"], shown.get("state_reason")))
    if close_code in _REFUSALS:
        kind = NotFound if close_code == 4404 else NotAllowed
        raise kind(_(_REFUSALS[close_code]).format(command=advice.command("login")))


# --- forward ----------------------------------------------------------------------------------


class Forward:
    """One local port; each connection to it is a stream of the session."""

    def __init__(
        self, carrier: Carrier, service: str, *, bulk: bool, say: Callable[[str], None]
    ) -> None:
        self._carrier = carrier
        self._service = service
        self._bulk = bulk
        self._say = say

    async def run(
        self,
        carrying: Carrying,
        port: int,
        listening: Callable[[int], None],
    ) -> None:
        """Serve until SIGINT or SIGTERM. Raises what `carrying` raises, and ClientError."""
        ready, stop = asyncio.Event(), asyncio.Event()
        with _signals(stop):
            async with asyncio.TaskGroup() as group:
                holder = group.create_task(carrying(ready.set))
                clients: set[asyncio.Task[None]] = set()

                def on_client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                    task = group.create_task(self._serve(reader, writer))
                    clients.add(task)
                    task.add_done_callback(clients.discard)

                server = await _listen(on_client, port)
                try:
                    await ready.wait()
                    await server.start_serving()
                    listening(server.sockets[0].getsockname()[1])
                    await stop.wait()
                finally:
                    server.close()
                for task in clients:
                    task.cancel()
                await asyncio.gather(*clients, return_exceptions=True)
                await self._carrier.flush(_GOODBYE_S)  # the injector hears that they are gone
                holder.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One local connection. What goes wrong with it ends it, and nothing else."""
        stream: Stream | None = None
        whole = False
        try:
            stream = await self._carrier.open(self._service, bulk=self._bulk)
            async with asyncio.TaskGroup() as group:
                group.create_task(_up(reader, stream))
                group.create_task(_down(stream, writer))
            whole = True
        except* StreamReset as resets:
            self._say(f"{self._service}: {words.reset(first(resets).code)}")
        except* ClientError as errors:
            self._say(f"{self._service}: {first(errors).message}")
        except* OSError:
            pass  # the local program went away; the injector is told below
        finally:
            if whole and stream is not None:
                stream.release()
                writer.close()
            else:
                if stream is not None:
                    stream.reset()
                _abort(writer)


def _abort(writer: asyncio.StreamWriter) -> None:
    """Close with a TCP reset: the local program must not take what is cut off for the end."""
    with contextlib.suppress(OSError):
        writer.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
    writer.transport.abort()


async def _up(reader: asyncio.StreamReader, stream: Stream) -> None:
    while data := await reader.read(CHUNK):
        await stream.write(data)
    stream.end()


async def _down(stream: Stream, writer: asyncio.StreamWriter) -> None:
    while data := await stream.read():
        writer.write(data)
        await writer.drain()
        stream.used(len(data))
    if writer.can_write_eof():
        writer.write_eof()


async def _listen(
    on_client: Callable[[asyncio.StreamReader, asyncio.StreamWriter], None], port: int
) -> asyncio.Server:
    try:
        return await asyncio.start_server(
            on_client, "127.0.0.1", port, limit=CHUNK, start_serving=False
        )
    except OSError as error:
        raise ClientError(
            _(
                "Port {port} of this machine cannot be used: {error}. Choose another, or 0 for any."
            ).format(port=port, error=error.strerror)
        ) from error


@contextlib.contextmanager
def _signals(stop: asyncio.Event) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def first(group: BaseExceptionGroup[E]) -> E:
    """The first exception of a group, however deep."""
    inner = group.exceptions[0]
    return first(inner) if isinstance(inner, BaseExceptionGroup) else inner


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's, with which an echo takes two thirds of the time; asyncio's own where there is none
    (Windows)."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run to the end. Of the errors of tasks that failed together, raises the first ClientError."""
    found: list[ClientError] = []
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(main)
    except* ClientError as errors:
        found.append(first(errors))
    if found:
        raise found[0]
