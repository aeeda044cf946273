"""The agent's local commands: a Unix socket in the state directory, one JSON object a line.

Who may speak: processes of the agent's own user, and root. The socket's mode says so, and the
kernel says who is at the other end. No network socket listens (R-CON-3).

    -> {"op": "status"}                    <- {"ok": true, "result": {…}}
    -> {"op": "approve", "pin": "…"}       <- {"ok": false, "error": "wrong_pin", "detail": "…"}
    -> {"op": "watch"}                     <- {"ok": true, "result": {…}} again at each change

`detail` is in the agent's language and carries the remedy. A connection may send one request after
another; after a `watch` it only listens. Parts of the agent register what they answer to.
"""

import asyncio
import contextlib
import inspect
import json
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from agent import advice, posix
from agent.errors import AgentError, ControlError, NotRunning, StateError
from agent.i18n import _

SOCKET = "control.sock"
MAX_LINE = 256 * 1024  # bytes of a request or an answer
MAX_CLIENTS = 32
ANSWER_S = 30.0  # for a handler
IDLE_S = 600.0  # for the next request on an open connection
SEND_S = 5.0  # for a client to take an answer

Args = Mapping[str, Any]
Result = Mapping[str, Any]
Handler = Callable[[Args], Result | Awaitable[Result]]
Watcher = Callable[[Args], AsyncIterator[Result]]

log = logging.getLogger(__name__)


class Control:
    """The registry and its server. Handlers run in the agent's loop.

    A handler takes the request's fields and gives the result; it raises ControlError, or any other
    AgentError, to refuse.
    """

    def __init__(self) -> None:
        self._handlers: dict[str, Handler] = {}
        self._watchers: dict[str, Watcher] = {}
        self._writers: set[asyncio.StreamWriter] = set()

    def register(self, op: str, handler: Handler) -> None:
        self._handlers[op] = handler

    def register_watch(self, op: str, watcher: Watcher) -> None:
        """An op whose answers go on until the client leaves."""
        self._watchers[op] = watcher

    async def serve(self, path: Path) -> None:
        """Answer on the socket at `path` until cancelled. Raises StateError."""
        try:
            listener = posix.listen(path)
        except OSError as error:
            raise StateError(
                _("The control socket {path} cannot be made: {error}.").format(
                    path=path, error=error.strerror
                )
            ) from error
        server = await asyncio.start_unix_server(self._client, sock=listener, limit=MAX_LINE)
        try:
            async with server:
                # Not serve_forever, which since Python 3.12 waits for clients as it ends: a panel
                # that watches would keep the agent from stopping.
                try:
                    await asyncio.get_running_loop().create_future()
                finally:
                    for writer in self._writers:
                        writer.transport.abort()
        finally:
            posix.remove(path)

    async def answer(self, request: Any) -> dict[str, Any]:
        """One request, one answer."""
        try:
            if not isinstance(request, dict) or not isinstance(request.get("op"), str):
                raise ControlError("malformed", _("A request is a JSON object with an op."))
            handler = self._handlers.get(request["op"])
            if handler is None:
                raise _unknown(request["op"])
            args = {key: value for key, value in request.items() if key != "op"}
            async with asyncio.timeout(ANSWER_S):
                made = handler(args)
                result = await made if inspect.isawaitable(made) else made
        except TimeoutError:
            return _refusal("timeout", _("The agent is busy; try again."))
        except ControlError as error:
            return _refusal(error.reason, str(error))
        except AgentError as error:
            return _refusal(error.code, str(error))
        except Exception:
            log.exception("a local command failed")
            return _refusal("internal", _("The agent failed to do this; its log says why."))
        return {"ok": True, "result": dict(result)}

    # --- one connection --------------------------------------------------------------------------

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("socket")
        if len(self._writers) >= MAX_CLIENTS or not posix.peer_is_us(peer):
            log.warning("a local connection was refused")
            writer.close()
            return
        self._writers.add(writer)
        try:
            await self._requests(reader, writer)
        except (ConnectionError, TimeoutError, asyncio.IncompleteReadError):
            log.debug("a local client left")
        finally:
            self._writers.discard(writer)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                async with asyncio.timeout(IDLE_S):
                    line = await reader.readline()
            except ValueError:  # longer than the limit
                await _send(writer, _refusal("too_long", _("The request is too long.")))
                return
            if not line:
                return
            try:
                request = json.loads(line)
            except (ValueError, RecursionError):
                await _send(writer, _refusal("malformed", _("The request is no JSON.")))
                return
            if isinstance(request, dict) and request.get("op") in self._watchers:
                await self._watch(request, reader, writer)
                return
            await _send(writer, await self.answer(request))

    async def _watch(
        self, request: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Push until either side ends; a client that leaves is seen at once."""
        gone = asyncio.ensure_future(reader.read(1))
        pushing = asyncio.ensure_future(self._push(request, writer))
        try:
            await asyncio.wait({gone, pushing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (gone, pushing):
                task.cancel()
            await asyncio.gather(gone, pushing, return_exceptions=True)

    async def _push(self, request: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        args = {key: value for key, value in request.items() if key != "op"}
        try:
            async for result in self._watchers[request["op"]](args):
                await _send(writer, {"ok": True, "result": dict(result)})
        except ControlError as error:
            await _send(writer, _refusal(error.reason, str(error)))
        except AgentError as error:
            await _send(writer, _refusal(error.code, str(error)))


def _unknown(op: str) -> ControlError:
    shown = "".join(c for c in op[:32] if c.isalnum() or c in "-_")
    return ControlError("unknown_op", _("This agent knows no command {op}.").format(op=shown))


def _refusal(reason: str, detail: str) -> dict[str, Any]:
    return {"ok": False, "error": reason, "detail": detail}


async def _send(writer: asyncio.StreamWriter, answer: dict[str, Any]) -> None:
    writer.write(json.dumps(answer, ensure_ascii=False).encode() + b"\n")
    async with asyncio.timeout(SEND_S):
        await writer.drain()


# --- the other end, for the command line and the panel --------------------------------------------


def call(state: Path, op: str, *, timeout_s: float = ANSWER_S + 5, **fields: Any) -> dict[str, Any]:
    """Ask the agent of a state directory and wait for its answer.

    Raises StateError when there is no such directory, NotRunning when no agent answers in it,
    ControlError when it refuses.
    """
    with _connected(state, timeout_s) as connection:
        connection.sendall(json.dumps({"op": op, **fields}).encode() + b"\n")
        for answer in _answers(connection, state):
            return answer
    raise _not_running(state)


def watch(state: Path, op: str = "watch", **fields: Any) -> Iterator[dict[str, Any]]:
    """The answers of a watching op as they come. Raises NotRunning, at its end as well."""
    with _connected(state, 10) as connection:
        connection.sendall(json.dumps({"op": op, **fields}).encode() + b"\n")
        connection.settimeout(None)
        yield from _answers(connection, state)
    raise _not_running(state)


def check(state: Path) -> None:
    """Raises StateError when there is no such state directory: no agent could ever answer in it."""
    if not state.is_dir():
        raise StateError(
            _("There is no state directory {state}. Give the injector's own with --state.").format(
                state=state
            )
        )


@contextlib.contextmanager
def _connected(state: Path, timeout_s: float) -> Iterator[socket.socket]:
    check(state)
    try:
        with posix.connect(state / SOCKET, timeout_s) as connection:
            yield connection
    except OSError as error:
        raise _not_running(state) from error


def _answers(connection: socket.socket, state: Path) -> Iterator[dict[str, Any]]:
    with connection.makefile("rb") as lines:
        while line := lines.readline(MAX_LINE):
            try:
                answer = json.loads(line)
            except ValueError as error:
                raise _not_running(state) from error
            if not answer.get("ok"):
                raise ControlError(str(answer.get("error")), str(answer.get("detail")))
            yield answer["result"]


def _not_running(state: Path) -> NotRunning:
    return NotRunning(
        _("No agent answers in {state}. Start it with: {command}").format(
            state=state, command=advice.command("run", "--state", state)
        )
    )
