"""Reading what an earlier start has left: a file that is damaged is named, with the way out."""

import json
import shlex
from pathlib import Path
from typing import Any

from django.conf import settings

from fleet.core.errors import Conflict


def start_afresh(what: object, why: str) -> Conflict:
    """The demo holds nothing that is worth a repair."""
    data = shlex.quote(str(settings.PATENCY_DATA))
    return Conflict(f"{what}: {why}. Start afresh with: rm -r {data}")


def damaged(path: Path) -> Conflict:
    return start_afresh(path, "it is damaged")


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in `path`. Raises Conflict, FileNotFoundError."""
    try:
        written = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise damaged(path) from error
    if not isinstance(written, dict):
        raise damaged(path)
    return written
