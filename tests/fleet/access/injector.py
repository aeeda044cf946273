"""The device's side of sessions, as the portal hears it: real keys, real bytes, no network."""

import hashlib
import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from agent.wire import challenge as challenges
from agent.wire import messages as m
from agent.wire.catalogue import SessionReason, SessionState
from fleet.access import inbound
from fleet.access.models import Session
from fleet.core import clock
from fleet.enrolment.models import Credential
from fleet.inventory.models import Device

BOOT = "b0" * 16
OUTBOX = "0b" * 16


def certificate(key: ec.EllipticCurvePrivateKey, name: str) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, SHA256())
    )


class Injector:
    """Speaks for a device, straight to the inbound handlers."""

    def __init__(self, device: Device, audit_key: Ed25519PrivateKey, now: datetime) -> None:
        self.device = device
        self.now = now
        self.audit_key = audit_key
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = certificate(self.key, device.pk)
        self.session_key = X25519PrivateKey.generate()
        self._seq = itertools.count(1)
        spki = self.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        Credential.objects.create(
            device=device,
            serial_number=f"{self.certificate.serial_number:x}",
            public_key=hashlib.sha256(spki).hexdigest(),
            certificate=self.certificate.public_bytes(Encoding.DER),
            not_before_at=now - timedelta(days=1),
            not_after_at=now + timedelta(days=1),
            created_at=now,
        )

    def stamp(self) -> dict[str, Any]:
        return {
            "at": clock.to_ms(self.now),
            "boot": BOOT,
            "uptime_ms": 1000,
            "outbox": OUTBOX,
            "seq": next(self._seq),
        }

    # --- messages ---

    def accepted(self, of: Any, ref: str, message: m.Message | bytes) -> m.Accepted:
        payload = message if isinstance(message, bytes) else m.encode(message)
        digest = hashlib.sha256(payload).hexdigest()
        return m.Accepted(**self.stamp(), of=of, ref=ref, digest=digest)

    def terms(self, session: Session, /, **changes: Any) -> challenges.Terms:
        fields: dict[str, Any] = {
            "session": session.pk,
            "request": session.request_digest,
            "device": self.device.pk,
            "specialist": session.specialist.username,
            "level": session.level,
            "services": session.services,
            "life_s": session.life_s,
            "presence": session.level == "os",
            "boot": BOOT,
            "nonce": "0f" * 32,
            "key": self.session_key.public_key().public_bytes_raw(),
        }
        return challenges.Terms(**{**fields, **changes})

    def challenge(self, session: Session, /, **changes: Any) -> m.Challenge:
        data = challenges.encode(self.terms(session, **changes))
        return m.Challenge(
            **self.stamp(),
            session=session.pk,
            challenge=data,
            signature=self.key.sign(data, ec.ECDSA(SHA256())),
            certificates=[self.certificate.public_bytes(Encoding.DER)],
        )

    def update(
        self, session: Session, state: SessionState, reason: SessionReason | None = None, **f: Any
    ) -> m.SessionUpdate:
        fields = {"request": session.request_digest, **f}
        return m.SessionUpdate(
            **self.stamp(), session=session.pk, state=state, reason=reason, **fields
        )

    def receipt(self, session: Session, /, **changes: Any) -> m.Receipt:
        fields: dict[str, Any] = {
            "session": session.pk,
            "challenge": challenges.digest(bytes(session.challenge or b"")).hex(),
            "approver": 1,
            "at": clock.to_ms(self.now),
            "uptime_ms": 1000,
            "index": 3,
        }
        data, signature = challenges.sign_receipt(
            self.audit_key, challenges.PresenceReceipt(**{**fields, **changes})
        )
        return m.Receipt(**self.stamp(), session=session.pk, receipt=data, signature=signature)

    # --- said to the portal ---

    def says_accepted(self, of: Any, ref: str, message: m.Message | bytes) -> None:
        inbound.accepted(self.device, self.accepted(of, ref, message), self.now)

    def says_challenge(self, session: Session, /, **changes: Any) -> None:
        inbound.challenge(self.device, self.challenge(session, **changes), self.now)
        session.refresh_from_db()

    def says(
        self, session: Session, state: SessionState, reason: SessionReason | None = None, **f: Any
    ) -> None:
        inbound.session_update(self.device, self.update(session, state, reason, **f), self.now)
        session.refresh_from_db()

    def says_receipt(self, session: Session, /, **changes: Any) -> None:
        inbound.receipt(self.device, self.receipt(session, **changes), self.now)
        session.refresh_from_db()
