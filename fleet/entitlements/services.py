"""Entitlements: taken in as they were signed, handed to the injectors that have an older one.

The portal cannot make one (R-ACC-9). It reads each to keep a slip of the hand from going out, and
to refuse early what the injector would refuse anyway.
"""

import base64
import binascii
import json
from collections.abc import Sequence
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from django.db import transaction
from django.utils.translation import gettext as _

from agent.wire import entitlement as wire
from agent.wire.catalogue import Outcome
from fleet.accounts.models import Organisation, OrganisationKind
from fleet.audit import services as audit
from fleet.core import clock, ports
from fleet.core.errors import Conflict, Invalid
from fleet.entitlements import outbound
from fleet.entitlements.models import Entitlement
from fleet.inventory.models import Device, ProductLine

MAX_FILE = 16 * 1024 * 1024  # bytes
Signed = tuple[wire.Entitlement, bytes, bytes]  # with its bytes and their signature


def read(data: bytes, *, trust_key: bytes | None) -> list[Signed]:
    """The entitlements in a file that `patency trust entitle` made. Raises Invalid.

    With the raw `trust_key` each signature is checked here as well.
    """
    unreadable = Invalid(
        _("These are no signed entitlements. Make them with “patency trust entitle”.")
    )
    if len(data) > MAX_FILE:
        raise unreadable
    try:
        found = [_signed(each) for each in json.loads(data)["entitlements"]]
    except (ValueError, KeyError, TypeError, binascii.Error, RecursionError):
        raise unreadable from None
    if any(len(signature) != 64 for _it, _document, signature in found):
        raise unreadable
    if trust_key is not None:
        _check(found, trust_key)
    return found


def _signed(row: dict[str, str]) -> Signed:
    document = base64.b64decode(row["entitlement"], validate=True)
    return wire.decode(document), document, base64.b64decode(row["signature"], validate=True)


def _check(found: Sequence[Signed], trust_key: bytes) -> None:
    try:
        key = Ed25519PublicKey.from_public_bytes(trust_key)
        for _it, document, signature in found:
            wire.verify(document, signature, trust_key=key, version=0)
    except ValueError as error:
        raise Invalid(
            _("Devices would refuse these entitlements: %(why)s.") % {"why": error}
        ) from None


def take_in(found: Sequence[Signed], *, actor: str, now: datetime) -> tuple[int, int]:
    """Keep what `read` has read, all or nothing, and send it to the devices on line.

    Returns how many are new and how many were sent. Raises Conflict for an older version than the
    one in use, and Invalid for a product line that there is not.
    """
    kept = sent = 0
    with transaction.atomic():
        for it, document, signature in found:
            row = _keep(it, document, signature, now)
            if row is None:
                continue
            kept += 1
            sent += _send(row)
        if kept:
            _record(found, actor, now)
    return kept, sent


def _keep(
    it: wire.Entitlement, document: bytes, signature: bytes, now: datetime
) -> Entitlement | None:
    line = ProductLine.objects.filter(pk=it.product_line.value).first()
    if line is None:
        raise Invalid(
            _("There is no product line “%(line)s” here.") % {"line": it.product_line.value}
        )
    held = Entitlement.objects.filter(product_line=line, serial=it.serial).first()
    if held is not None and bytes(held.entitlement) == document:
        return None
    if held is not None and it.version <= held.version:
        raise Conflict(
            _(
                "%(serial)s has version %(held)s in use; version %(version)s is not newer. "
                "Sign it again."
            )
            % {"serial": it.serial, "held": held.version, "version": it.version}
        )
    return Entitlement.objects.create(
        product_line=line,
        serial=it.serial,
        version=it.version,
        level=it.level.value,
        starts_at=clock.from_ms(it.starts_at),
        ends_at=clock.from_ms(it.ends_at),
        lasts_until=clock.from_ms(it.lasts_until),
        entitlement=document,
        signature=signature,
        imported_at=now,
    )


def _send(row: Entitlement) -> int:
    devices = Device.objects.filter(
        product_line=row.product_line_id, serial=row.serial, retired_at=None, online=True
    )
    targets = list(devices.values_list("pk", flat=True))
    for device in targets:
        ports.send_down(device, outbound.message(row))
    return len(targets)


def _record(found: Sequence[Signed], actor: str, now: datetime) -> None:
    digest = outbound.digest_of([document for _it, document, _signature in found])
    for vendor in Organisation.objects.filter(kind=OrganisationKind.VENDOR):
        audit.record(
            organisation=vendor,
            actor=actor,
            action="entitlement:import",
            outcome=Outcome.ALLOWED,
            digest=digest,
            now=now,
        )
