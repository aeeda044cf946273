"""Commands that a message advises: complete, quoted, and right when they are pasted as they are."""

import os
import shlex
import shutil
import sys
from pathlib import Path

NAME = "patency-agent"


def command(*parts: object) -> str:
    """`patency-agent` with these arguments: by the path it was called by, where the shell would not
    find it by its name."""
    return " ".join(shlex.quote(str(part)) for part in (_program(), *parts))


def aside(state: Path, *patterns: str) -> str:
    """Move files of a state directory into its folder `aside`. The patterns are for the shell."""
    folder = shlex.quote(str(state))
    files = " ".join(f"{folder}/{pattern}" for pattern in patterns)
    return f"mkdir -p {folder}/aside && mv {files} {folder}/aside/"


def _program() -> str:
    called = Path(sys.argv[0])
    if called.name != NAME:  # run by a test, or within another program
        return NAME
    found = shutil.which(NAME)
    if found is not None and os.path.realpath(found) == os.path.realpath(called):
        return NAME
    return str(called)
