"""`manage.py provider add|show|change`: the OpenID providers that sign organisations' people in."""

import sys
from argparse import BooleanOptionalAction
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils.translation import gettext as _

from fleet.accounts import providers
from fleet.accounts.models import IdentityProvider, Organisation
from fleet.core import clock
from fleet.core.commands import plain_errors


class Command(BaseCommand):
    help = "OpenID providers of organisations. The client's secret is read from standard input."

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="what", required=True)
        actions.add_parser("show", help="which there are")
        add = actions.add_parser("add", help="let an organisation's provider sign its people in")
        add.add_argument("organisation", help="its name or id")
        add.add_argument("--name", required=True, help="as its people know it")
        add.add_argument("--issuer", required=True, help="exactly as the provider writes it")
        add.add_argument("--client-id", required=True)
        change = actions.add_parser("change", help="switch it, or replace its secret")
        change.add_argument("provider", help="its id")
        change.add_argument("--enabled", action=BooleanOptionalAction)
        change.add_argument("--secret", action="store_true", help="read a new one")
        for command in (add, change):
            command.add_argument(
                "--domain", action="append", help="of its people's e-mail addresses; repeat it"
            )
            command.add_argument(
                "--required", action=BooleanOptionalAction, help="they sign in no other way"
            )
            command.add_argument(
                "--trusts-mfa",
                action=BooleanOptionalAction,
                help="“mfa” among the token's “amr” counts as their second factor",
            )

    def handle(self, *args: Any, what: str, **options: Any) -> None:
        with plain_errors():
            if what == "show":
                self._show()
            elif what == "add":
                self._add(options)
            else:
                self._change(options)

    def _add(self, options: dict[str, Any]) -> None:
        row = providers.add(
            find_organisation(options["organisation"]),
            name=options["name"],
            issuer=options["issuer"],
            client_id=options["client_id"],
            client_secret=sys.stdin.readline().strip(),
            domain_names=options["domain"] or [],
            required=bool(options["required"]),
            trusts_mfa=bool(options["trusts_mfa"]),
            actor="portal",
            now=clock.now(),
        )
        self.stdout.write(row.pk)
        self.stderr.write(
            _("Register this as the client's redirect URI, at the portal's address: %s")
            % f"/sign-in/with/{row.pk}/back/"
        )

    def _change(self, options: dict[str, Any]) -> None:
        changes: dict[str, Any] = {
            name: options[name]
            for name in ("enabled", "required", "trusts_mfa")
            if options[name] is not None
        }
        if options["domain"]:
            changes["domain_names"] = options["domain"]
        if options["secret"]:
            changes["client_secret"] = sys.stdin.readline().strip()
        providers.change(options["provider"], actor="portal", now=clock.now(), **changes)

    def _show(self) -> None:
        for row in IdentityProvider.objects.select_related("organisation"):
            states = [name for name in ("enabled", "required", "trusts_mfa") if getattr(row, name)]
            self.stdout.write(
                "  ".join([row.pk, row.organisation.name, row.name, row.issuer, row.domains,
                           ",".join(states)])
            )  # fmt: skip


def find_organisation(name: str) -> Organisation:
    """Raises CommandError."""
    found = Organisation.objects.filter(pk=name) or Organisation.objects.filter(name=name)
    if (row := found.first()) is None:
        names = ", ".join(Organisation.objects.values_list("name", flat=True))
        raise CommandError(_("There is no organisation “%(name)s”. Those there are: %(names)s")
                           % {"name": name, "names": names})  # fmt: skip
    return row
