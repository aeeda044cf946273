"""Enrolment and the attacks on it (R-CON-2; "Identity and enrolment" of the threats)."""

import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from django.db import connection
from django.test import Client

from fleet.accounts.models import User
from fleet.audit.models import Entry
from fleet.core import clock
from fleet.core.errors import Conflict
from fleet.enrolment import ca, credentials, limits, services
from fleet.enrolment.models import Claim, Credential
from fleet.inventory.models import Device, Ownership, ProductLine, Site
from tests.fleet.enrolment.asking import Applicant, pem
from tests.scale import scaled

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _authorities() -> Iterator[None]:
    ca.init(now=clock.now())
    limits.enrolments.clear()
    limits.failures.clear()
    yield
    limits.enrolments.clear()
    limits.failures.clear()


@pytest.fixture
def claim(product_line: ProductLine, site: Site) -> str:
    return services.create_claim(
        serial="SN-NEW", product_line=product_line, site=site, now=clock.now(), room="CT 4"
    )


@pytest.fixture
def applicant(claim: str) -> Applicant:
    return Applicant(claim)


def ask(body: Any, **headers: str) -> Any:
    return Client().post("/enrol/v1", body, content_type="application/json", **headers)


def _leaf(answer: Any) -> x509.Certificate:
    return x509.load_pem_x509_certificate(answer.json()["certificates"][0].encode())


def test_a_claim_becomes_an_identity(applicant: Applicant, site: Site) -> None:
    answer = ask(applicant.body())
    assert answer.status_code == 200, answer.content
    body = answer.json()
    device = Device.objects.get()
    assert (body["v"], body["device"]) == (1, device.pk)
    assert body["access_servers"] == [{"host": "127.0.0.1", "port": 8443}]
    assert (device.serial, device.site, device.room) == ("SN-NEW", site, "CT 4")
    assert bytes(device.audit_key) == applicant.audit_key.public_key().public_bytes_raw()
    leaf, intermediate = (
        x509.load_pem_x509_certificate(text.encode()) for text in body["certificates"]
    )
    leaf.verify_directly_issued_by(intermediate)
    assert leaf.subject.rfc4514_string() == f"CN={device.pk}"
    assert leaf.public_key() == applicant.key.public_key()
    assert Ownership.objects.get().organisation == site.organisation
    assert [e.action for e in Entry.objects.all()] == ["claim:create", "device:enrol"]


def test_the_same_claim_and_key_give_the_same_identity_again(applicant: Applicant) -> None:
    """A device that crashed before it stored the answer asks once more."""
    first, second = ask(applicant.body()), ask(applicant.body())
    assert first.json() == second.json()
    assert Device.objects.count() == Credential.objects.count() == 1


def test_past_half_its_life_the_same_key_gets_a_new_certificate(applicant: Applicant) -> None:
    first = ask(applicant.body())
    past = clock.now() + timedelta(days=1)
    Credential.objects.update(not_after_at=past)
    second = ask(applicant.body())
    assert second.json()["device"] == first.json()["device"]
    assert _leaf(second).serial_number != _leaf(first).serial_number


def test_a_crash_between_sign_and_store_leaves_nothing_half_done(
    applicant: Applicant, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = ca.issue_device
    for _ in range(scaled(100)):
        with monkeypatch.context() as patch:

            def crash(*args: Any, **fields: Any) -> x509.Certificate:
                real(*args, **fields)
                raise KeyboardInterrupt

            patch.setattr(ca, "issue_device", crash)
            with pytest.raises(KeyboardInterrupt):
                ask(applicant.body())
        assert not Device.objects.exists()
        assert Claim.objects.get().used_at is None
    assert ask(applicant.body()).status_code == 200


def test_one_claim_two_devices_one_wins_and_an_alarm_is_raised(claim: str) -> None:
    thief = Applicant(claim)
    assert ask(Applicant(claim).body()).status_code == 200
    answer = ask(thief.body())
    assert (answer.status_code, answer.json()["error"]) == (409, "claim_taken")
    alarm = Entry.objects.order_by("-index").first()
    assert alarm is not None
    assert alarm.action == "claim:misused"
    assert alarm.device == Device.objects.get().pk


def test_two_at_the_same_moment(claim: str) -> None:
    barrier = threading.Barrier(2)
    codes: list[int] = []

    def run() -> None:
        applicant = Applicant(claim)
        barrier.wait()
        codes.append(ask(applicant.body()).status_code)
        connection.close()

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(codes) == [200, 409]
    assert Device.objects.count() == 1
    assert Entry.objects.filter(action="claim:misused").count() == 1


def test_another_audit_key_is_another_device(applicant: Applicant) -> None:
    assert ask(applicant.body()).status_code == 200
    other = Applicant(applicant.claim).body()["audit_key"]
    assert ask(applicant.body(audit_key=other)).status_code == 409


def test_another_key_is_another_device_whatever_else_it_shows(applicant: Applicant) -> None:
    """Claim and audit key may have been copied; the key that was born there was not."""
    assert ask(applicant.body()).status_code == 200
    thief = Applicant(applicant.claim)
    answer = ask(thief.body(audit_key=applicant.body()["audit_key"]))
    assert (answer.status_code, answer.json()["error"]) == (409, "claim_taken")
    assert Credential.objects.count() == 1


@pytest.mark.parametrize(
    "changes",
    [{"claim": "x" * 43}, {"serial": "SN-OTHER"}, {"product_line": "ct-multi"}],
    ids=["unknown", "another serial", "another product line"],
)
def test_a_claim_that_does_not_fit_is_refused_alike(
    applicant: Applicant, changes: dict[str, str]
) -> None:
    """A stolen claim: what is wrong is not told."""
    answer = ask(applicant.body(**changes))
    assert (answer.status_code, answer.json()["error"]) == (403, "claim_refused")
    assert not Device.objects.exists()


def test_a_revoked_claim_is_refused_used_or_not(applicant: Applicant) -> None:
    services.revoke_claim(Claim.objects.get(), now=clock.now())
    assert ask(applicant.body()).status_code == 403
    Claim.objects.update(revoked_at=None)
    assert ask(applicant.body()).status_code == 200
    services.revoke_claim(Claim.objects.get(), now=clock.now())
    assert ask(applicant.body()).status_code == 403


def test_a_revoked_credential_is_not_given_again(applicant: Applicant) -> None:
    ask(applicant.body())
    Credential.objects.update(revoked_at=clock.now())
    assert ask(applicant.body()).status_code == 403


def _told(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]


def test_who_holds_the_key_learns_what_became_of_its_credential(
    applicant: Applicant, administrator: User
) -> None:
    """R-CON-7: so that an injector does not blame the hospital's network for it; claim and audit
    key alone, which may have been copied, are told nothing."""
    ask(applicant.body())
    Credential.objects.update(superseded_at=clock.now())
    assert _told(ask(applicant.body())) == (409, "credential_superseded")
    Credential.objects.update(superseded_at=None, not_after_at=clock.now() - timedelta(days=366))
    assert _told(ask(applicant.body())) == (403, "credential_lapsed")
    Credential.objects.update(not_after_at=clock.now() + timedelta(days=20))
    credentials.revoke(actor=administrator, device=Device.objects.get(), now=clock.now())
    assert _told(ask(applicant.body())) == (403, "credential_revoked")
    copy = Applicant(applicant.claim)
    audit_key = applicant.body()["audit_key"]
    assert _told(ask(copy.body())) == (403, "claim_refused")
    assert _told(ask(copy.body(audit_key=audit_key))) == (403, "claim_refused")
    assert _told(ask(applicant.body(audit_key=copy.body()["audit_key"]))) == (403, "claim_refused")
    assert _told(ask(applicant.body(serial="SN-OTHER"))) == (403, "claim_refused")


def test_a_csr_chooses_neither_its_name_nor_its_powers(applicant: Applicant) -> None:
    wish = (
        applicant.builder("device-of-another")
        .add_extension(x509.BasicConstraints(ca=True, path_length=9), critical=True)
        .add_extension(
            x509.SubjectAlternativeName(
                [
                    x509.UniformResourceIdentifier("spiffe://patency/device/another"),
                    x509.DNSName("portal.example"),
                ]
            ),
            critical=True,
        )
        .add_extension(
            x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        )
    )
    answer = ask(applicant.body(csr=pem(wish.sign(applicant.key, SHA256()))))
    assert answer.status_code == 200
    leaf, device = _leaf(answer), answer.json()["device"]
    assert leaf.subject.rfc4514_string() == f"CN={device}"
    extensions = leaf.extensions
    assert extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [name.value for name in names] == [f"spiffe://patency/device/{device}"]


def _der(tag: int, body: bytes) -> bytes:
    size = len(body)
    assert size < 256
    return bytes([tag, size] if size < 128 else [tag, 0x81, size]) + body


def _signed_by_another(applicant: Applicant) -> str:
    """Whole and readable, but for another's signature: the holder of the key is not proved."""
    ours = x509.load_pem_x509_csr(applicant.body()["csr"].encode())
    wanted = ours.tbs_certrequest_bytes
    signature = ec.generate_private_key(ec.SECP256R1()).sign(wanted, ec.ECDSA(SHA256()))
    ecdsa_with_sha256 = bytes.fromhex("300a06082a8648ce3d040302")
    made = _der(0x30, wanted + ecdsa_with_sha256 + _der(0x03, b"\0" + signature))
    request = x509.load_der_x509_csr(made)
    assert request.public_key() == ours.public_key()
    assert not request.is_signature_valid
    return pem(request)


BAD_KEYS: list[tuple[str, Callable[[Applicant], str]]] = [
    ("rsa", lambda a: pem(a.builder().sign(rsa.generate_private_key(65537, 2048), SHA256()))),
    ("p384", lambda a: pem(a.builder().sign(ec.generate_private_key(ec.SECP384R1()), SHA256()))),
    ("not its own signature", _signed_by_another),
    ("no request", lambda a: "-----BEGIN CERTIFICATE REQUEST-----\n" + "A" * 64),
    ("a certificate", lambda a: ca.pem("server-ca")),
]


@pytest.mark.parametrize("make", [row[1] for row in BAD_KEYS], ids=[row[0] for row in BAD_KEYS])
def test_a_bad_signing_request_is_refused(
    applicant: Applicant, make: Callable[[Applicant], str]
) -> None:
    answer = ask(applicant.body(csr=make(applicant)))
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid")
    assert not Device.objects.exists()


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"\xff", b"[" * 10_000, b"{}", b'{"v":2}', b" " * 20_000],
    ids=["empty", "list", "bytes", "deep", "nothing", "version", "long"],
)
def test_what_is_no_request_is_refused(body: bytes) -> None:
    answer = ask(body)
    assert answer.status_code == 400
    assert answer.json()["detail"]


@pytest.mark.parametrize(
    "changes", [{"extra": 1}, {"v": 2}, {"audit_key": "AAAA"}, {"serial": "a b"}, {"csr": None}]
)
def test_the_schema_is_closed(applicant: Applicant, changes: dict[str, Any]) -> None:
    assert ask(applicant.body(**changes)).status_code == 400


def test_only_post() -> None:
    assert Client().get("/enrol/v1").status_code == 405


def test_failures_are_slowed_down_and_successes_are_not_blocked_by_others(
    applicant: Applicant,
) -> None:
    codes = [ask(b"{}").status_code for _ in range(25)]
    assert codes == [400] * 20 + [429] * 5
    assert ask(b"{}", REMOTE_ADDR="10.9.8.7").status_code == 400
    assert ask(applicant.body()).status_code == 200


def test_a_flood_from_one_address_is_cut() -> None:
    codes = {ask(b"{}").status_code for _ in range(205)}
    assert codes == {400, 429}
    answer = ask(b"{}", HTTP_ACCEPT_LANGUAGE="en")
    assert answer.json()["error"] == "too_many"


def test_a_new_claim_replaces_the_unused_one(
    applicant: Applicant, product_line: ProductLine, site: Site
) -> None:
    newer = services.create_claim(
        serial="SN-NEW", product_line=product_line, site=site, now=clock.now()
    )
    assert ask(applicant.body()).status_code == 403
    assert ask(Applicant(newer).body()).status_code == 200
    with pytest.raises(Conflict, match="enrolled already"):
        services.create_claim(
            serial="SN-NEW", product_line=product_line, site=site, now=clock.now()
        )


def test_buckets_fill_again_and_are_bounded() -> None:
    now = [0.0]
    buckets = limits.Buckets(burst=2, per_s=1, most=3, clock=lambda: now[0])
    assert [buckets.take("a") for _ in range(3)] == [True, True, False]
    now[0] = 1.0
    assert [buckets.take("a") for _ in range(2)] == [True, False]
    for name in "bcde":
        buckets.take(name)
    assert len(buckets._levels) == 3


def test_dates_are_ours(applicant: Applicant) -> None:
    leaf = _leaf(ask(applicant.body()))
    now: datetime = clock.now()
    assert now - timedelta(hours=2) < leaf.not_valid_before_utc < now
    assert leaf.not_valid_after_utc < now + timedelta(days=30, minutes=1)
