"""Claims and what comes of them (R-CON-2).

Theory of operation. A claim is a secret placed in the provisioning bundle of one serial of one
product line. The first key that shows it becomes that device's key. The same claim with the same
key gives the same identity again, however often: a device that lost our answer, or crashed before
it stored it, asks once more. Any other key is turned away and raises an alarm, as somebody has a
copy of the claim. Everything happens in one transaction under BEGIN IMMEDIATE, and the claim is
taken by a conditional update, so of two devices exactly one wins.

The same call is the way back (R-CON-8). A device whose certificate ended while it was off shows its
claim with the key of its newest certificate, and gets another for it, within a year of the end. One
that was revoked, moved or lost its key needs a new claim from an administrator, made for that very
device: it keeps its id, its history and its audit key, and everything issued before is revoked.

The gate closes on a revoked certificate without a word, as a firewall would. So this call says what
became of a credential, to whoever shows the device's claim and proves that it holds the key: an
injector can then tell its hospital whose doing it is (R-CON-7). Nobody else learns it.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from django.db import transaction
from django.utils.translation import gettext as _

from agent.wire.catalogue import Outcome
from fleet.accounts.models import User
from fleet.audit import services as audit
from fleet.core.errors import Conflict, Invalid
from fleet.core.ids import new_device_id
from fleet.enrolment import alarms, ca, credentials, requests
from fleet.enrolment.errors import (
    BoardChanged,
    ClaimRefused,
    ClaimTaken,
    CredentialLapsed,
    CredentialRevoked,
    CredentialSuperseded,
)
from fleet.enrolment.models import AlarmKind, Claim, Credential, Issued, Revoked
from fleet.inventory.models import Device, Ownership, ProductLine, Site

CLAIM_USED = "device:enrol"
CLAIM_MADE = "claim:create"
CLAIM_REVOKED = "claim:revoke"
CLAIM_ALARM = "claim:misused"
CAME_AGAIN = "device:enrol_again"

# After the end of its certificate; later than that, somebody must look at it first.
RETURN_WITHIN = timedelta(days=365)


@dataclass(frozen=True, slots=True)
class Granted:
    """What a device gets: its id and its certificates in PEM, leaf first."""

    device: Device
    certificates: tuple[str, ...]


def claim_digest(claim: str) -> str:
    return hashlib.sha256(claim.encode()).hexdigest()


def create_claim(
    *,
    serial: str,
    product_line: ProductLine,
    site: Site,
    now: datetime,
    actor: User | None = None,
    asset_number: str = "",
    room: str = "",
) -> str:
    """A new claim for an injector that is about to leave the works. Returns the secret, once.

    An unused claim for the same serial is revoked: the newest bundle is the one that counts.
    Raises Conflict when the serial is enrolled.
    """
    secret = secrets.token_urlsafe(32)
    with transaction.atomic():
        if _enrolled(product_line.pk, serial) is not None:
            raise Conflict(
                _(
                    "%(serial)s is enrolled already. If it must come back with a new key, make a "
                    "claim with --again; if it is another injector, retire this one first."
                )
                % {"serial": serial}
            )
        Claim.objects.filter(
            product_line=product_line, serial=serial, used_at=None, revoked_at=None
        ).update(revoked_at=now)
        Claim.objects.create(
            digest=claim_digest(secret),
            serial=serial,
            product_line=product_line,
            site=site,
            organisation=site.organisation,
            asset_number=asset_number,
            room=room,
            created_by=actor,
            created_at=now,
        )
        audit.record(
            organisation=site.organisation,
            actor=actor or "portal",
            action=CLAIM_MADE,
            outcome=Outcome.ALLOWED,
            digest=claim_digest(secret),
            now=now,
        )
    return secret


def create_claim_again(*, device: Device, now: datetime, actor: User | None = None) -> str:
    """A claim for a device to come back with a new key, after it was revoked, moved or lost its
    own. Returns the secret, once. What lets the device in now goes on until the claim is used.

    Raises Conflict for a device that is retired.
    """
    if device.retired_at is not None:
        raise Conflict(_("This injector is retired. Enrol its serial with an ordinary claim."))
    secret = secrets.token_urlsafe(32)
    with transaction.atomic():
        Claim.objects.filter(device=device, used_at=None, revoked_at=None).update(revoked_at=now)
        Claim.objects.create(
            digest=claim_digest(secret),
            serial=device.serial,
            product_line=device.product_line,
            site=device.site,
            organisation=device.organisation,
            device=device,
            created_by=actor,
            created_at=now,
        )
        audit.record(
            organisation=device.organisation,
            actor=actor or "portal",
            action=CLAIM_MADE,
            outcome=Outcome.ALLOWED,
            device=device,
            reason="again",
            digest=claim_digest(secret),
            now=now,
        )
    return secret


def _enrolled(product_line: str, serial: str) -> Device | None:
    rows = Device.objects.filter(product_line=product_line, serial=serial, retired_at=None)
    return rows.first()


def revoke_claim(claim: Claim, *, now: datetime, actor: User | None = None) -> None:
    """Make a claim worthless, used or not: also its device cannot show it again."""
    with transaction.atomic():
        if Claim.objects.filter(pk=claim.pk, revoked_at=None).update(revoked_at=now):
            audit.record(
                organisation=claim.organisation,
                actor=actor or "portal",
                action=CLAIM_REVOKED,
                outcome=Outcome.ALLOWED,
                digest=claim.digest,
                now=now,
            )


def enrol(
    *, claim: str, serial: str, product_line: str, csr: str, audit_key: bytes, now: datetime
) -> Granted:
    """Give the device that shows `claim` its identity. Raises Invalid, ClaimRefused, ClaimTaken."""
    key = requests.read_pem(csr)
    if len(audit_key) != 32:
        raise Invalid(_("The audit key must be a raw Ed25519 key of 32 bytes."))
    fingerprint = credentials.fingerprint(key)
    try:
        with transaction.atomic():
            row = _claim(claim, serial, product_line)
            if row.revoked_at is not None:
                raise _refusal(row, fingerprint, audit_key)
            if row.used_at is not None:
                device = _second_use(row, fingerprint, audit_key, now)
            elif row.device is not None:
                device = _come_again(row, row.device, fingerprint, audit_key, now)
            else:
                device = _first_use(row, fingerprint, audit_key, now)
            credential = _credential(device, key, fingerprint, now)
            chain = credentials.chain(credential)
    except ClaimTaken as taken:
        _alarm(taken.claim, fingerprint, now)
        raise
    return Granted(
        device=device,
        certificates=tuple(each.public_bytes(Encoding.PEM).decode() for each in chain),
    )


def _claim(claim: str, serial: str, product_line: str) -> Claim:
    row = (
        Claim.objects.select_related("organisation", "site", "device__organisation")
        .filter(digest=claim_digest(claim))
        .first()
    )
    # One answer for all of these: whoever guesses learns nothing of what exists.
    if row is None or row.serial != serial or row.product_line_id != product_line:
        raise ClaimRefused
    return row


def _refusal(row: Claim, fingerprint: str, audit_key: bytes) -> ClaimRefused:
    """Why not, as far as the asker may know it: who holds the key of a revoked credential of this
    claim's device learns that, anybody else only that the claim is not good."""
    held = _held(row.device, fingerprint) if row.device is not None else None
    ours = row.device is not None and hmac.compare_digest(bytes(row.device.audit_key), audit_key)
    if held is not None and ours and held.revoked_at is not None:
        return CredentialRevoked()
    return ClaimRefused()


def _first_use(row: Claim, fingerprint: str, audit_key: bytes, now: datetime) -> Device:
    device = Device(
        id=new_device_id(),
        serial=row.serial,
        product_line_id=row.product_line_id,
        asset_number=row.asset_number,
        room=row.room,
        site=row.site,
        organisation=row.organisation,
        audit_key=audit_key,
        created_at=now,
    )
    if _enrolled(device.product_line_id, row.serial) is not None:
        raise ClaimTaken(row)  # enrolled with another claim since
    device.save(force_insert=True)
    _take(row, device, fingerprint, now, action=CLAIM_USED)
    Ownership.objects.create(device=device, organisation=row.organisation, starts_at=now)
    return device


def _take(row: Claim, device: Device, fingerprint: str, now: datetime, *, action: str) -> None:
    """The claim is this device's and this key's, and that stands in the audit: of two at the same
    moment, one gets here."""
    taken = Claim.objects.filter(pk=row.pk, used_at=None).update(
        used_at=now, device=device, public_key=fingerprint
    )
    if taken != 1:
        raise ClaimTaken(row)
    audit.record(
        organisation=device.organisation,
        actor="agent",
        action=action,
        outcome=Outcome.ALLOWED,
        device=device,
        digest=fingerprint,
        now=now,
    )


def _come_again(
    row: Claim, device: Device, fingerprint: str, audit_key: bytes, now: datetime
) -> Device:
    """A device that is known, with a claim made for it: the new key takes the place of all others.

    The audit key is what tells it from another machine with the same serial: that one would go on
    with the device's audit chain, which only its own key can.
    """
    if not hmac.compare_digest(bytes(device.audit_key), audit_key):
        raise BoardChanged
    if Credential.objects.filter(public_key=fingerprint).exists():
        raise _refusal(row, fingerprint, audit_key)  # the point is a new key
    credentials.revoke_all(device, actor="agent", because=Revoked.REPLACED, now=now, spare=row)
    _take(row, device, fingerprint, now, action=CAME_AGAIN)
    return device


def _second_use(row: Claim, fingerprint: str, audit_key: bytes, now: datetime) -> Device:
    """The same device once more: it lost our answer, or comes back after its certificate ended."""
    device = row.device
    held = _held(device, fingerprint) if device is not None else None
    if (
        device is None
        or held is None
        or not hmac.compare_digest(bytes(device.audit_key), audit_key)
    ):
        raise ClaimTaken(row)
    if held.superseded_at is not None:
        raise CredentialSuperseded(row)  # a copy of the key that the device had before
    if held.revoked_at is not None or now - held.not_after_at > RETURN_WITHIN:
        raise CredentialRevoked if held.revoked_at is not None else CredentialLapsed
    return device


def _held(device: Device, fingerprint: str) -> Credential | None:
    rows = Credential.objects.filter(device=device, public_key=fingerprint)
    return rows.order_by("-not_after_at", "-pk").first()


def _credential(
    device: Device, key: ec.EllipticCurvePublicKey, fingerprint: str, now: datetime
) -> Credential:
    """The one this key has, or a new one when half of its life is over."""
    held = _held(device, fingerprint)
    if held is None:
        return credentials.issue(device, key, issued=Issued.ENROLMENT, now=now)
    if held.not_after_at - now > ca.LEAF_LIFE / 2:
        return held
    return credentials.issue(device, key, issued=Issued.RETURN, now=now)


def _alarm(claim: Claim, fingerprint: str, now: datetime) -> None:
    """Somebody has a copy of the claim: recorded after the refusal has been rolled back."""
    if claim.device is not None:
        alarms.sound(claim.device, AlarmKind.CLAIM, now=now)
    audit.record(
        organisation=claim.organisation,
        actor="agent",
        action=CLAIM_ALARM,
        outcome=Outcome.REFUSED,
        device=claim.device,
        reason="claim_taken",
        digest=fingerprint,
        now=now,
    )
