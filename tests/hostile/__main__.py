"""`python -m tests.hostile`: try every way in, and say of each what stopped it.

Gives pytest's status: 1 when something got in, or was not refused as it should be.
"""

import sys
import textwrap
from pathlib import Path

import pytest


class Told:
    """Prints a line for each way as it is tried, instead of pytest's dots."""

    tried = 0

    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        return ("passed", "", "") if report.passed and report.when == "call" else None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "teardown" or not report.passed:
            return
        said = dict(report.user_properties)
        if "stopped" not in said:
            return
        self.tried += 1
        way = textwrap.fill(str(said["way"]), 96, subsequent_indent="    ")
        print(f"\n{self.tried:2}. {way}\n    stopped by: {said['stopped']}", flush=True)


def main() -> int:
    told = Told()
    here = str(Path(__file__).parent)
    status = pytest.main(["-q", "--no-header", "-p", "no:randomly", here], plugins=[told])
    if status == 0:
        print(f"\n{told.tried} tried: no byte reached a service but honest people's")
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
