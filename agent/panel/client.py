"""The panel's end of the control socket: views as they come, commands as people give them."""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec

from agent import control, i18n, posix
from agent.errors import StateError
from agent.panel import view
from agent.panel.view import View

SILENCE_S = 25.0  # the agent says something every ten seconds
AGAIN_S = 1.0
CALL_S = 20.0

log = logging.getLogger(__name__)


async def views(state: Path) -> AsyncIterator[View | None]:
    """What to show, as it changes; None while no agent answers. Goes on for ever."""
    while True:
        with contextlib.suppress(OSError, TimeoutError, ValueError, StateError):
            async for shown in _watch(state):
                yield shown
        yield None
        await asyncio.sleep(AGAIN_S)


async def _watch(state: Path) -> AsyncIterator[View]:
    """Until the agent is gone. Raises OSError, TimeoutError, ValueError."""
    async with asyncio.timeout(SILENCE_S):
        with posix.socket_address(state / control.SOCKET) as address:
            reader, writer = await asyncio.open_unix_connection(address, limit=control.MAX_LINE)
    try:
        writer.write(b'{"op": "watch"}\n')
        while True:
            async with asyncio.timeout(SILENCE_S):
                line = await reader.readline()
            if not line:
                return
            answer = json.loads(line)
            if not (isinstance(answer, dict) and answer.get("ok")):
                return
            try:
                yield view.read(answer["result"])
            except msgspec.ValidationError:
                log.exception("the agent says what this panel cannot show")
                return
    finally:
        writer.close()


async def call(state: Path, op: str, **fields: Any) -> dict[str, Any]:
    """Give a command. Errors speak the language in use here. Raises AgentError."""
    return await asyncio.to_thread(
        control.call, state, op, timeout_s=CALL_S, language=i18n.language(), **fields
    )
