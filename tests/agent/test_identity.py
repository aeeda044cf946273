"""Provisioning, keys, enrolment (R-CON-2, R-CON-6)."""

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from agent import enrolment, identity, posix
from agent.errors import EnrolmentRefused, NetworkError, StateError
from tests.agent.support import (
    DEVICE,
    SERVER_AUDIT_KEY,
    TRUST_KEY,
    EnrolmentServer,
    enrolled,
    leaf_for,
    provision,
)
from tests.tls import Authority

AUTHORITY = Authority()
STRANGER = Authority("stranger")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# --- the provisioning bundle ---------------------------------------------------------------------


def test_a_whole_bundle_is_read(tmp_path: Path) -> None:
    provision(tmp_path, AUTHORITY, port=8443)
    bundle = identity.load_provision(tmp_path)
    assert (bundle.serial, bundle.product_line, bundle.enrol.port) == ("SN-0001", "ct-dual", 8443)
    assert bundle.anchors.trust_key == TRUST_KEY.public_key().public_bytes_raw()
    assert bundle.anchors.server_audit_key == SERVER_AUDIT_KEY.public_key().public_bytes_raw()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"v": 2}, "v"),
        ({"serial": "../etc"}, "serial"),
        ({"product_line": "toaster"}, "product_line"),
        ({"claim": ""}, "claim"),
        ({"enrol": {"host": "local host", "port": 1}}, "host"),
        ({"enrol": {"host": "localhost", "port": 0}}, "port"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_bad_field_is_named(tmp_path: Path, change: dict[str, Any], named: str) -> None:
    provision(tmp_path, AUTHORITY, **change)
    with pytest.raises(StateError, match=named) as caught:
        identity.load_provision(tmp_path)
    assert "provision.json" in str(caught.value)


@pytest.mark.parametrize(
    ("anchor", "value"),
    [
        ("server_ca", "x" * 100),
        ("device_root", "x" * 100),
        ("trust_key", "c2hvcnQ="),
        ("server_audit_key", "not base64"),
    ],
)
def test_a_bad_anchor_is_a_clear_error(tmp_path: Path, anchor: str, value: str) -> None:
    bundle = provision(tmp_path, AUTHORITY)
    bundle["anchors"][anchor] = value
    (tmp_path / "provision.json").write_text(json.dumps(bundle))
    with pytest.raises(StateError, match=r"provision\.json"):
        identity.load_provision(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "\xff", '{"v": 1', " " * 70_000])
def test_no_bundle_at_all(tmp_path: Path, text: str) -> None:
    with pytest.raises(StateError, match="place the provisioning bundle"):
        identity.load_provision(tmp_path)
    (tmp_path / "provision.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(StateError, match=r"provision\.json"):
        identity.load_provision(tmp_path)


# --- keys and files ------------------------------------------------------------------------------


def test_keys_are_born_here_private_and_stay(tmp_path: Path) -> None:
    provision(tmp_path, AUTHORITY)
    first, again = identity.device_key(tmp_path), identity.device_key(tmp_path)
    assert first.public_key() == again.public_key()
    assert first.public_key().curve.name == "secp256r1"
    assert (
        identity.audit_key(tmp_path).private_bytes_raw()
        == identity.audit_key(tmp_path).private_bytes_raw()
    )
    assert {mode(tmp_path / name) for name in ("device.key", "audit.key")} == {0o600}


def test_a_key_that_cannot_be_used_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "device.key").write_text("no key")
    (tmp_path / "device.key").chmod(0o600)
    with pytest.raises(StateError, match=r"device\.key"):
        identity.device_key(tmp_path)
    identity.audit_key(tmp_path)
    (tmp_path / "device.key").write_bytes((tmp_path / "audit.key").read_bytes())
    with pytest.raises(StateError, match="P-256"):
        identity.device_key(tmp_path)


def test_a_csr_asks_for_no_name(tmp_path: Path) -> None:
    request = x509.load_pem_x509_csr(
        identity.signing_request(identity.device_key(tmp_path)).encode()
    )
    assert request.is_signature_valid
    assert not list(request.subject)
    assert not list(request.extensions)


def test_an_enrolled_injector_loads(tmp_path: Path) -> None:
    enrolled(tmp_path, AUTHORITY, 1001, 1002)
    known = identity.load(tmp_path)
    assert known is not None
    assert known.device == DEVICE
    assert [str(server) for server in known.servers] == ["localhost:1001", "localhost:1002"]
    assert 29 < identity.days_left(known, known.signed_ms) < 31
    assert known.tls_context().minimum_version.name == "TLSv1_2"


def test_another_key_or_another_authority_is_noticed(tmp_path: Path) -> None:
    enrolled(tmp_path, AUTHORITY, 1001)
    own = (tmp_path / "device.key").read_bytes()
    (tmp_path / "device.key").write_bytes(AUTHORITY.device("device-0002").key_pem)
    with pytest.raises(StateError, match="another key"):
        identity.load(tmp_path)
    (tmp_path / "device.key").write_bytes(own)
    provision(tmp_path, STRANGER)
    with pytest.raises(StateError, match="authority"):
        identity.load(tmp_path)


def test_a_key_that_is_gone_is_not_made_anew(tmp_path: Path) -> None:
    """A new one would be another machine's to the portal; the remedy is complete."""
    enrolled(tmp_path, AUTHORITY, 1001)
    (tmp_path / "device.key").unlink()
    provided = identity.load_provision(tmp_path)
    for attempt in (lambda: identity.load(tmp_path), lambda: identity.claim(tmp_path, provided)):
        with pytest.raises(StateError, match="new provisioning bundle") as caught:
            attempt()
        assert f"mv {tmp_path}/device.* {tmp_path}/aside/" in str(caught.value)
    assert not (tmp_path / "device.key").exists()


def test_a_damaged_certificate_is_said_in_our_words(tmp_path: Path) -> None:
    enrolled(tmp_path, AUTHORITY, 1001)
    (tmp_path / "device.pem").write_text("junk")
    with pytest.raises(StateError, match="Put it aside") as caught:
        identity.load(tmp_path)
    assert "cryptography" not in str(caught.value)


@pytest.mark.parametrize("text", [None, "", "junk", "[]", '[{"host": "a"}]'])
def test_without_its_list_it_goes_where_the_bundle_leads(tmp_path: Path, text: str | None) -> None:
    """R-CON-8: a small file is no reason to stay away until a person comes."""
    enrolled(tmp_path, AUTHORITY, 1001, enrol_port=4242)
    if text is None:
        (tmp_path / "servers.json").unlink()
    else:
        (tmp_path / "servers.json").write_text(text)
    known = identity.load(tmp_path)
    assert known is not None
    assert known.servers_lost
    assert [str(server) for server in known.servers] == ["localhost:4242"]


# --- enrolment -----------------------------------------------------------------------------------


async def test_first_contact_gives_an_identity_that_stays(tmp_path: Path) -> None:
    async with EnrolmentServer(AUTHORITY, access_port=4242).serving() as server:
        provision(tmp_path, AUTHORITY, port=server.port)
        first = await enrolment.enrol(tmp_path)
        again = await enrolment.enrol(tmp_path)
    assert first.device == again.device == DEVICE
    assert str(first.servers[0]) == "localhost:4242"
    assert len(server.requests) == 1
    assert sorted(server.requests[0]) == [
        "audit_key", "claim", "csr", "product_line", "serial", "v",
    ]  # fmt: skip
    for name in ("device.key", "device.pem", "audit.key", "servers.json"):
        assert mode(tmp_path / name) == 0o600


async def test_a_crash_at_any_step_recovers_with_the_same_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """THREATS, enrolment: a crash between sign and store."""
    real = posix.write_private
    async with EnrolmentServer(AUTHORITY).serving() as server:
        for step in range(8):  # before and after each of the four files
            folder = tmp_path / str(step)
            provision(folder, AUTHORITY, port=server.port, claim=f"claim-{step}000")
            server.requests.clear()
            _crash_at(monkeypatch, step, real)
            with pytest.raises(KeyboardInterrupt):
                await enrolment.enrol(folder)
            keys = [p.read_bytes() for p in sorted(folder.glob("*.key"))]
            monkeypatch.setattr(posix, "write_private", real)
            assert (await enrolment.enrol(folder)).device == DEVICE
            now = [p.read_bytes() for p in sorted(folder.glob("*.key"))]
            assert all(key in now for key in keys), "a key that may have been shown was replaced"
            assert len({request["csr"][:0] + request["claim"] for request in server.requests}) == 1


def _crash_at(
    monkeypatch: pytest.MonkeyPatch, step: int, real: Callable[[Path, bytes], None]
) -> None:
    """The process dies at the `step`-th moment: before (even) or after (odd) a file is written."""
    moment = 0

    def write(path: Path, data: bytes) -> None:
        nonlocal moment
        if moment == step:
            raise KeyboardInterrupt
        real(path, data)
        if moment + 1 == step:
            raise KeyboardInterrupt
        moment += 2

    monkeypatch.setattr(posix, "write_private", write)


def test_a_file_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "device.pem"
    posix.write_private(target, b"old")

    def fail(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(posix.os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        posix.write_private(target, b"new" * 1000)
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["device.pem"]


async def test_a_server_of_another_authority_is_not_shown_the_claim(tmp_path: Path) -> None:
    """R-CON-6: validated before any byte; R-CON-7: the text says what may be wrong."""
    async with EnrolmentServer(STRANGER).serving() as server:
        provision(tmp_path, AUTHORITY, port=server.port)
        with pytest.raises(NetworkError, match="TLS inspection"):
            await enrolment.enrol(tmp_path)
    assert not server.requests


async def test_the_environment_chooses_no_proxy_and_no_trust(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca = tmp_path / "stranger.pem"
    ca.write_bytes(STRANGER.server_ca.chain_pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(ca))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    async with EnrolmentServer(AUTHORITY).serving() as server:
        provision(tmp_path / "good", AUTHORITY, port=server.port)
        assert (await enrolment.enrol(tmp_path / "good")).device == DEVICE
    async with EnrolmentServer(STRANGER).serving() as server:
        provision(tmp_path / "bad", AUTHORITY, port=server.port)
        with pytest.raises(NetworkError):
            await enrolment.enrol(tmp_path / "bad")


async def test_nobody_there(tmp_path: Path, free_port: int) -> None:
    provision(tmp_path, AUTHORITY, port=free_port)
    with pytest.raises(NetworkError, match=f"localhost:{free_port} was refused"):
        await enrolment.enrol(tmp_path)


@pytest.mark.parametrize(
    ("status", "error", "told"),
    [
        (503, NetworkError, "tried again"),
        (429, NetworkError, "tried again"),
        (409, EnrolmentRefused, "another key"),
        (404, EnrolmentRefused, "unknown_claim"),
        (302, EnrolmentRefused, "302"),
    ],
)
async def test_refusals(tmp_path: Path, status: int, error: type[Exception], told: str) -> None:
    body = json.dumps({"error": "unknown_claim" if status == 404 else "<b>", "detail": "x"})
    server = EnrolmentServer(AUTHORITY, answer=lambda claim: (status, body.encode()))
    async with server.serving():
        provision(tmp_path, AUTHORITY, port=server.port)
        with pytest.raises(error, match=told):
            await enrolment.enrol(tmp_path)
    assert not (tmp_path / "device.pem").exists()


def _answer(**changes: Any) -> Callable[[dict[str, Any]], tuple[int, bytes]]:
    """An answer that is right but for `changes`."""

    def answer(claim: dict[str, Any]) -> tuple[int, bytes]:
        public = x509.load_pem_x509_csr(claim["csr"].encode()).public_key()
        authority = changes.get("authority", AUTHORITY)
        key = changes.get("key", public)
        leaf = leaf_for(authority, changes.get("name", DEVICE), key)
        chain = [leaf, authority.intermediate.certificate]
        body = {
            "v": 1,
            "device": DEVICE,
            "certificates": [_pem(c) for c in chain[: changes.get("certificates", 2)]],
            "access_servers": changes.get("servers", [{"host": "localhost", "port": 1}]),
        }
        return 200, changes.get("body", json.dumps(body).encode())

    return answer


def _pem(certificate: x509.Certificate) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM).decode()


@pytest.mark.parametrize(
    "changes",
    [
        {"authority": STRANGER},
        {"key": STRANGER.root.key.public_key()},
        {"name": "device-0002"},
        {"name": "no"},
        {"certificates": 1},
        {"certificates": 0},
        {"servers": []},
        {"servers": [{"host": "a b", "port": 1}]},
        {"body": b"{"},
        {"body": b"x" * 100_000},
    ],
    ids=lambda changes: next(iter(changes)),
)
async def test_an_answer_for_somebody_else_is_not_kept(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    async with EnrolmentServer(AUTHORITY, answer=_answer(**changes)).serving() as server:
        provision(tmp_path, AUTHORITY, port=server.port)
        with pytest.raises(EnrolmentRefused):
            await enrolment.enrol(tmp_path)
    assert not (tmp_path / "device.pem").exists()
    assert identity.load(tmp_path) is None
