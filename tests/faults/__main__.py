"""`python -m tests.faults [--write FILE] [name …]`: run experiments, print what they measured.

Gives status 1 when one missed its pass mark. With --write the rows of what was run are replaced in
the file and the others stay, so that a long run may be made of several.
"""

import argparse
import logging
import os
import platform
import re
import sys
import tempfile
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path

from tests import faults
from tests.faults import Experiment
from tests.scale import SCALE

HEAD = """\
# What was measured when things failed

Each row of the table *Faults* in the threat model is an experiment under `tests/faults/`; this page
is written by it and never by hand. Run all with `make faults` (a tenth of the counts) or
`PATENCY_SCALE=1 make faults` (all of them), one with `python -m tests.faults NAME`. Loss and delay
are made by a relay in user space, a model that `tests/relay.py` describes; everything else is real:
processes, signals, disks, TLS, the gate, the simulators.

| experiment | fault | must give | measured | how |
|---|---|---|---|---|
"""
ROW = re.compile(r"^\| `([a-z-]+)` \|.*\n", re.MULTILINE)


def machine() -> str:
    """The class of machine, not its name."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return (
        f"{os.cpu_count()} cores ({platform.machine()}), {pages / 2**30:.0f} GB,"
        f" {platform.system()}, Python {platform.python_version()}"
    )


def row(done: Experiment, measured: str) -> str:
    today = datetime.now(UTC).date().isoformat()
    how = f"`PATENCY_SCALE={SCALE:g} python -m tests.faults {done.name}`, {today}, {machine()}"
    return f"| `{done.name}` | {done.fault} | {done.must} | {measured} | {how} |\n"


def written(page: str, fresh: dict[str, str]) -> str:
    """The page with these rows in place of their old ones, in the table's order."""
    rows = {found[1]: found[0] for found in ROW.finditer(page)} | fresh
    return HEAD + "".join(rows[name] for name in faults.ORDER if name in rows)


def _why(error: BaseException) -> str:
    """Where it was found out, and what was said; a bare assertion says nothing."""
    cause = error.__cause__ or error  # of a time-out: where it struck
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    ours = [f for f in traceback.extract_tb(cause.__traceback__) if "/tests/faults/" in f.filename]
    return f"{Path(ours[-1].filename).name}:{ours[-1].lineno} {ours[-1].line} {error}"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    parser.add_argument("--write", type=Path, metavar="FILE")
    parser.add_argument("names", nargs="*", metavar="name")
    options = parser.parse_args(arguments)
    known = {each.name: each for each in faults.load()}
    if unknown := set(options.names) - set(known):
        parser.error(f"no such experiment: {', '.join(unknown)}; there are {', '.join(known)}")
    logging.getLogger().addHandler(logging.NullHandler())  # what is logged is not the result
    failed = []
    for each in known.values():
        if options.names and each.name not in options.names:
            continue
        began = time.monotonic()
        print(f"{each.name}: {each.fault}", flush=True)
        try:
            with tempfile.TemporaryDirectory(prefix="patency-") as folder:
                measured = each.run(Path(folder))
        except (AssertionError, ExceptionGroup, TimeoutError) as error:
            failed.append(each.name)
            print(f"    MISSED ({each.must}): {_why(error)}", flush=True)
            continue
        print(f"    {measured} [{time.monotonic() - began:.0f} s]", flush=True)
        if options.write is not None:
            page = options.write.read_text() if options.write.exists() else ""
            options.write.write_text(written(page, {each.name: row(each, measured)}))
    if failed:
        print(f"missed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
