"""manage.py up: the whole portal in one process, or one part of it."""

import asyncio
import errno
import os
import shlex
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import uvloop
from django.conf import settings
from django.core.management import BaseCommand, CommandError, CommandParser, call_command
from django.db import DatabaseError
from django.utils.translation import gettext as _

from broker import access_server
from broker.errors import NotStarted
from fleet.core.commands import plain_errors
from fleet.core.errors import Conflict
from fleet.core.files import hold
from fleet.enrolment import soundness
from fleet.mqtt import bundle, server
from fleet.mqtt.options import ServeOptions, from_settings, metrics_address


class Command(BaseCommand):
    help = "Serve web, API, gate, ingest and ticks until stopped."

    def add_arguments(self, parser: CommandParser) -> None:
        # manage.py reads these before the settings exist; they stand here for the help.
        parser.add_argument("--http", metavar="ADDR", help="address of the web server")
        parser.add_argument("--mqtt", metavar="ADDR", help="address of the gate")
        parser.add_argument("--data", metavar="DIR", help="the data directory")
        parser.add_argument("--link", metavar="ADDR", help="address of an access server's link")
        parser.add_argument("--metrics", metavar="ADDR", help="address where metrics are read")
        parser.add_argument(
            "--only",
            choices=["web", "gate", "worker"],
            help="web: the portal, with devices on access servers alone; gate: an access server, "
            "on the folder that `access-server bundle` wrote (--data), without a database; "
            "worker: not yet, since ticks must reach devices (docs/deploy.md)",
        )
        parser.add_argument("--name", help="name of the access server, with --only gate")
        parser.add_argument(
            "--demo", action="store_true", help="with twelve simulated injectors on this machine"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if (options["only"] == "gate") is not bool(options["name"]):
            raise CommandError(_("--only gate and --name NAME belong together."))
        if options["only"] == "worker":
            raise CommandError(
                _(
                    "There is no worker apart from the portal yet: what it does must reach"
                    " injectors, and runs in “up” and in “up --only web”. Leave it out;"
                    " docs/deploy.md says more (How many processes)."
                )
            )
        if options["only"] == "gate":
            self._gate(options["name"])
            return
        if options["only"] and options["demo"]:
            raise CommandError(_("The demo is whole. Leave --only out."))
        with plain_errors():
            if not options["demo"]:
                self._alone()
            self._ready(demo=options["demo"])
            serve_options = from_settings(gate=options["only"] != "web")
            companion = None
            if options["demo"]:  # which has more to say of a second one
                companion = self._prepare_demo(serve_options)
                self._alone()
            self._run(
                server.serve(serve_options, companion=companion),
                ", ".join(map(str, serve_options.addresses)),
            )

    def _alone(self) -> None:
        """One portal for a data directory: two would take each other's links, and each would call
        the other's devices offline. The lock goes with the process. Raises Conflict."""
        folder = Path(settings.PATENCY_DATA)
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            held = hold(folder / "portal.lock")
        except OSError as error:
            raise Conflict(
                _(
                    "%(file)s cannot be used (%(error)s). Choose a data directory that you may"
                    " write."
                )
                % {"file": error.filename or folder, "error": error.strerror}
            ) from error
        if held is None:
            raise Conflict(
                _(
                    "A portal runs on %(folder)s already, and it must be the only one. Stop it, or"
                    " give this one a directory of its own with --data."
                )
                % {"folder": folder}
            )

    def _ready(self, *, demo: bool) -> None:
        """The database and the authorities, or what is wrong with which file."""
        wrong: str | None = None
        try:
            call_command("migrate", verbosity=0, interactive=False)
            soundness.check()
        except DatabaseError as error:
            file = settings.DATABASES["default"]["NAME"]
            wrong = _(
                "The database %(file)s cannot be used (%(error)s). Restore it from a backup."
            ) % {"file": file, "error": error}
        except Conflict as error:
            wrong = error.message
        if wrong is not None and demo:
            folder = shlex.quote(str(settings.PATENCY_DATA))
            wrong += " " + _("Or start the demo afresh with: rm -r %(folder)s") % {"folder": folder}
        if wrong is not None:
            raise CommandError(wrong)

    def _gate(self, name: str) -> None:
        with plain_errors():
            found = bundle.read(
                Path(settings.PATENCY_DATA),
                name,
                mqtt=os.environ.get("PATENCY_MQTT"),
                link=settings.PATENCY_LINK or None,
            )
            metrics = metrics_address()
        gate, uplink = found.gate, found.uplink
        addresses = f"{gate.host}:{gate.port}, {uplink.host}:{uplink.port}"
        read_at = None
        if metrics is not None:
            addresses, read_at = f"{addresses}, {metrics}", (metrics.host, metrics.port)
        try:
            self._run(access_server.serve(name, gate, uplink, read_at), addresses)
        except NotStarted as error:
            raise CommandError(str(error)) from error

    def _run(self, work: Coroutine[Any, Any, None], addresses: str) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(work)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            raise CommandError(
                _("One of %(addresses)s is in use. Stop what listens there, or choose another.")
                % {"addresses": addresses}
            ) from error

    def _prepare_demo(self, options: ServeOptions) -> server.Companion:
        from fleet import demo

        return demo.companion(options)
