"""`manage.py code`: what the authenticator apps of the demo's people show now."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from fleet.accounts.factors import PERIOD_S, totp_code
from fleet.core import clock
from fleet.demo.plan import plan


class Command(BaseCommand):
    help = "The six digits that the demo's people are asked for after their password."
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("username", nargs="?", help="of this person alone, and nothing else")

    def handle(self, *args: Any, username: str | None, **options: Any) -> None:
        now = clock.now()
        apps = {user.username: user.totp for user in plan().users if user.totp is not None}
        if username is not None:
            if username not in apps:
                raise CommandError(
                    f"{username} is asked for no code. Those who are: {', '.join(apps)}"
                )
            self.stdout.write(totp_code(apps[username], now=now))
            return
        left = PERIOD_S - int(now.timestamp()) % PERIOD_S
        for name, secret in apps.items():
            self.stdout.write(f"{name:14} {totp_code(secret, now=now)}")
        self.stdout.write(
            f"For {left} s more; each is taken once. In an app: the secret in demo.json."
        )
