"""The offline root's ceremony, rotation, backup (R-CON-6, R-CON-8; docs/ca.md)."""

import io
import tarfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.verification import PolicyBuilder, Store
from django.core.management import CommandError, call_command

from fleet.core import clock
from fleet.core.errors import Conflict, Invalid
from fleet.enrolment import ca, ceremony, soundness
from tests.fleet.enrolment.asking import Applicant

PASSPHRASE = "seven blue horses"


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


def _leaf(device: str = "device-0001") -> x509.Certificate:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    return ca.issue_device(device, key, now=clock.now())


def _verifies(leaf: x509.Certificate) -> bool:
    """As the gate does: by the root alone, with the chain that the device sends."""
    root = x509.load_pem_x509_certificate(ca.pem("device-root").encode())
    verifier = PolicyBuilder().store(Store([root])).build_client_verifier()
    return verifier.verify(leaf, [ca.issuer_of(leaf)]).chain[-1] == root


# --- the whole ceremony, by its commands ----------------------------------------------------------


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "passphrase"
    path.write_text(PASSPHRASE + "\n")
    return path


def test_a_root_that_never_was_at_the_portal(
    portal_data: Path, tmp_path: Path, secret: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    offline, stick = tmp_path / "offline", tmp_path / "stick"
    sealed = ["--passphrase-file", str(secret)]
    call_command("ca", "root", str(offline), *sealed)
    call_command(
        "ca", "init", "--root", str(offline / "device-root.pem"), "-o", str(stick / "ca.csr")
    )
    assert ca.exists()
    for use in (_leaf, soundness.check):
        with pytest.raises(Conflict, match="ca import"):
            use()  # not yet
    call_command(
        "ca", "sign", str(stick / "ca.csr"), "--root", str(offline), "-o", str(stick / "ca.pem"),
        *sealed,
    )  # fmt: skip
    call_command("ca", "import", str(stick / "ca.pem"))
    assert _verifies(_leaf())
    soundness.check()
    names = {path.name for path in portal_data.rglob("*") if path.is_file()}
    assert "device-root.key" not in names
    assert "device-ca-next.key" not in names
    assert b"ENCRYPTED" in (offline / "device-root.key").read_bytes()
    assert (offline / "device-root.key").stat().st_mode & 0o777 == 0o600
    assert "SHA-256" in capsys.readouterr().out
    with pytest.raises(CommandError, match="keep it"):
        call_command("ca", "root", str(offline), *sealed)
    with pytest.raises(CommandError, match="already"):
        call_command("ca", "init", "--root", str(offline / "device-root.pem"))


def test_rotating_the_intermediate_touches_no_device() -> None:
    """What the one before issued verifies on, beside what the new one issues."""
    ca.init(now=clock.now())
    before = _leaf()
    for round_ in range(2):
        request = ceremony.ask()
        signed = ceremony.sign(request, root=ca.offline_folder(), now=clock.now())
        ceremony.take_in(_pem(signed), now=clock.now())
        after = _leaf()
        assert after.issuer == signed.subject != before.issuer
        assert _verifies(before)
        assert _verifies(after)
        assert len(ca.intermediates()) == round_ + 2
    assert ca.intermediates()[0].subject == after.issuer


def test_asking_again_asks_for_the_same_key(portal_data: Path) -> None:
    ca.init(now=clock.now())
    first, second = (x509.load_pem_x509_csr(ceremony.ask()).public_key() for _ in range(2))
    assert first == second
    assert (portal_data / "ca" / "device-ca-next.key").stat().st_mode & 0o777 == 0o600


def test_a_crash_between_certificate_and_key_is_put_right(
    portal_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca.init(now=clock.now())
    signed = ceremony.sign(ceremony.ask(), root=ca.offline_folder(), now=clock.now())
    with monkeypatch.context() as patch:
        patch.setattr(ca, "settle", lambda name: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            ceremony.take_in(_pem(signed), now=clock.now())
    assert (portal_data / "ca" / "device-ca-next.key").exists()
    soundness.check()  # as at the next start
    leaf = _leaf()
    assert leaf.issuer == signed.subject
    assert _verifies(leaf)
    assert not (portal_data / "ca" / "device-ca-next.key").exists()


# --- what is not taken in -------------------------------------------------------------------------


def _signed(**changes: Any) -> bytes:
    """An answer to the request that is right but for `changes`."""
    key = x509.load_pem_x509_csr(ceremony.ask()).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    issuer = changes.get("issuer") or ceremony._load_root(ca.offline_folder(), None)
    now = changes.get("now", clock.now())
    if "length" in changes:
        builder = ca._builder(
            ca._name("x"), issuer.certificate.subject, key, now, timedelta(days=1)
        ).add_extension(x509.BasicConstraints(*changes["length"]), critical=True)
        return _pem(builder.sign(issuer.key, SHA256()))
    return _pem(ca.intermediate(changes.get("key", key), issuer=issuer, now=now))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: b"nothing", "no certificate"),
        (lambda: _signed(key=ec.generate_private_key(ec.SECP256R1()).public_key()), "key asked"),
        (lambda: _signed(issuer=_stranger()), "root that devices trust"),
        (lambda: _signed(length=(True, None)), "nothing below"),
        (lambda: _signed(length=(True, 1)), "nothing below"),
        (lambda: _signed(length=(False, None)), "nothing below"),
        (lambda: _signed(now=clock.now() + timedelta(days=2)), "not valid now"),
        (lambda: _signed(now=clock.now() - timedelta(days=3000)), "not valid now"),
    ],
    ids=["text", "key", "root", "any depth", "depth", "no authority", "early", "late"],
)
def test_what_must_not_issue_for_devices(make: Any, told: str) -> None:
    ca.init(now=clock.now())
    before = ca.pem("device-ca")
    with pytest.raises(Invalid, match=told):
        ceremony.take_in(make(), now=clock.now())
    assert ca.pem("device-ca") == before
    assert _verifies(_leaf())


def _stranger() -> ca.Pair:
    return ca.authority("Patency device root", None, clock.now(), ca.ROOT_LIFE)


def test_a_request_chooses_neither_its_name_nor_its_depth(tmp_path: Path) -> None:
    ceremony.make_root(tmp_path, now=clock.now())
    wish = Applicant.builder("Another CA").add_extension(
        x509.BasicConstraints(ca=True, path_length=5), critical=True
    )
    key = ec.generate_private_key(ec.SECP256R1())
    request = wish.sign(key, SHA256()).public_bytes(Encoding.PEM)
    signed = ceremony.sign(request, root=tmp_path, now=clock.now())
    assert "Patency device CA" in signed.subject.rfc4514_string()
    basic = signed.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert (basic.ca, basic.path_length) == (True, 0)


def test_the_root_opens_with_its_passphrase_alone(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="at least 12"):
        ceremony.make_root(tmp_path, now=clock.now(), passphrase="short")
    with pytest.raises(Conflict, match="holds no root"):
        ceremony._load_root(tmp_path, None)
    ceremony.make_root(tmp_path, now=clock.now(), passphrase=PASSPHRASE)
    for wrong in (None, "another passphrase"):
        with pytest.raises(Invalid, match="does not open"):
            ceremony._load_root(tmp_path, wrong)
    assert ceremony._load_root(tmp_path, PASSPHRASE)
    other = ceremony.make_root(tmp_path / "other", now=clock.now(), passphrase=PASSPHRASE)
    (tmp_path / "device-root.pem").write_bytes(_pem(other))
    with pytest.raises(Conflict, match="belong together"):
        ceremony._load_root(tmp_path, PASSPHRASE)


# --- backup ---------------------------------------------------------------------------------------


def test_a_backup_brings_everything_back(portal_data: Path, tmp_path: Path, secret: Path) -> None:
    ca.init(now=clock.now())
    leaf = _leaf()
    sealed = ["--passphrase-file", str(secret)]
    call_command("ca", "backup", str(tmp_path / "ca.backup"), *sealed)
    data = (tmp_path / "ca.backup").read_bytes()
    assert b"PRIVATE KEY" not in data
    assert (tmp_path / "ca.backup").stat().st_mode & 0o777 == 0o600
    files = {p.name: p.read_bytes() for p in (portal_data / "ca").iterdir()}
    with pytest.raises(CommandError, match="not empty"):
        call_command("ca", "restore", str(tmp_path / "ca.backup"), *sealed)
    (portal_data / "ca").rename(tmp_path / "gone")
    call_command("ca", "restore", str(tmp_path / "ca.backup"), *sealed)
    assert {p.name: p.read_bytes() for p in (portal_data / "ca").iterdir()} == files
    assert all(p.stat().st_mode & 0o777 == 0o600 for p in (portal_data / "ca").iterdir())
    assert _verifies(leaf)


def test_what_is_no_backup_or_opens_not(portal_data: Path) -> None:
    with pytest.raises(Conflict, match="nothing to back up"):
        ceremony.backup(PASSPHRASE)
    ca.init(now=clock.now())
    with pytest.raises(Invalid, match="at least"):
        ceremony.backup("short")
    good = ceremony.backup(PASSPHRASE)
    (portal_data / "ca").rename(portal_data / "away")
    for sealed, passphrase in (
        (b"", PASSPHRASE),
        (good, "another passphrase"),
        (good[:-1], PASSPHRASE),
        (good[:60] + bytes([good[60] ^ 1]) + good[61:], PASSPHRASE),
        (good[:30], PASSPHRASE),
    ):
        with pytest.raises(Invalid):
            ceremony.restore(sealed, passphrase)
    assert not (portal_data / "ca").exists()


def test_a_backup_writes_nowhere_else(portal_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sealed by somebody who knows the passphrase, and malicious all the same."""
    ca.init(now=clock.now())
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name in ("../escaped", "/tmp/escaped", "fine.pem"):
            info = tarfile.TarInfo(name)
            info.size = 1
            tar.addfile(info, io.BytesIO(b"x"))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    salt, nonce = b"s" * 16, b"n" * 12
    key = ceremony._stretch(PASSPHRASE.encode(), salt)
    body = AESGCM(key).encrypt(nonce, packed.getvalue(), ceremony._MAGIC)
    (portal_data / "ca").rename(portal_data / "away")
    names = ceremony.restore(ceremony._MAGIC + salt + nonce + body, PASSPHRASE)
    assert names == ["fine.pem"]
    assert [path.name for path in (portal_data / "ca").iterdir()] == ["fine.pem"]
