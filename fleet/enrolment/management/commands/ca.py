"""manage.py ca init|renew-server|show: the certificate authorities under $PATENCY_DATA/ca."""

import hashlib
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from django.core.management import BaseCommand, CommandParser
from django.utils.translation import gettext as _

from fleet.core import clock
from fleet.core.commands import plain_errors
from fleet.enrolment import ca

NAMES = ("device-root", "device-ca", "server-ca", "server")


class Command(BaseCommand):
    help = "Make the certificate authorities, renew the gate's certificate, or show them all."

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True)
        init = actions.add_parser("init", help="make the authorities, once")
        init.add_argument(
            "--offline",
            type=Path,
            help="folder for the device root's key, to be taken off this machine "
            "(default: $PATENCY_DATA/trust)",
        )
        renew = actions.add_parser("renew-server", help="a new certificate for gate and web")
        for parser_ in (init, renew):
            parser_.add_argument(
                "--host",
                action="append",
                dest="hosts",
                help="name or address the server is reached by; repeat for more",
            )
        actions.add_parser("show", help="what there is, with fingerprints and ends")

    def handle(self, *args: Any, **options: Any) -> None:
        with plain_errors():
            if options["action"] == "init":
                self._init(options)
            elif options["action"] == "renew-server":
                ca.issue_server(hosts=options["hosts"] or ca.DEFAULT_HOSTS, now=clock.now())
            self._show()

    def _init(self, options: dict[str, Any]) -> None:
        offline = options["offline"] or ca.offline_folder()
        ca.init(now=clock.now(), hosts=options["hosts"] or ca.DEFAULT_HOSTS, offline=offline)
        self.stderr.write(
            _(
                "Take %(file)s off this machine and keep it safe: "
                "it is needed only to replace the CA."
            )
            % {"file": offline / "device-root.key"}
        )

    def _show(self) -> None:
        for name in NAMES:
            certificate = x509.load_pem_x509_certificate(ca.pem(name).encode())
            digest = hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()
            self.stdout.write(
                f"{name:12} {certificate.not_valid_after_utc:%Y-%m-%d}  SHA-256 {digest}"
            )
