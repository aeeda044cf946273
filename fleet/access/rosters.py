"""Rosters: taken in as they were signed, handed to the devices that have an older one.

The portal cannot make one and does not decide by one (R-ACC-4). It looks at a roster only to keep a
slip of the hand from going out: an older version, another person's file, one that has expired.
"""

import base64
import binascii
import json
from datetime import datetime

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from django.db import transaction
from django.utils.translation import gettext as _

from agent.wire import chain
from agent.wire import roster as rosters
from agent.wire.catalogue import Outcome
from fleet.access import outbound
from fleet.access.models import Roster
from fleet.accounts.models import Organisation, OrganisationKind
from fleet.audit import services as audit
from fleet.core import clock, ports
from fleet.core.errors import Conflict, Invalid
from fleet.inventory.models import Device

MAX_FILE = 512 * 1024  # bytes


def read(data: bytes, *, trust_key: bytes | None, now: datetime) -> tuple[bytes, bytes]:
    """Roster and signature of a file that `patency trust sign` made. Raises Invalid.

    With the raw `trust_key` its signature is checked here as well.
    """
    unreadable = Invalid(
        _("This is no signed roster. Make one with “patency trust sign” and import that file.")
    )
    if len(data) > MAX_FILE:
        raise unreadable
    try:
        document = json.loads(data)
        roster, signature = (
            base64.b64decode(document[name], validate=True) for name in ("roster", "signature")
        )
        decoded = msgspec.json.decode(roster, type=rosters.Roster)
    except (ValueError, KeyError, TypeError, binascii.Error, RecursionError):
        raise unreadable from None
    if len(signature) != 64 or chain.canonical(decoded) != roster:
        raise unreadable
    if clock.to_ms(now) >= decoded.expires_at:
        raise Invalid(_("This roster has expired. Sign a new one."))
    if trust_key is not None:
        try:
            key = Ed25519PublicKey.from_public_bytes(trust_key)
            rosters.verify(roster, signature, trust_key=key, version=0, now=clock.to_ms(now))
        except (rosters.RosterError, ValueError) as error:
            raise Invalid(
                _("Devices would refuse this roster: %(why)s.") % {"why": error}
            ) from None
    return roster, signature


def take_in(*, roster: bytes, signature: bytes, actor: str, now: datetime) -> tuple[Roster, int]:
    """Keep a roster that `read` has read and send it to the devices on line that have an older one.

    Returns it and how many it was sent to; the others get it when they connect. The same one again
    is no error. Raises Conflict for an older version, or another of the same.
    """
    decoded = msgspec.json.decode(roster, type=rosters.Roster)
    with transaction.atomic():
        newest = Roster.objects.order_by("-version").first()
        if newest is None or decoded.version > newest.version:
            newest = _keep(decoded, roster, signature, actor, now)
        elif decoded.version < newest.version:
            raise Conflict(
                _("Version %(old)s is older than version %(new)s, which is in use. Sign it again.")
                % {"old": decoded.version, "new": newest.version}
            )
        elif bytes(newest.roster) != roster:
            raise Conflict(
                _("There is another roster with version %(version)s. Sign it again.")
                % {"version": decoded.version}
            )
        devices = Device.objects.filter(online=True, roster_version__lt=newest.version)
        targets = list(devices.values_list("pk", flat=True))
        message = outbound.roster_message(newest)
        for device in targets:
            ports.send_down(device, message)
    return newest, len(targets)


def _keep(
    decoded: rosters.Roster, roster: bytes, signature: bytes, actor: str, now: datetime
) -> Roster:
    kept = Roster.objects.create(
        version=decoded.version,
        roster=roster,
        signature=signature,
        members=len(decoded.members),
        issued_at=clock.from_ms(decoded.issued_at),
        expires_at=clock.from_ms(decoded.expires_at),
        imported_at=now,
    )
    for vendor in Organisation.objects.filter(kind=OrganisationKind.VENDOR):
        audit.record(
            organisation=vendor,
            actor=actor,
            action="roster:import",
            outcome=Outcome.ALLOWED,
            digest=outbound.digest(outbound.roster_message(kept)),
            now=now,
        )
    return kept
