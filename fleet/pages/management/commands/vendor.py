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
            vendored.refresh()
        problems = vendored.check()
        if problems:
            raise CommandError("\n".join(problems))
        self.stdout.write(f"{len(vendored.entries())} vendored files are as listed")
