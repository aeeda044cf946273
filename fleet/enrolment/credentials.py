"""Credentials through a device's life: issued, used, superseded, revoked (R-CON-6, R-CON-9).

A device holds one credential in use, and for the time of a renewal two: the newer one supersedes
every older one at its first use, not before, so that a device which lost our answer is never locked
out. What is superseded or revoked is on the deny-list of the gate at once; a revoked device's live
connection is cut.
"""

import hashlib
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from django.db import transaction
from django.db.models import Max

from agent.wire.catalogue import Outcome
from fleet.accounts.models import User
from fleet.accounts.permissions import Action, require
from fleet.audit import services as audit
from fleet.core import ports
from fleet.enrolment import alarms, ca, metrics
from fleet.enrolment.denylist import denied
from fleet.enrolment.models import AlarmKind, Claim, Credential, Issued, Revoked
from fleet.inventory.departures import Departure
from fleet.inventory.models import Device

REVOKED = "credential:revoke"
EXPIRING = timedelta(days=7)


def fingerprint(key: ec.EllipticCurvePublicKey) -> str:
    """SHA-256 of the SubjectPublicKeyInfo, hex: names a key whatever certificate it is in."""
    return hashlib.sha256(ca.public_digest(key)).hexdigest()


def issue(
    device: Device, key: ec.EllipticCurvePublicKey, *, issued: Issued, now: datetime
) -> Credential:
    """A new certificate for the device's key. What it says is ours to choose."""
    leaf = ca.issue_device(device.pk, key, now=now)
    metrics.ISSUED.labels(issued.value).inc()
    return Credential.objects.create(
        device=device,
        serial_number=f"{leaf.serial_number:x}",
        public_key=fingerprint(key),
        certificate=leaf.public_bytes(Encoding.DER),
        not_before_at=leaf.not_valid_before_utc,
        not_after_at=leaf.not_valid_after_utc,
        issued=issued,
        created_at=now,
    )


def chain(credential: Credential) -> tuple[x509.Certificate, x509.Certificate]:
    """The certificate, and the intermediate that issued it."""
    leaf = x509.load_der_x509_certificate(bytes(credential.certificate))
    return leaf, ca.issuer_of(leaf)


def current(device: Device) -> Credential | None:
    """The newest credential that still may let the device in."""
    return device.credentials.filter(revoked_at=None, superseded_at=None).first()


def used(device_id: str, serial: str, now: datetime) -> None:
    """The device has connected with this certificate: older ones have had their day."""
    with transaction.atomic():
        credential = (
            Credential.objects.select_related("device")
            .filter(device=device_id, serial_number=serial.lower().lstrip("0"))
            .first()
        )
        if credential is None:
            # The database was restored from a backup, or somebody else has our CA's key.
            alarms.of(device_id, AlarmKind.UNKNOWN, now)
            return
        if credential.revoked_at is not None or credential.superseded_at is not None:
            # It came in before the gate knew. Whoever this is: out.
            transaction.on_commit(lambda: denied.add([credential]), robust=True)
            return
        if credential.used_at is not None:
            return
        Credential.objects.filter(pk=credential.pk).update(used_at=now)
        older = Credential.objects.filter(
            device=device_id, pk__lt=credential.pk, superseded_at=None, revoked_at=None
        )
        superseded = list(older)
        older.update(superseded_at=now)
        transaction.on_commit(lambda: denied.add(superseded), robust=True)


def revoke(*, actor: User, device: Device, now: datetime) -> int:
    """An administrator revokes whatever lets this device in. Returns how many certificates.

    It is cut off within two seconds and stays out until it is enrolled with a new claim. Raises
    NotAllowed.
    """
    require(actor, Action.DEVICE_REVOKE)
    with transaction.atomic():
        count = revoke_all(device, actor=actor, because=Revoked.BY_HAND, now=now)
        alarms.close(device, actor=actor, now=now)
    return count


def revoke_all(
    device: Device,
    *,
    actor: User | str,
    because: Revoked,
    now: datetime,
    spare: Claim | None = None,
) -> int:
    """Revoke every credential of the device and every claim for it but `spare`, in the caller's
    transaction; cut its connection after."""
    rows = Credential.objects.filter(device=device, revoked_at=None)
    revoked = list(rows)
    rows.update(revoked_at=now, revoked_because=because.value)
    claims = Claim.objects.filter(device=device, revoked_at=None)
    if spare is not None:
        claims = claims.exclude(pk=spare.pk)
    claims.update(revoked_at=now)
    audit.record(
        organisation=device.organisation,
        actor=actor,
        action=REVOKED,
        outcome=Outcome.ALLOWED,
        device=device,
        reason=because.value,
        now=now,
    )
    metrics.REVOKED.labels(because.value).inc(len(revoked))
    transaction.on_commit(lambda: denied.add(revoked), robust=True)
    ports.kick(device.pk)
    return len(revoked)


_BECAUSE = {
    Departure.MOVED: Revoked.MOVED,
    Departure.TRANSFERRED: Revoked.TRANSFERRED,
    Departure.RETIRED: Revoked.RETIRED,
}


def leaving(device: Device, departure: Departure, actor: User, now: datetime) -> None:
    """The device leaves: what let it in does so no more."""
    revoke_all(device, actor=actor, because=_BECAUSE[departure], now=now)
    alarms.close(device, actor=actor, now=now)


def shown_in_vain(device: Device, now: datetime) -> None:
    """The gate turned a certificate of this device down. When the device has a good one, then
    somebody has its old one: a copy is about, or an old disk was put back."""
    if current(device) is not None:
        alarms.sound(device, AlarmKind.SUPERSEDED, now=now)


def tick(now: datetime) -> None:
    """Keep the deny-list true, whoever wrote the database."""
    denied.refresh(now)
    metrics.DENIED.set(len(denied))


def count_expiring(now: datetime) -> None:
    """For the metric: devices whose newest certificate is about to end, or has ended."""
    ends = (
        Credential.objects.filter(device__retired_at=None, revoked_at=None)
        .order_by()
        .values("device")
        .annotate(end=Max("not_after_at"))
    )
    metrics.EXPIRING.set(ends.filter(end__lt=now + EXPIRING).count())
