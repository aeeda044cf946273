"""`manage.py roster import FILE`: take in the list of specialists that the trust key has signed."""

import base64
import binascii
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils.translation import gettext as _

from fleet.access import rosters
from fleet.core import clock
from fleet.core.commands import plain_errors


class Command(BaseCommand):
    help = "Import a signed roster; devices on line get it at once, the others when they connect."

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="what", required=True)
        take_in = actions.add_parser("import", help="take in a file of `patency trust sign`")
        take_in.add_argument("file", type=Path, metavar="FILE")
        take_in.add_argument(
            "--trust-key", metavar="BASE64", help="check the signature: content of trust.pub"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        now = clock.now()
        try:
            data = options["file"].read_bytes()
        except OSError as error:
            raise CommandError(
                _("Cannot read %(file)s: %(why)s.")
                % {"file": options["file"], "why": error.strerror}
            ) from error
        key = _key(options["trust_key"])
        with plain_errors():
            roster, signature = rosters.read(data, trust_key=key, now=now)
            kept, sent = rosters.take_in(
                roster=roster, signature=signature, actor="portal", now=now
            )
        self.stdout.write(
            _("Roster %(version)s with %(members)s members is in use; sent to %(sent)s devices.")
            % {"version": kept.version, "members": kept.members, "sent": sent}
        )


def _key(text: str | None) -> bytes | None:
    if text is None:
        return None
    try:
        return base64.b64decode(text.strip(), validate=True)
    except (ValueError, binascii.Error):
        raise CommandError(_("The trust key must be base64, as in trust.pub.")) from None
