"""manage.py ca …: the certificate authorities, and the offline root's ceremony (docs/ca.md)."""

import hashlib
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from django.core.management import BaseCommand, CommandError, CommandParser
from django.utils.translation import gettext as _

from fleet.core import clock
from fleet.core.commands import plain_errors
from fleet.core.files import write_new, write_private
from fleet.enrolment import ca, ceremony

NAMES = ("device-root", "device-ca", "server-ca", "server")


class Command(BaseCommand):
    help = "Make, replace, back up or show the certificate authorities."

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True)
        _portal(actions)
        _offline(actions)
        for name, told in (
            ("backup", "everything of the portal's authorities, sealed with a passphrase"),
            ("restore", "put a backup in place of nothing"),
        ):
            each = actions.add_parser(name, help=told)
            each.add_argument("file", type=Path)
            each.add_argument("--passphrase-file", type=Path, required=True)
        actions.add_parser("show", help="what there is, with fingerprints and ends")

    def handle(self, *args: Any, **options: Any) -> None:
        with plain_errors():
            getattr(self, "_" + options["action"].replace("-", "_"))(options)

    # --- at the portal ---------------------------------------------------------------------------

    def _init(self, options: dict[str, Any]) -> None:
        hosts, now = options["hosts"] or ca.DEFAULT_HOSTS, clock.now()
        if options["root"] is not None:
            ca.begin(_certificate(options["root"]), now=now, hosts=hosts)
            self._request(options)
            return
        offline = options["offline"] or ca.offline_folder()
        ca.init(now=now, hosts=hosts, offline=offline)
        self.stderr.write(
            _(
                "Take %(file)s off this machine and keep it safe: "
                "it is needed only to replace the CA."
            )
            % {"file": offline / "device-root.key"}
        )
        self._show(options)

    def _request(self, options: dict[str, Any]) -> None:
        write_private(options["output"], ceremony.ask())
        self.stderr.write(
            _("Take %(file)s to the offline machine, sign it there, and import the answer.")
            % {"file": options["output"]}
        )

    def _import(self, options: dict[str, Any]) -> None:
        ceremony.take_in(_read(options["certificate"]), now=clock.now())
        self._show(options)

    def _renew_server(self, options: dict[str, Any]) -> None:
        hosts = options["hosts"] or ca.server_hosts()
        ca.issue_server(hosts=hosts, now=clock.now())
        self.stderr.write(
            _("The certificate is for %(hosts)s. Restart the portal, which shows it then.")
            % {"hosts": ", ".join(hosts)}
        )
        self._show(options)

    # --- at the offline machine ------------------------------------------------------------------

    def _root(self, options: dict[str, Any]) -> None:
        passphrase = _passphrase(options["passphrase_file"])
        root = ceremony.make_root(options["folder"], now=clock.now(), passphrase=passphrase)
        self._line("device-root", root)

    def _sign(self, options: dict[str, Any]) -> None:
        signed = ceremony.sign(
            _read(options["request"]),
            root=options["root"] or ca.offline_folder(),
            now=clock.now(),
            passphrase=_passphrase(options["passphrase_file"]),
        )
        write_new(options["output"], signed.public_bytes(Encoding.PEM))
        self._line("device-ca", signed)

    # --- backup and a look -----------------------------------------------------------------------

    def _backup(self, options: dict[str, Any]) -> None:
        passphrase = _passphrase(options["passphrase_file"]) or ""
        write_new(options["file"], ceremony.backup(passphrase))
        self.stdout.write(str(options["file"]))

    def _restore(self, options: dict[str, Any]) -> None:
        passphrase = _passphrase(options["passphrase_file"]) or ""
        for name in ceremony.restore(_read(options["file"]), passphrase):
            self.stdout.write(name)

    def _show(self, _options: dict[str, Any]) -> None:
        for name in NAMES:
            self._line(name, x509.load_pem_x509_certificate(ca.pem(name).encode()))
        for earlier in ca.intermediates()[1:]:
            self._line("earlier CA", earlier)

    def _line(self, name: str, certificate: x509.Certificate) -> None:
        digest = hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()
        end = certificate.not_valid_after_utc
        self.stdout.write(f"{name:12} {end:%Y-%m-%d}  SHA-256 {digest}")


def _portal(actions: Any) -> None:
    init = actions.add_parser("init", help="make the authorities, once")
    where = init.add_mutually_exclusive_group()
    where.add_argument(
        "--offline",
        type=Path,
        help="folder for the device root's key, to be taken off this machine "
        "(default: $PATENCY_DATA/trust)",
    )
    where.add_argument(
        "--root", type=Path, help="device-root.pem of a root that was made on another machine"
    )
    ask = actions.add_parser("request", help="ask the root for the next intermediate")
    for each in (init, ask):
        each.add_argument("-o", "--output", type=Path, default=Path("device-ca.csr"))
    take = actions.add_parser("import", help="use the intermediate that the root has signed")
    take.add_argument("certificate", type=Path)
    renew = actions.add_parser("renew-server", help="a new certificate for gate and web")
    for each in (init, renew):
        each.add_argument(
            "--host",
            action="append",
            dest="hosts",
            help="name or address the server is reached by; repeat for more (of a renewal, without"
            " it: those of the certificate that there is)",
        )


def _offline(actions: Any) -> None:
    root = actions.add_parser("root", help="offline: make the device root")
    root.add_argument("folder", type=Path)
    sign = actions.add_parser("sign", help="offline: sign an intermediate")
    sign.add_argument("request", type=Path)
    sign.add_argument("--root", type=Path, help="the root's folder (default: $PATENCY_DATA/trust)")
    sign.add_argument("-o", "--output", type=Path, default=Path("device-ca.pem"))
    for each in (root, sign):
        each.add_argument(
            "--passphrase-file", type=Path, help="file with the passphrase of the root's key"
        )


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > ceremony.MAX_BACKUP:
            raise CommandError(_("%(path)s is too large.") % {"path": path})
        return path.read_bytes()
    except OSError as error:
        raise CommandError(
            _("%(path)s cannot be read: %(error)s.") % {"path": path, "error": error.strerror}
        ) from error


def _certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(_read(path))
    except ValueError as error:
        raise CommandError(_("%(path)s holds no certificate.") % {"path": path}) from error


def _passphrase(path: Path | None) -> str | None:
    """The first line of the file; never an argument, which others could see in the process list."""
    if path is None:
        return None
    lines = _read(path).decode(errors="replace").splitlines()
    return lines[0] if lines else ""
