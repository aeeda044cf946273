"""The contained console and the status page of simulated injectors: what `console` and `web` reach.

A process of its own, since the agent opens no network port (R-CON-3). It listens on the loopback
ports that each state directory's `driver.json` names, and everything it knows it asks of the agent
through the control socket. The console takes six commands and there is no way out of it: it starts
no program, opens no file, and repeats nothing that was typed.
"""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from agent import control, status_page
from agent.drivers import DriverError
from agent.drivers.loading import settings
from agent.errors import AgentError, StateError

MAX_LINE = 256  # bytes of a command
IDLE_S = 600.0
SEND_S = 10.0
MAX_CLIENTS = 8  # of one port
BIND_AGAIN_S = 5.0

Client = Callable[[Path, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

log = logging.getLogger(__name__)

_HELP = """\
  status            state, readings, connection
  faults            what is wrong now, and what can be injected
  events            the newest events
  inject FAULT      for example: inject occlusion
  clear             put everything right; back to idle
  exit              leave
"""


def run(states: Sequence[Path]) -> None:
    """Serve until SIGTERM or SIGINT. Raises StateError."""
    asyncio.run(serve(states))


async def serve(states: Sequence[Path]) -> None:
    """Raises StateError when a state directory is no simulator's."""
    ports: list[tuple[int, Path, Client]] = []
    for state in states:
        try:
            services = settings(state).services
        except DriverError as error:
            raise StateError(str(error)) from error
        for name, client in (("console", _console), ("web", status_page.answer)):
            if name in services:
                ports.append((services[name], state, client))
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_listen(*port)) for port in ports]
        await stop.wait()
        for task in tasks:
            task.cancel()


async def _listen(port: int, state: Path, client: Client) -> None:
    """Serve one port of one injector; a port that is taken is tried again."""
    clients: set[asyncio.Task[None]] = set()
    async with asyncio.TaskGroup() as group:

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if len(clients) >= MAX_CLIENTS:
                writer.close()
                return
            task = group.create_task(_serve(client, state, reader, writer))
            clients.add(task)
            task.add_done_callback(clients.discard)

        while True:
            try:
                server = await asyncio.start_server(connected, "127.0.0.1", port, limit=8192)
            except OSError as error:
                log.error("port %d of %s: %s", port, state.name, error.strerror)
                await asyncio.sleep(BIND_AGAIN_S)
                continue
            async with server:
                await server.serve_forever()


async def _serve(
    client: Client, state: Path, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """One client, from whom nothing can harm the others."""
    try:
        await client(state, reader, writer)
    except (ConnectionError, TimeoutError, ValueError, asyncio.IncompleteReadError):
        log.debug("a client left")
    except Exception:
        log.exception("a client was not served")
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


# --- the console ----------------------------------------------------------------------------------


async def _console(state: Path, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    shown = await ask(state, "console-view")
    title = f"{shown['product_line']} {shown['serial']}" if "serial" in shown else state.name
    await _say(writer, f"Console of the simulated injector {title}. Type help.\n> ")
    while True:
        async with asyncio.timeout(IDLE_S):
            line = await reader.readline()
        if not line or len(line) > MAX_LINE:
            return
        words = line.decode("ascii", "replace").split()
        if words[:1] in (["exit"], ["quit"]):
            await _say(writer, "Good-bye.\n")
            return
        await _say(writer, await _answer(state, words) + "> ")


async def _say(writer: asyncio.StreamWriter, text: str) -> None:
    writer.write(text.encode())
    async with asyncio.timeout(SEND_S):
        await writer.drain()


async def _answer(state: Path, words: list[str]) -> str:
    match words:
        case []:
            return ""
        case ["help"]:
            return _HELP
        case ["status" | "faults" | "events" as word]:
            shown = await ask(state, "console-view")
            return shown["error"] + "\n" if "error" in shown else _SHOW[word](shown)
        case ["inject", fault]:
            return _done(await ask(state, "simulate", fault=fault))
        case ["clear"]:
            return _done(await ask(state, "simulate", fault="idle"))
        case ["inject"]:
            return "Inject what? Type faults for a list.\n"
        case _:
            return "There is no such command. Type help.\n"


async def ask(state: Path, op: str, **fields: Any) -> dict[str, Any]:
    """The agent's answer, or {"error": text}."""
    try:
        return await asyncio.to_thread(control.call, state, op, timeout_s=10, **fields)
    except AgentError as error:
        return {"error": str(error)}


def _done(answer: dict[str, Any]) -> str:
    return f"{answer['error']}\n" if "error" in answer else f"Done. State: {answer['state']}.\n"


def _status(shown: dict[str, Any]) -> str:
    rows = {
        "state": shown["state"],
        "connected": "yes" if shown["online"] else "no",
        "software": shown["software_version"],
        **{name: f"{value:g}" for name, value in sorted(shown["values"].items())},
    }
    return "".join(f"  {name:32} {value}\n" for name, value in rows.items())


def _faults(shown: dict[str, Any]) -> str:
    wrong = "".join(f"  {describe(event)}\n" for event in shown["conditions"])
    can = ", ".join(fault for fault in shown["faults"] if fault != "idle")
    return f"Wrong now:\n{wrong or '  nothing'}{'' if wrong else chr(10)}To inject: {can}\n"


def _events(shown: dict[str, Any]) -> str:
    rows = (f"  {e['at']}  {e['phase']:8} {describe(e)}\n" for e in shown["events"])
    return "".join(rows) or "  none in the last hour\n"


def describe(event: dict[str, Any]) -> str:
    """`103 occlusion suspected (M) a 1021.4`."""
    parts = [str(event["code"]), event["name"], f"({event['priority']})", event["syringe"]]
    if event["value"] is not None:
        parts.append(f"{event['value']:g}")
    return " ".join(part for part in parts if part)


_SHOW = {"status": _status, "faults": _faults, "events": _events}
