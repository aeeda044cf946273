"""manage.py access-server add|bundle|show: what runs an access server elsewhere."""

from pathlib import Path
from typing import Any

from django.core.management import BaseCommand, CommandError, CommandParser
from django.utils.translation import gettext as _

from fleet.core import clock
from fleet.core.commands import plain_errors
from fleet.enrolment import links
from fleet.servers.models import AccessServer


class Command(BaseCommand):
    help = "Write what an access server needs to run, or show the access servers there are."

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True)
        bundle = actions.add_parser(
            "bundle", help="certificates and settings of one, into a folder"
        )
        bundle.add_argument("name")
        bundle.add_argument("--out", type=Path, required=True, metavar="DIR")
        actions.add_parser("show", help="name, address, link and state of each")

    def handle(self, *args: Any, **options: Any) -> None:
        with plain_errors():
            if options["action"] == "bundle":
                self._bundle(options["name"], options["out"])
            else:
                self._show()

    def _bundle(self, name: str, folder: Path) -> None:
        row = AccessServer.objects.filter(pk=name).first()
        if row is None:
            raise CommandError(
                _("There is no access server %(name)s. Add it on the portal’s page first.")
                % {"name": name}
            )
        try:
            links.write_bundle(row, folder, now=clock.now())
        except OSError as error:
            raise CommandError(
                _("%(folder)s cannot be written: %(error)s.")
                % {"folder": folder, "error": error.strerror}
            ) from error
        self.stdout.write(str(folder))
        self.stderr.write(
            _(
                "Carry it to the access server over a safe way: it holds that server’s keys. There:"
                " manage.py up --only gate --name %(name)s --data DIR"
            )
            % {"name": name}
        )

    def _show(self) -> None:
        for row in AccessServer.objects.all():
            state = "linked" if row.linked else row.trouble or "-"
            on = "enabled" if row.enabled else "disabled"
            end = row.certificates_end_at
            ends = f"certificates end {end:%Y-%m-%d}" if end is not None else "-"
            self.stdout.write(
                f"{row.name:12} {row.host}:{row.port}  {row.link}  {on}  {state}  {row.devices}"
                f"  {ends}"
            )
