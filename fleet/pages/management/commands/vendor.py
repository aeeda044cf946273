from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from fleet.pages import vendored


class Command(BaseCommand):
    help = (
        "Fetch the vendored front-end files again (needs npm), or check them against the manifest."
    )
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--check", action="store_true", help="verify only; needs no network")

    def handle(self, *args: Any, **options: Any) -> None:
        if not options["check"]:
            for root in vendored.ROOTS:
                vendored.refresh(root)
        problems = [problem for root in vendored.ROOTS for problem in vendored.check(root)]
        if problems:
            raise CommandError("\n".join(problems))
        count = sum(len(vendored.entries(root / "manifest.json")) for root in vendored.ROOTS)
        self.stdout.write(f"{count} vendored files are as listed")
