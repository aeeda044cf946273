"""An agent that falls ill on request: `python -m tests.sick STATE`, then a signal.

SIGUSR1: its loop hangs. SIGUSR2: the thread that writes its store hangs. SIGHUP: it leaks memory, a
hundred megabytes a second. Nothing else of it differs from `patency-agent run`.
"""

import asyncio
import signal
import sys
import time
from pathlib import Path

from agent import logs
from agent.errors import AgentError
from agent.main import parts
from agent.runtime import Agent
from agent.supervisor import supervise

FOREVER_S = 3600.0
LEAK = 10 * 1024 * 1024

_leaked: list[bytearray] = []


def _ill(agent: Agent) -> None:
    loop = asyncio.get_running_loop()
    hang = time.sleep
    loop.add_signal_handler(signal.SIGUSR1, lambda: hang(FOREVER_S))
    loop.add_signal_handler(
        signal.SIGUSR2, lambda: agent.store.write(lambda connection: hang(FOREVER_S))
    )

    def leak() -> None:
        _leaked.append(bytearray(b"x" * LEAK))
        loop.call_later(0.1, leak)

    loop.add_signal_handler(signal.SIGHUP, leak)


if __name__ == "__main__":
    logs.set_up()
    try:
        asyncio.run(
            supervise([Path(sys.argv[1])], lambda state: Agent(state, parts=[*parts(), _ill]))
        )
    except AgentError as error:
        sys.exit(error.exit_status)
