"""The authorities and what they sign (R-CON-6)."""

from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.verification import PolicyBuilder, Store
from django.core.management import CommandError, call_command

from fleet.core import clock
from fleet.core.errors import Conflict
from fleet.enrolment import ca


def _read(name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(ca.pem(name).encode())


def test_before_init_the_remedy_is_named() -> None:
    with pytest.raises(Conflict, match=r"manage\.py ca init"):
        ca.pem("server-ca")


def test_init_makes_everything_once(portal_data: Path) -> None:
    ca.init(now=clock.now())
    for folder in (portal_data / "ca", portal_data / "trust"):
        assert folder.stat().st_mode & 0o777 == 0o700
        for file in folder.iterdir():
            assert file.stat().st_mode & 0o777 == 0o600, file
    assert not (portal_data / "ca" / "device-root.key").exists()
    assert (portal_data / "trust" / "device-root.key").exists()
    with pytest.raises(Conflict):
        ca.init(now=clock.now())


def test_a_crash_in_init_is_no_dead_end(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(ca, "issue_server", lambda **_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            ca.init(now=clock.now())
    assert not ca.exists()
    ca.init(now=clock.now())
    assert ca.exists()


def test_authorities_can_do_no_more_than_they_must() -> None:
    ca.init(now=clock.now())
    depths = {}
    for name in ("device-root", "device-ca", "server-ca"):
        basic = _read(name).extensions.get_extension_for_class(x509.BasicConstraints)
        assert basic.critical
        assert basic.value.ca
        depths[name] = basic.value.path_length
    assert depths == {"device-root": 1, "device-ca": 0, "server-ca": 0}


def test_the_server_certificate_verifies_for_its_hosts() -> None:
    ca.init(now=clock.now(), hosts=["localhost", "127.0.0.1", "portal.example"])
    verifier = PolicyBuilder().store(Store([_read("server-ca")]))
    for host in ("localhost", "portal.example"):
        verifier.build_server_verifier(x509.DNSName(host)).verify(_read("server"), [])


def test_a_device_credential_is_short_and_for_clients_only() -> None:
    now = clock.now()
    ca.init(now=now)
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    leaf = ca.issue_device("device-0001", key, now=now)
    assert leaf.not_valid_after_utc - now <= timedelta(days=30)
    extensions = leaf.extensions
    assert extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    uses = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(uses) == [x509.ExtendedKeyUsageOID.CLIENT_AUTH]
    verifier = PolicyBuilder().store(Store([_read("device-root")])).build_client_verifier()
    assert verifier.verify(leaf, [_read("device-ca")]).chain[-1] == _read("device-root")


def test_the_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="ca init"):
        call_command("ca", "show")
    call_command("ca", "init", "--offline", str(tmp_path / "usb"), "--host", "portal.example")
    assert (tmp_path / "usb" / "device-root.key").exists()
    captured = capsys.readouterr()
    assert "usb/device-root.key" in captured.err
    assert captured.out.count("SHA-256") == 4
    before = ca.pem("server")
    call_command("ca", "renew-server", "--host", "portal.example")
    assert ca.pem("server") != before
    with pytest.raises(CommandError, match="already"):
        call_command("ca", "init")
