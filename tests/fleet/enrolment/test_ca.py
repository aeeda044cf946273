"""The authorities and what they sign (R-CON-6)."""

import shutil
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.verification import PolicyBuilder, Store
from django.core.management import CommandError, call_command

from fleet.core import clock
from fleet.core.errors import Conflict
from fleet.enrolment import ca, ceremony, soundness


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


@pytest.mark.parametrize("step", ["server_pair", "put_in_place"])
def test_a_crash_in_init_is_no_dead_end(
    step: str, portal_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it is used, not even the root's key, which lies in its place by then."""
    with monkeypatch.context() as patch:
        patch.setattr(ca, step, lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            ca.init(now=clock.now())
    assert not ca.exists()
    assert not (portal_data / "ca").exists()
    ca.init(now=clock.now())
    assert ca.exists()
    root = ceremony._load_root(ca.offline_folder(), None)
    assert root.certificate == _read("device-root")
    assert {path.name for path in portal_data.iterdir()} == {"ca", "trust"}


def _digests(*folders: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for folder in folders for path in folder.iterdir()}


@pytest.mark.parametrize("name", ca.NEEDED)
def test_a_lost_file_never_leads_to_new_authorities(name: str, portal_data: Path) -> None:
    """R-CON-8: every injector in the field would need a person."""
    ca.init(now=clock.now())
    (portal_data / "ca" / name).unlink()
    before = _digests(portal_data / "ca", portal_data / "trust")
    remedy = "renew-server --host" if name.startswith("server.") else "ca restore FILE"
    with pytest.raises(Conflict, match=rf"{name} is missing.*{remedy}"):
        ca.init(now=clock.now())
    root = _read("device-root") if name != "device-root.pem" else _root()
    with pytest.raises(Conflict, match=rf"{name} is missing"):
        ca.begin(root, now=clock.now())
    assert _digests(portal_data / "ca", portal_data / "trust") == before


@pytest.mark.parametrize("kept", ca.NEEDED)
def test_one_file_that_is_left_is_enough_to_refuse(kept: str, portal_data: Path) -> None:
    ca.init(now=clock.now())
    for name in set(ca.NEEDED) - {kept}:
        (portal_data / "ca" / name).unlink()
    with pytest.raises(Conflict, match="Keep them"):
        ca.init(now=clock.now())
    assert [path.name for path in (portal_data / "ca").iterdir()] == [kept]


def test_a_root_without_its_authorities_is_not_written_over(portal_data: Path) -> None:
    ca.init(now=clock.now())
    before = _digests(portal_data / "trust")
    shutil.rmtree(portal_data / "ca")
    with pytest.raises(Conflict, match=r"device-root\.key is the key of a root.*ca restore"):
        ca.init(now=clock.now())
    assert _digests(portal_data / "trust") == before
    assert not (portal_data / "ca").exists()


def test_a_folder_with_something_else_in_it_is_not_taken(portal_data: Path) -> None:
    (portal_data / "ca").mkdir(parents=True)
    (portal_data / "ca" / ".server.key.4711").write_text("a draft")
    with pytest.raises(Conflict, match="not empty"):
        ca.init(now=clock.now())
    (portal_data / "ca" / ".server.key.4711").unlink()
    ca.init(now=clock.now())  # an empty one is


def _root() -> x509.Certificate:
    return ca.authority("Patency device root", None, clock.now(), ca.ROOT_LIFE).certificate


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


def test_a_renewed_server_certificate_keeps_its_names(
    portal_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the names that injectors use none of them would connect after the next restart."""
    names = ["--host", "portal.example", "--host", "10.1.1.1", "--host", "2001:db8::1"]
    call_command("ca", "init", *names)
    before = ca.pem("server")
    call_command("ca", "renew-server")
    assert ca.pem("server") != before
    assert ca.server_hosts() == ["portal.example", "10.1.1.1", "2001:db8::1"]
    assert "for portal.example, 10.1.1.1, 2001:db8::1." in capsys.readouterr().err
    call_command("ca", "renew-server", "--host", "other.example")
    assert ca.server_hosts() == ["other.example"]


@pytest.mark.parametrize("lost", [["server.pem"], ["server.key"], ["server.pem", "server.key"]])
def test_a_lost_server_certificate_is_made_again(lost: list[str], portal_data: Path) -> None:
    """By the command that is told, which takes no names from nothing."""
    call_command("ca", "init", "--host", "portal.example")
    authorities = {name: ca.pem(name) for name in ("device-root", "device-ca", "server-ca")}
    for name in lost:
        (portal_data / "ca" / name).unlink()
    with pytest.raises(Conflict, match=rf"{lost[0]} is missing.*manage\.py ca renew-server"):
        soundness.check()
    if "server.pem" in lost:
        with pytest.raises(CommandError, match="--host NAME"):
            call_command("ca", "renew-server")
    call_command("ca", "renew-server", "--host", "portal.example")
    soundness.check()
    assert {name: ca.pem(name) for name in authorities} == authorities


def test_what_is_written_where_the_person_says_replaces_nothing(
    portal_data: Path, tmp_path: Path
) -> None:
    call_command("ca", "init")
    words, kept = tmp_path / "words", tmp_path / "kept"
    words.write_text("seven blue horses\n")
    kept.write_text("the only copy")
    call_command("ca", "request", "-o", str(tmp_path / "ca.csr"))
    with pytest.raises(CommandError, match="kept is there already"):
        call_command("ca", "backup", str(kept), "--passphrase-file", str(words))
    with pytest.raises(CommandError, match="kept is there already"):
        call_command("ca", "sign", str(tmp_path / "ca.csr"), "-o", str(kept))
    assert kept.read_text() == "the only copy"
