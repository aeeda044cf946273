"""Credentials for life: renewed, superseded, revoked, and back again (R-CON-8, R-CON-9)."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from agent.wire.catalogue import RefusalReason
from agent.wire.messages import Certificate, Renewal
from broker.acl import Identity
from fleet.accounts.models import User
from fleet.audit.models import Entry
from fleet.core import clock
from fleet.core.errors import Conflict, MessageRefused, NotAllowed
from fleet.enrolment import alarms, ca, credentials, inbound, limits, services
from fleet.enrolment.denylist import Denied, denied
from fleet.enrolment.models import Alarm, AlarmKind, Claim, Credential, Issued, Revoked
from fleet.inventory.models import Device, ProductLine, Site
from tests.fleet.enrolment.asking import Applicant
from tests.fleet.enrolment.test_enrol import ask
from tests.scale import scaled

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _authorities() -> Iterator[None]:
    ca.init(now=clock.now())
    for bucket in (limits.enrolments, limits.failures):
        bucket.clear()
    denied.clear()
    yield
    denied.clear()


@pytest.fixture
def applicant(product_line: ProductLine, site: Site) -> Applicant:
    claim = services.create_claim(
        serial="SN-NEW", product_line=product_line, site=site, now=clock.now()
    )
    return Applicant(claim)


@pytest.fixture
def enrolled(applicant: Applicant) -> Device:
    assert ask(applicant.body()).status_code == 200
    return Device.objects.get(serial="SN-NEW")


def request(
    key: ec.EllipticCurvePrivateKey, builder: x509.CertificateSigningRequestBuilder | None = None
) -> Renewal:
    builder = builder or Applicant.builder()
    csr = builder.sign(key, SHA256()).public_bytes(Encoding.DER)
    return Renewal(at=0, boot="b" * 32, uptime_ms=0, outbox="a" * 32, seq=1, csr=csr)


def renew(device: Device, key: ec.EllipticCurvePrivateKey, ports: Any, **fields: Any) -> Any:
    """What the device is sent for a renewal: its leaf."""
    inbound.renewal(device, request(key, **fields), clock.now())
    to, message = ports.sent[-1]
    assert to == device.pk
    assert isinstance(message, Certificate)
    leaf, issuer = (x509.load_der_x509_certificate(der) for der in message.certificates)
    leaf.verify_directly_issued_by(issuer)
    return leaf


def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _identity(credential: Credential) -> Identity:
    """As the gate reads it off the certificate: OpenSSL pads and shouts."""
    serial = f"{int(credential.serial_number, 16):040X}"
    return Identity(credential.device_id, serial, credential.not_after_at.timestamp())


def let_in(credential: Credential, ports: Any) -> bool:
    """Whether the gates would take this certificate, by the list they were given last."""
    return not (ports.denied and ports.denied[-1].denies(_identity(credential)))


# --- renewal --------------------------------------------------------------------------------------


def test_the_same_key_gets_the_same_certificate(enrolled: Device, ports: Any) -> None:
    following = key()
    first, second = (renew(enrolled, following, ports) for _ in range(2))
    assert first == second
    assert first.public_key() == following.public_key()
    assert Credential.objects.filter(device=enrolled).count() == 2
    assert Credential.objects.first().issued == Issued.RENEWAL  # type: ignore[union-attr]


def test_a_renewal_chooses_neither_its_name_nor_its_powers(enrolled: Device, ports: Any) -> None:
    """THREATS: a CSR that asks for CA:TRUE, another name or SAN gets only what the claim says."""
    wish = (
        Applicant.builder("device-of-another")
        .add_extension(x509.BasicConstraints(ca=True, path_length=9), critical=True)
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.UniformResourceIdentifier("spiffe://patency/device/another")]
            ),
            critical=True,
        )
    )
    leaf = renew(enrolled, key(), ports, builder=wish)
    assert leaf.subject.rfc4514_string() == f"CN={enrolled.pk}"
    extensions = leaf.extensions
    assert extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [name.value for name in names] == [f"spiffe://patency/device/{enrolled.pk}"]
    assert leaf.not_valid_after_utc < clock.now() + timedelta(days=30, minutes=1)


def test_a_crash_between_sign_and_store_leaves_nothing_half_done(
    enrolled: Device, ports: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """THREATS, 100 times: the ingest rolls back, the device asks again and gets one certificate."""
    from django.db import transaction

    following, real = key(), Credential.objects.create
    for _ in range(scaled(100)):

        def crash(**fields: Any) -> Credential:
            real(**fields)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Credential.objects, "create", crash)
            with transaction.atomic():
                inbound.renewal(enrolled, request(following), clock.now())
        assert Credential.objects.filter(device=enrolled).count() == 1
        assert not ports.sent
    renew(enrolled, following, ports)
    assert Credential.objects.filter(device=enrolled).count() == 2


@pytest.mark.parametrize("csr", [b"?", b"\x30\x00", b"\x30" * 1024])
def test_what_is_no_request_is_refused(enrolled: Device, csr: bytes, ports: Any) -> None:
    message = Renewal(at=0, boot="b" * 32, uptime_ms=0, outbox="a" * 32, seq=1, csr=csr)
    with pytest.raises(MessageRefused) as caught:
        inbound.renewal(enrolled, message, clock.now())
    assert caught.value.reason is RefusalReason.MALFORMED
    assert caught.value.alarm == "credential:renew"
    assert not ports.sent


def test_another_devices_key_is_refused(
    enrolled: Device, other_device: Device, applicant: Applicant
) -> None:
    with pytest.raises(MessageRefused) as caught:
        inbound.renewal(other_device, request(applicant.key), clock.now())
    assert caught.value.reason is RefusalReason.KEY_CONFLICT


def test_a_device_does_not_fill_the_table(enrolled: Device, ports: Any) -> None:
    before = Credential.objects.filter(device=enrolled, used_at=None).count()
    for _ in range(inbound.MOST_UNUSED - before):
        renew(enrolled, key(), ports)
    with pytest.raises(MessageRefused) as caught:
        inbound.renewal(enrolled, request(key()), clock.now())
    assert caught.value.reason is RefusalReason.ILLEGAL_TRANSITION


def test_it_is_owed_until_it_was_used(enrolled: Device, ports: Any) -> None:
    assert list(inbound.pending(enrolled)) == []
    leaf = renew(enrolled, key(), ports)
    (message,) = inbound.pending(enrolled)
    assert isinstance(message, Certificate)
    assert message.certificates[0] == leaf.public_bytes(Encoding.DER)
    credentials.used(enrolled.pk, f"{leaf.serial_number:X}", clock.now())
    assert list(inbound.pending(enrolled)) == []


def test_the_old_one_serves_until_the_new_one_was_used(enrolled: Device, ports: Any) -> None:
    old = Credential.objects.get(device=enrolled)
    following = key()
    leaf = renew(enrolled, following, ports)
    assert let_in(old, ports)
    assert credentials.current(enrolled).public_key == credentials.fingerprint(  # type: ignore[union-attr]
        following.public_key()
    )
    credentials.used(enrolled.pk, f"{leaf.serial_number:040X}", clock.now())
    old.refresh_from_db()
    new = Credential.objects.get(serial_number=f"{leaf.serial_number:x}")
    assert old.superseded_at is not None
    assert (new.used_at is not None, new.superseded_at) == (True, None)
    assert not let_in(old, ports)
    assert let_in(new, ports)
    assert ports.kicked == []  # it is connected, with the new one
    with pytest.raises(MessageRefused):  # and the old key is no key for a renewal
        inbound.renewal(enrolled, request(_holder(old)), clock.now())


_KEYS: dict[str, ec.EllipticCurvePrivateKey] = {}


@pytest.fixture(autouse=True)
def _remember(applicant: Applicant) -> None:
    _KEYS[credentials.fingerprint(applicant.key.public_key())] = applicant.key


def _holder(credential: Credential) -> ec.EllipticCurvePrivateKey:
    return _KEYS[credential.public_key]


def test_a_superseded_certificate_that_is_shown_is_an_alarm(enrolled: Device, ports: Any) -> None:
    """What PortalLanes does with the gate's refusal of a certificate."""
    leaf = renew(enrolled, key(), ports)
    credentials.used(enrolled.pk, f"{leaf.serial_number:x}", clock.now())
    for _ in range(3):
        credentials.shown_in_vain(enrolled, clock.now())
    assert Alarm.objects.get().kind == AlarmKind.SUPERSEDED
    assert Entry.objects.filter(action="credential:alarm").count() == 1


def test_a_revoked_device_that_knocks_is_no_alarm(
    enrolled: Device, administrator: User, ports: Any
) -> None:
    credentials.revoke(actor=administrator, device=enrolled, now=clock.now())
    credentials.shown_in_vain(enrolled, clock.now())
    assert not Alarm.objects.exists()


# --- the deny-list --------------------------------------------------------------------------------


def test_another_process_revokes(enrolled: Device, ports: Any) -> None:
    """A list that starts, and one that runs, learn from the database and tell the gates."""
    credential = Credential.objects.get(device=enrolled)
    running = Denied()
    now = clock.now()
    assert running.refresh(now) == []
    assert let_in(credential, ports)
    Credential.objects.update(revoked_at=now + timedelta(seconds=1))
    assert running.refresh(now + timedelta(seconds=2)) == [credential]
    assert running.refresh(now + timedelta(seconds=3)) == []  # told once
    assert len(ports.denied) == 1
    assert not let_in(credential, ports)
    started = Denied()
    started.refresh(now + timedelta(days=1))
    assert len(ports.denied) == 2
    started.refresh(now + timedelta(days=31))  # ended: the gate refuses it anyway
    assert len(started) == 0


def test_who_came_in_before_the_gate_knew_is_cut(enrolled: Device, ports: Any) -> None:
    credential = Credential.objects.get(device=enrolled)
    Credential.objects.update(revoked_at=clock.now())
    credentials.used(enrolled.pk, credential.serial_number, clock.now())
    assert not let_in(credential, ports)


def test_an_unknown_certificate_is_let_in_and_told(enrolled: Device, ports: Any) -> None:
    """A portal restored from a backup does not lock out who renewed since; and if it was not, then
    somebody has the CA's key."""
    for _ in range(2):
        credentials.used(enrolled.pk, "abc123", clock.now())
    assert Alarm.objects.get().kind == AlarmKind.UNKNOWN
    assert ports.kicked == []
    assert ports.denied == []


# --- revoked, and back ----------------------------------------------------------------------------


def test_an_administrator_revokes(
    enrolled: Device, administrator: User, applicant: Applicant, ports: Any
) -> None:
    alarms.sound(enrolled, AlarmKind.CLONED, now=clock.now())
    assert credentials.revoke(actor=administrator, device=enrolled, now=clock.now()) == 1
    credential = Credential.objects.get()
    assert (credential.revoked_because, credential.revoked_at is not None) == ("by_hand", True)
    assert not let_in(credential, ports)
    assert ports.kicked == [enrolled.pk]
    assert not Alarm.objects.filter(closed_at=None).exists()
    entry = Entry.objects.get(action="credential:revoke")
    assert entry.entry["actor"] == administrator.username
    assert ask(applicant.body()).status_code == 403  # neither its claim
    with pytest.raises(MessageRefused):  # nor what its connection still sends
        inbound.renewal(enrolled, request(applicant.key), clock.now())


@pytest.mark.parametrize("who", ["owner", "member", "stranger"])
def test_nobody_else_revokes(enrolled: Device, who: str, request: pytest.FixtureRequest) -> None:
    with pytest.raises(NotAllowed):
        credentials.revoke(actor=request.getfixturevalue(who), device=enrolled, now=clock.now())
    assert Credential.objects.filter(revoked_at=None).count() == 1


def test_a_new_claim_brings_the_same_device_back(
    enrolled: Device, administrator: User, applicant: Applicant, ports: Any
) -> None:
    credentials.revoke(actor=administrator, device=enrolled, now=clock.now())
    claim = services.create_claim_again(device=enrolled, now=clock.now(), actor=administrator)
    applicant.claim = claim
    assert ask(applicant.body()).status_code == 403  # the revoked key is no key
    applicant.key = key()
    first, second = ask(applicant.body()), ask(applicant.body())
    assert first.status_code == 200, first.content
    assert first.json() == second.json()  # a lost answer is asked for once more
    assert first.json()["device"] == enrolled.pk
    assert Device.objects.count() == 1
    assert Entry.objects.filter(action="device:enrol_again").count() == 1
    newest = credentials.current(enrolled)
    assert newest is not None
    assert newest.public_key == credentials.fingerprint(applicant.key.public_key())


def test_a_new_claim_revokes_what_was_there(
    enrolled: Device, applicant: Applicant, ports: Any
) -> None:
    """Also when nothing had been revoked, as after a stolen disk."""
    applicant.claim = services.create_claim_again(device=enrolled, now=clock.now())
    old = Credential.objects.get()
    assert let_in(old, ports)  # until the claim is used
    applicant.key = key()
    assert ask(applicant.body()).status_code == 200
    old.refresh_from_db()
    assert old.revoked_because == Revoked.REPLACED
    assert not let_in(old, ports)


def test_another_machine_does_not_come_back_as_this_one(
    enrolled: Device, applicant: Applicant
) -> None:
    claim = services.create_claim_again(device=enrolled, now=clock.now())
    answer = ask(Applicant(claim).body())
    assert (answer.status_code, answer.json()["error"]) == (409, "board_changed")
    assert Claim.objects.get(digest=services.claim_digest(claim)).used_at is None


def test_a_claim_to_come_back_with_replaces_the_one_before(
    enrolled: Device, applicant: Applicant
) -> None:
    stale, _newer = (
        services.create_claim_again(device=enrolled, now=clock.now()) for _ in range(2)
    )
    applicant.claim, applicant.key = stale, key()
    assert ask(applicant.body()).status_code == 403
    enrolled.retired_at = clock.now()
    with pytest.raises(Conflict, match="retired"):
        services.create_claim_again(device=enrolled, now=clock.now())


# --- off for months -------------------------------------------------------------------------------


def _end(days_ago: int) -> None:
    Credential.objects.update(not_after_at=clock.now() - timedelta(days=days_ago))


def test_a_device_that_was_off_for_months_gets_a_new_certificate(
    enrolled: Device, applicant: Applicant
) -> None:
    _end(200)
    answer = ask(applicant.body())
    assert answer.status_code == 200
    assert answer.json()["device"] == enrolled.pk
    newest = credentials.current(enrolled)
    assert newest is not None
    assert newest.issued == Issued.RETURN
    assert newest.not_after_at > clock.now() + timedelta(days=29)


def test_with_the_key_of_its_last_renewal(
    enrolled: Device, applicant: Applicant, ports: Any
) -> None:
    following = key()
    leaf = renew(enrolled, following, ports)
    credentials.used(enrolled.pk, f"{leaf.serial_number:x}", clock.now())
    _end(30)
    assert ask(applicant.body()).status_code == 409  # the key before: a copy of an old disk
    assert Alarm.objects.get().kind == AlarmKind.CLAIM
    applicant.key = following
    assert ask(applicant.body()).status_code == 200


def test_after_more_than_a_year_a_person_must_look(enrolled: Device, applicant: Applicant) -> None:
    _end(366)
    assert ask(applicant.body()).status_code == 403


def test_a_clock_a_year_off_changes_nothing_at_the_portal(
    enrolled: Device, applicant: Applicant
) -> None:
    """A device that wrongly believes that its certificate is over is given the same again."""
    first, second = ask(applicant.body()), ask(applicant.body())
    assert first.json() == second.json()
    assert Credential.objects.count() == 1
