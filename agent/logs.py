"""Logs to stderr: one JSON object a line, so that a journal can be searched by field.

`PATENCY_LOG` sets the level: debug, info (default), warning, error. Each line names its agent, as
several may share a process.
"""

import json
import logging
import os
import sys
from contextvars import ContextVar
from datetime import UTC, datetime

LEVELS = ("debug", "info", "warning", "error")
agent: ContextVar[str] = ContextVar("agent", default="")


class _Line(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC)
        line = {
            "at": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "agent": agent.get(),
            "from": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def set_up() -> None:
    """Call once, at the start of a process that runs agents."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Line())
    level = os.environ.get("PATENCY_LOG", "info").lower()
    logging.basicConfig(
        level=(level if level in LEVELS else "info").upper(), handlers=[handler], force=True
    )
    # Below warning it names every request, with its address.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("httpcore").setLevel(logging.WARNING)
