from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from fleet.pages.catalogues import DOMAINS, problems, refresh


class Command(BaseCommand):
    help = "Refresh the translation catalogues from the source, or check that nothing is missing."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--check", action="store_true", help="verify only; writes nothing")

    def handle(self, *args: Any, **options: Any) -> None:
        found: list[str] = []
        for domain in DOMAINS:
            if not options["check"]:
                refresh(domain)
            found += problems(domain)
        if found and options["check"]:
            raise CommandError("\n".join(found))
        for problem in found:
            self.stdout.write(problem)
