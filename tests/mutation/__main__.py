"""Take the defences away, one at a time, and see a test fail: `make mutation`.

    python -m tests.mutation [WORD…]      # all, or those whose name holds one of the words

Exits with 1 when a defence could be taken away unnoticed.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.mutation import ROOT, TABLE, Mutation

RUN_S = 180  # for the tests of one mutation
WHOLE_S = 1200  # for those of all, with nothing removed


def copy(folder: Path) -> None:
    """The files that git knows, as they are now."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True)
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)


def passes(folder: Path, tests: Sequence[str], within_s: float = RUN_S) -> bool | None:
    """Whether the tests pass there; None when they could not be run."""
    # The working directory comes before the installed project on the path. No byte code: a file
    # that changes twice in a second would be taken from its cache.
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(folder)}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:randomly", *tests]
    try:
        result = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, timeout=within_s
        )
    except subprocess.TimeoutExpired:
        return False
    return {0: True, 1: False}.get(result.returncode)


def caught(mutation: Mutation, folder: Path) -> bool | None:
    """Whether a test notices that the defence is missing. Leaves the copy as it was."""
    path = folder / mutation.file
    text = path.read_text()
    if mutation.old not in text:
        return None
    path.write_text(text.replace(mutation.old, mutation.new))
    try:
        passed = passes(folder, mutation.tests)
    finally:
        path.write_text(text)
    return None if passed is None else not passed


def main(words: Sequence[str]) -> int:
    chosen = [each for each in TABLE if not words or any(word in each.name for word in words)]
    with tempfile.TemporaryDirectory(prefix="patency-mutation-") as name:
        folder = Path(name)
        copy(folder)
        tests = sorted({test for mutation in chosen for test in mutation.tests})
        print(f"{len(tests)} tests of {len(chosen)} defences, with nothing removed …", flush=True)
        if not passes(folder, tests, WHOLE_S):
            print("some fail as it is: mend them first")
            return 1
        unnoticed = 0
        for mutation in chosen:
            began = time.monotonic()
            found = caught(mutation, folder)
            unnoticed += not found
            verdict = {True: "caught", False: "UNNOTICED", None: "CANNOT BE TRIED"}[found]
            print(f"{verdict:15} {mutation.name} ({time.monotonic() - began:.1f} s)", flush=True)
    print(f"{len(chosen) - unnoticed} of {len(chosen)} caught")
    return 1 if unnoticed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
