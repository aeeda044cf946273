"""Files that must be whole or absent, and readable by the portal's user alone."""

import os
from pathlib import Path


def write_private(path: Path, data: bytes) -> None:
    """Write `data` under `path` (0600, folder 0700 when made here), safely on disk on return."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
