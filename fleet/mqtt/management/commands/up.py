"""manage.py up: the whole portal in one process."""

import asyncio
import errno
from typing import Any

import uvloop
from django.core.management import BaseCommand, CommandError, CommandParser, call_command
from django.utils.translation import gettext as _

from fleet.core.commands import plain_errors
from fleet.mqtt import server
from fleet.mqtt.options import ServeOptions, from_settings


class Command(BaseCommand):
    help = "Serve web, API, gate, ingest and ticks until stopped."

    def add_arguments(self, parser: CommandParser) -> None:
        # manage.py reads these three before the settings exist; they stand here for the help.
        parser.add_argument("--http", metavar="ADDR", help="address of the web server")
        parser.add_argument("--mqtt", metavar="ADDR", help="address of the gate")
        parser.add_argument("--data", metavar="DIR", help="the data directory")
        parser.add_argument(
            "--demo", action="store_true", help="with twelve simulated injectors on this machine"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        call_command("migrate", verbosity=0, interactive=False)
        with plain_errors():
            serve_options = from_settings()
            companion = self._prepare_demo(serve_options) if options["demo"] else None
            try:
                with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                    runner.run(server.serve(serve_options, companion=companion))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                raise CommandError(
                    _("%(http)s or %(mqtt)s is in use. Stop what listens there, or choose others.")
                    % {"http": serve_options.http, "mqtt": serve_options.mqtt}
                ) from error

    def _prepare_demo(self, options: ServeOptions) -> server.Companion:
        from fleet import demo

        return demo.companion(options)
