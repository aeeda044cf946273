"""manage.py claim SERIAL: a provisioning bundle for one injector, placed at manufacture.

With --again, for an injector that is enrolled and must come back with a new key: it was revoked,
moved, or its key may be in other hands. It keeps its id and its history.
"""

import base64
import json
from pathlib import Path
from typing import Any

from django.core.management import BaseCommand, CommandError, CommandParser
from django.db.models import Q
from django.utils.translation import gettext as _

from agent.wire.catalogue import ProductLineCode
from fleet.core import clock
from fleet.core.commands import plain_errors
from fleet.core.files import write_private
from fleet.enrolment import ca, selectors, services
from fleet.inventory.models import Device, ProductLine, Site


class Command(BaseCommand):
    help = "Make a one-time claim for a serial and write its provisioning bundle."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("serial")
        parser.add_argument("--product-line", required=True, choices=list(ProductLineCode))
        where = parser.add_mutually_exclusive_group(required=True)
        where.add_argument("--site", help="id of the site, or its exact name")
        where.add_argument(
            "--again", action="store_true", help="it is enrolled: let it come back with a new key"
        )
        parser.add_argument("--asset-number", default="")
        parser.add_argument("--room", default="")
        parser.add_argument(
            "--trust-key",
            type=Path,
            help="trust.pub of the trust folder (default: $PATENCY_DATA/trust/trust.pub)",
        )
        parser.add_argument("-o", "--output", type=Path, default=Path("provision.json"))

    def handle(self, *args: Any, **options: Any) -> None:
        trust_key = _trust_key(options["trust_key"] or ca.offline_folder() / "trust.pub")
        with plain_errors():
            ca.pem("server-ca")  # before a claim is made that no bundle could carry
            secret = _again(options) if options["again"] else _first(options)
            bundle = selectors.provisioning_bundle(
                serial=options["serial"],
                product_line=options["product_line"],
                claim=secret,
                trust_key=trust_key,
            )
        write_private(options["output"], json.dumps(bundle, indent=2).encode() + b"\n")
        self.stdout.write(str(options["output"]))


def _first(options: dict[str, Any]) -> str:
    return services.create_claim(
        serial=options["serial"],
        product_line=_line(options["product_line"]),
        site=_site(options["site"]),
        asset_number=options["asset_number"],
        room=options["room"],
        now=clock.now(),
    )


def _again(options: dict[str, Any]) -> str:
    device = Device.objects.filter(
        serial=options["serial"], product_line=options["product_line"], retired_at=None
    ).first()
    if device is None:
        raise CommandError(
            _("%(serial)s is not enrolled. Make its first claim with --site.")
            % {"serial": options["serial"]}
        )
    return services.create_claim_again(device=device, now=clock.now())


def _line(code: str) -> ProductLine:
    line = ProductLine.objects.filter(pk=code).first()
    if line is None:
        raise CommandError(
            _("There is no product line %(code)s yet. Add it first.") % {"code": code}
        )
    return line


def _site(text: str) -> Site:
    found = list(Site.objects.select_related("organisation").filter(Q(pk=text) | Q(name=text)))
    if len(found) != 1:
        names = ", ".join(f"{site.pk} ({site.name})" for site in Site.objects.all()[:20])
        raise CommandError(
            _("“%(site)s” names %(count)d sites. Give the id of one: %(names)s")
            % {"site": text, "count": len(found), "names": names}
        )
    return found[0]


def _trust_key(path: Path) -> bytes:
    try:
        key = base64.b64decode(path.read_text().strip(), validate=True)
    except (OSError, ValueError) as error:
        raise CommandError(
            _(
                "%(path)s cannot be read as a public key. "
                "Make a trust folder with: patency trust new"
            )
            % {"path": path}
        ) from error
    if len(key) != 32:
        raise CommandError(_("%(path)s does not hold an Ed25519 key.") % {"path": path})
    return key
