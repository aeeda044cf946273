"""Speaks to an agent's control socket: one JSON object a line, as `patency-agent` does."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

SOCKET = "control.sock"
ANSWER_S = 10.0


async def ask(state: Path, op: str, **fields: Any) -> dict[str, Any]:
    """The answer, whole: {"ok": …}. Raises OSError, TimeoutError when nobody answers."""
    # Through the open folder: a socket's address holds about a hundred bytes only.
    folder = os.open(state, os.O_RDONLY | os.O_DIRECTORY)
    try:
        async with asyncio.timeout(ANSWER_S):
            reader, writer = await asyncio.open_unix_connection(f"/proc/self/fd/{folder}/{SOCKET}")
            try:
                writer.write(json.dumps({"op": op, **fields}).encode() + b"\n")
                line = await reader.readline()
            finally:
                writer.close()
    finally:
        os.close(folder)
    try:
        answer: dict[str, Any] = json.loads(line)
    except ValueError as error:
        raise ConnectionError("the agent hung up") from error
    return answer
