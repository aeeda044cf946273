"""`manage.py person invite|link|reset|close|open`: people's accounts, from the portal's machine."""

import getpass
import sys
from typing import Any

from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils.translation import gettext as _

from fleet.accounts import people, providers
from fleet.accounts.management.commands.provider import find_organisation
from fleet.accounts.models import IdentityProvider, Role, User
from fleet.core import clock
from fleet.core.commands import plain_errors


class Command(BaseCommand):
    help = "Accounts of people."

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="what", required=True)
        invite = actions.add_parser("invite", help="make an account")
        invite.add_argument("organisation", help="its name or id")
        invite.add_argument("username")
        invite.add_argument("--role", required=True, choices=[role.value for role in Role])
        invite.add_argument("--email", default="", help="by which its provider knows the person")
        invite.add_argument("--first-name", default="")
        invite.add_argument("--last-name", default="")
        invite.add_argument(
            "--password", action="store_true", help="ask for one; left out, only the provider does"
        )
        link = actions.add_parser("link", help="say which subject of a provider it is")
        link.add_argument("username")
        link.add_argument("--provider", required=True, help="its id")
        link.add_argument("--subject", required=True)
        for name, told in (
            ("reset", "take the second factor, the sessions and the tokens away"),
            ("close", "let nobody in by it any more"),
            ("open", "open a closed account again"),
        ):
            actions.add_parser(name, help=told).add_argument("username")

    def handle(self, *args: Any, what: str, **options: Any) -> None:
        with plain_errors():
            if what == "invite":
                self._invite(options)
                return
            user = _user(options["username"])
            now = clock.now()
            if what == "link":
                row = IdentityProvider.objects.filter(pk=options["provider"]).first()
                if row is None:
                    raise CommandError(_("There is no such provider: manage.py provider show"))
                providers.link(user, row, options["subject"], actor="portal", now=now)
            elif what == "reset":
                people.reset(user, actor="portal", now=now)
            else:
                people.close(user, closed=what == "close", actor="portal", now=now)

    def _invite(self, options: dict[str, Any]) -> None:
        password = _password() if options["password"] else None
        people.invite(
            find_organisation(options["organisation"]),
            username=options["username"],
            role=Role(options["role"]),
            email=options["email"],
            first_name=options["first_name"],
            last_name=options["last_name"],
            password=password,
            actor="portal",
            now=clock.now(),
        )


def _user(username: str) -> User:
    user = User.objects.select_related("organisation").filter(username=username).first()
    if user is None:
        raise CommandError(_("There is nobody with the user name “%s”.") % username)
    return user


def _password() -> str:
    """From the terminal, or the first line of standard input. Raises CommandError."""
    password = getpass.getpass() if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
    try:
        validate_password(password)
    except ValidationError as error:
        raise CommandError(" ".join(error.messages)) from error
    return password
