"""`manage.py entitlement import FILE` and `wanted`: the portal's half of the entitlements."""

import base64
import binascii
import json
from argparse import ArgumentParser
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils.translation import gettext as _

from fleet.core import clock
from fleet.core.commands import plain_errors
from fleet.entitlements import selectors, services


class Command(BaseCommand):
    help = "Take in signed entitlements, or say which injectors want one."

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="what", required=True)
        take_in = actions.add_parser("import", help="take in a file of `patency trust entitle`")
        take_in.add_argument("file", type=Path, metavar="FILE")
        take_in.add_argument(
            "--trust-key", metavar="BASE64", help="check the signatures: content of trust.pub"
        )
        wanted = actions.add_parser(
            "wanted", help="injectors that have none or whose own ends soon, as JSON to fill in"
        )
        wanted.add_argument("--within", type=int, default=60, metavar="DAYS")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["what"] == "wanted":
            self._wanted(timedelta(days=options["within"]))
        else:
            self._import(options["file"], _key(options["trust_key"]))

    def _import(self, file: Path, key: bytes | None) -> None:
        try:
            data = file.read_bytes()
        except OSError as error:
            raise CommandError(
                _("Cannot read %(file)s: %(why)s.") % {"file": file, "why": error.strerror}
            ) from error
        with plain_errors():
            found = services.read(data, trust_key=key)
            kept, sent = services.take_in(found, actor="portal", now=clock.now())
        self.stdout.write(
            _("%(count)s entitlements, %(kept)s of them new; sent to %(sent)s devices.")
            % {"count": len(found), "kept": kept, "sent": sent}
        )

    def _wanted(self, within: timedelta) -> None:
        rows = [
            {
                "product_line": device.product_line_id,
                "serial": device.serial,
                "organisation": device.organisation.name,
                "ends": row.ends_at.date().isoformat() if row else None,
            }
            for device, row in selectors.lacking(clock.now(), within)
        ]
        self.stdout.write(json.dumps(rows, indent=1, ensure_ascii=False))


def _key(text: str | None) -> bytes | None:
    if text is None:
        return None
    try:
        return base64.b64decode(text.strip(), validate=True)
    except (ValueError, binascii.Error):
        raise CommandError(_("The trust key must be base64, as in trust.pub.")) from None
