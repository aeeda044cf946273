"""Claims and what comes of them (R-CON-2).

Theory of operation. A claim is a secret placed in the provisioning bundle of one serial of one
product line. The first key that shows it becomes that device's key. The same claim with the same
key gives the same identity again, however often: a device that lost our answer, or crashed before
it stored it, asks once more. Any other key is turned away and raises an alarm, as somebody has a
copy of the claim. Everything happens in one transaction under BEGIN IMMEDIATE, and the claim is
taken by a conditional update, so of two devices exactly one wins.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from django.db import transaction
from django.utils.translation import gettext as _

from agent.wire.catalogue import Outcome
from fleet.accounts.models import User
from fleet.audit import services as audit
from fleet.core.errors import Conflict, Invalid
from fleet.core.ids import new_device_id
from fleet.enrolment import ca
from fleet.enrolment.errors import ClaimRefused, ClaimTaken
from fleet.enrolment.models import Claim, Credential
from fleet.inventory.models import Device, Ownership, ProductLine, Site

CLAIM_USED = "device:enrol"
CLAIM_MADE = "claim:create"
CLAIM_REVOKED = "claim:revoke"
CLAIM_ALARM = "claim:misused"


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
        if Device.objects.filter(product_line=product_line, serial=serial).exists():
            raise Conflict(
                _("%(serial)s is enrolled already. Retire it before you enrol it again.")
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


def read_request(pem: str) -> ec.EllipticCurvePublicKey:
    """The public key of a signing request, whose holder has proved to have the private one.

    Whatever else the request asks for (name, CA, other names) is not looked at. Raises Invalid.
    """
    try:
        request = x509.load_pem_x509_csr(pem.encode())
        key = request.public_key()
        proved = request.is_signature_valid
    except Exception as error:  # the parser's errors are many, and all mean the same here
        raise Invalid(
            _("The signing request cannot be read. Send a PKCS #10 request in PEM.")
        ) from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
        raise Invalid(_("The key must be P-256. Make a new one and ask again."))
    if not proved:
        raise Invalid(_("The signing request is not signed by its own key. Make it again."))
    return key


def enrol(
    *, claim: str, serial: str, product_line: str, csr: str, audit_key: bytes, now: datetime
) -> Granted:
    """Give the device that shows `claim` its identity. Raises Invalid, ClaimRefused, ClaimTaken."""
    key = read_request(csr)
    if len(audit_key) != 32:
        raise Invalid(_("The audit key must be a raw Ed25519 key of 32 bytes."))
    fingerprint = hashlib.sha256(ca.public_digest(key)).hexdigest()
    try:
        with transaction.atomic():
            row = _claim(claim, serial, product_line)
            if row.used_at is None:
                device = _first_use(row, fingerprint, audit_key, now)
            else:
                device = _second_use(row, fingerprint, audit_key)
            leaf = _credential(device, key, fingerprint, now)
    except ClaimTaken as taken:
        _alarm(taken.claim, fingerprint, now)
        raise
    return Granted(device=device, certificates=(leaf, ca.pem("device-ca")))


def _claim(claim: str, serial: str, product_line: str) -> Claim:
    row = (
        Claim.objects.select_related("organisation", "site", "device__organisation")
        .filter(digest=claim_digest(claim), revoked_at=None)
        .first()
    )
    # One answer for all of these: whoever guesses learns nothing of what exists.
    if row is None or row.serial != serial or row.product_line_id != product_line:
        raise ClaimRefused
    return row


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
    if Device.objects.filter(product_line=device.product_line_id, serial=row.serial).exists():
        raise ClaimTaken(row)  # enrolled with another claim since
    device.save(force_insert=True)
    taken = Claim.objects.filter(pk=row.pk, used_at=None).update(
        used_at=now, device=device, public_key=fingerprint
    )
    if taken != 1:
        raise ClaimTaken(row)
    Ownership.objects.create(device=device, organisation=row.organisation, starts_at=now)
    audit.record(
        organisation=row.organisation,
        actor="agent",
        action=CLAIM_USED,
        outcome=Outcome.ALLOWED,
        device=device,
        digest=fingerprint,
        now=now,
    )
    return device


def _second_use(row: Claim, fingerprint: str, audit_key: bytes) -> Device:
    device = row.device
    if (
        device is None
        or not hmac.compare_digest(row.public_key, fingerprint)
        or not hmac.compare_digest(bytes(device.audit_key), audit_key)
    ):
        raise ClaimTaken(row)
    return device


def _credential(
    device: Device, key: ec.EllipticCurvePublicKey, fingerprint: str, now: datetime
) -> str:
    """The leaf in PEM: the one this key has, or a new one when half of its life is over."""
    held = (
        Credential.objects.filter(device=device, public_key=fingerprint)
        .order_by("-not_after_at")
        .first()
    )
    if held is not None and held.revoked_at is not None:
        raise ClaimRefused
    if held is not None and held.not_after_at - now > ca.LEAF_LIFE / 2:
        return _pem(x509.load_der_x509_certificate(bytes(held.certificate)))
    leaf = ca.issue_device(device.pk, key, now=now)
    Credential.objects.create(
        device=device,
        serial_number=f"{leaf.serial_number:x}",
        public_key=fingerprint,
        certificate=leaf.public_bytes(Encoding.DER),
        not_before_at=leaf.not_valid_before_utc,
        not_after_at=leaf.not_valid_after_utc,
        created_at=now,
    )
    return _pem(leaf)


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def _alarm(claim: Claim, fingerprint: str, now: datetime) -> None:
    """Somebody has a copy of the claim: recorded after the refusal has been rolled back."""
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
