"""manage.py audit verify: walk every audit chain that the portal holds."""

import json
import sys
from dataclasses import asdict
from typing import Any

from django.core.management import BaseCommand, CommandParser
from django.utils.translation import gettext as _

from fleet.audit import verification


class Command(BaseCommand):
    help = "Verify the audit chains of organisations and devices. Exit code 1 when one is broken."

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True)
        verify = actions.add_parser("verify", help="walk every chain, name the first bad entry")
        verify.add_argument("-o", "--output", choices=["text", "json"], default="text")

    def handle(self, *args: Any, **options: Any) -> None:
        verdicts = list(verification.verify_everything())
        if options["output"] == "json":
            found = [{**asdict(each), "good": each.good} for each in verdicts]
            self.stdout.write(json.dumps(found))
        else:
            for each in verdicts:
                self.stdout.write(self._line(each))
        if not all(each.good for each in verdicts):
            sys.exit(1)

    @staticmethod
    def _line(verdict: verification.Verdict) -> str:
        if verdict.good:
            said = _("%(count)d entries, whole") % {"count": verdict.entries}
        else:
            said = _(
                "entry %(index)d does not fit: compare it with a backup and with the other side"
            ) % {"index": verdict.bad}
        return f"{verdict.kind:12} {verdict.chain:24} {said}"
