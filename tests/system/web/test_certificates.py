"""The browser client's own reading of certificates: it takes what injectors have, and nothing that
Python's verifier would not (R-ACC-4, docs/protocol.md 4.1)."""

import datetime as dt
import random
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.scale import scaled
from tests.system.web.engines import Engine, ThrownError
from tests.tls import Authority, Issued

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

NOW = dt.datetime.now(dt.UTC)
DEVICE = "dev_Alpha-01"


def der(*certificates: x509.Certificate) -> list[str]:
    return [each.public_bytes(Encoding.DER).hex() for each in certificates]


def verify(engine: Engine, chain: list[str], root: x509.Certificate, now: dt.datetime = NOW) -> str:
    """The device, or the code of why it is not believed."""
    try:
        return str(engine.call("certificate", chain=chain, roots=der(root), now=now.isoformat()))
    except ThrownError as error:
        assert error.name == "CertificateError", error
        return str(error.code)


def chain(issued: Issued) -> list[str]:
    return der(issued.certificate, *issued.chain)


def test_an_injectors_certificates_lead_to_their_root(engine: Engine, authority: Authority) -> None:
    issued, root = authority.device(DEVICE), authority.root.certificate
    assert verify(engine, chain(issued), root) == DEVICE
    data = b"what the injector signed"
    signature = issued.key.sign(data, ec.ECDSA(hashes.SHA256()))
    asked: dict[str, Any] = {
        "chain": chain(issued), "roots": der(root), "now": NOW.isoformat(),
        "signature": signature.hex(),
    }  # fmt: skip
    assert engine.call("certificate", **asked, challenge=data.hex()) == DEVICE
    with pytest.raises(ThrownError, match="bad_signature"):
        engine.call("certificate", **asked, challenge=(data + b".").hex())


def test_another_root_or_another_day(engine: Engine, authority: Authority) -> None:
    issued, root = authority.device(DEVICE), authority.root.certificate
    assert verify(engine, chain(issued), Authority().root.certificate) == "not_from_root"
    assert verify(engine, chain(issued)[:1], root) == "not_from_root"
    assert verify(engine, [], root) == "unreadable"
    assert verify(engine, chain(issued) * 3, root) == "unreadable"
    end = issued.certificate.not_valid_after_utc
    assert verify(engine, chain(issued), root, end) == DEVICE
    assert verify(engine, chain(issued), root, end + dt.timedelta(seconds=1)) == "out_of_date"
    start = issued.certificate.not_valid_before_utc
    assert verify(engine, chain(issued), root, start - dt.timedelta(seconds=1)) == "out_of_date"


def test_no_bent_chain_is_believed(engine: Engine, authority: Authority) -> None:
    """A bit anywhere in either certificate, a byte more, a byte less."""
    issued, root, pick = authority.device(DEVICE), authority.root.certificate, random.Random(8)
    good = [bytes.fromhex(each) for each in chain(issued)]
    for _ in range(scaled(20_000, at_least=1000)):
        which = pick.randrange(2)
        bent = bytearray(good[which])
        match pick.randrange(8):
            case 0:
                del bent[pick.randrange(len(bent))]
            case 1:
                bent.insert(pick.randrange(len(bent) + 1), pick.randrange(256))
            case _:
                bent[pick.randrange(len(bent))] ^= 1 << pick.randrange(8)
        if bytes(bent) == good[which]:
            continue
        sent = [each.hex() for each in good]
        sent[which] = bytes(bent).hex()
        assert verify(engine, sent, root) != DEVICE


class Forge:
    """Certificates as no authority of ours makes them."""

    def __init__(self, authority: Authority) -> None:
        self.authority = authority
        self.key = ec.generate_private_key(ec.SECP256R1())

    def leaf(self, issuer: Issued | None = None, **changes: Any) -> list[str]:
        issuer = issuer or self.authority.intermediate
        names = changes.get("names", [DEVICE])
        parts = [x509.NameAttribute(NameOID.COMMON_NAME, name) for name in names]
        usage = changes.get("usage", {"digital_signature": True})
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name(parts))
            .issuer_name(issuer.certificate.subject)
            .public_key(changes.get("key", self.key).public_key())
            .serial_number(7)
            .not_valid_before(NOW - dt.timedelta(days=1))
            .not_valid_after(NOW + dt.timedelta(days=1))
        )
        everything = {
            "basic": (x509.BasicConstraints(ca=False, path_length=None), True),
            "usage": (_usage(**usage), True),
            "purpose": (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False),
            "names": (_uri(f"spiffe://patency/device/{DEVICE}"), False),
        } | changes.get("extensions", {})
        for each in everything.values():
            if each is not None:
                builder = builder.add_extension(each[0], critical=each[1])
        made = builder.sign(changes.get("signer", issuer.key), changes.get("hash", hashes.SHA256()))
        return der(made, issuer.certificate, *changes.get("above", ()))


def _usage(**on: bool) -> x509.KeyUsage:
    off = dict.fromkeys(
        ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
         "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
        False,
    )  # fmt: skip
    return x509.KeyUsage(**{**off, **on})


def _uri(text: str) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(text)])


_ODD = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")

FORGED: dict[str, tuple[dict[str, Any], str]] = {
    "as it should be": ({}, DEVICE),
    "what is odd but not critical": ({"extensions": {"odd": (_ODD, False)}}, DEVICE),
    "what is odd and critical": ({"extensions": {"odd": (_ODD, True)}}, "unreadable"),
    "no purpose": ({"extensions": {"purpose": None}}, "wrong_kind"),
    "for servers": (
        {"extensions": {"purpose": (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]),
                                    False)}},
        "wrong_kind",
    ),
    "signs nothing": ({"usage": {"key_agreement": True}}, "wrong_kind"),
    "an authority": (
        {"extensions": {"basic": (x509.BasicConstraints(ca=True, path_length=None), True)},
         "usage": {"digital_signature": True, "key_cert_sign": True}},
        "wrong_kind",
    ),
    "two names": ({"names": [DEVICE, "dev_Bravo-02"]}, "names_no_device"),
    "no name": ({"names": []}, "names_no_device"),
    "a name that is none": ({"names": ["a b"]}, "names_no_device"),
    "another name beside it": (
        {"extensions": {"names": (_uri("spiffe://patency/device/dev_Bravo-02"), False)}},
        "names_no_device",
    ),
    "no name beside it": ({"extensions": {"names": None}}, "names_no_device"),
    "an Ed25519 key": ({"key": ed25519.Ed25519PrivateKey.generate()}, "unreadable"),
    "a P-521 key": ({"key": ec.generate_private_key(ec.SECP521R1())}, "unreadable"),
    "a P-384 key": ({"key": ec.generate_private_key(ec.SECP384R1())}, DEVICE),
    "signed with SHA-384": ({"hash": hashes.SHA384()}, DEVICE),
    "signed with SHA-512": ({"hash": hashes.SHA512()}, "unreadable"),
    "signed by another key": ({"signer": ec.generate_private_key(ec.SECP256R1())}, "not_from_root"),
}  # fmt: skip


@pytest.mark.parametrize("case", FORGED)
def test_a_leaf_that_is(engine: Engine, authority: Authority, case: str) -> None:
    changes, expected = FORGED[case]
    made = Forge(authority).leaf(**changes)
    assert verify(engine, made, authority.root.certificate) == expected


def test_a_leaf_issues_nothing(engine: Engine, authority: Authority) -> None:
    """An injector that signs a certificate for another injector."""
    device = authority.device("dev_Bravo-02")
    made = Forge(authority).leaf(
        Issued(device.certificate, device.key), above=[authority.intermediate.certificate]
    )
    assert verify(engine, made, authority.root.certificate) == "not_from_root"


def test_no_authority_below_the_intermediate(engine: Engine, authority: Authority) -> None:
    """It may issue leaves alone: its path length is 0."""
    above, key = authority.intermediate, ec.generate_private_key(ec.SECP256R1())
    assert (
        above.certificate.extensions.get_extension_for_class(
            x509.BasicConstraints
        ).value.path_length
        == 0
    )
    below = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "one more")]))
        .issuer_name(above.certificate.subject).public_key(key.public_key()).serial_number(9)
        .not_valid_before(NOW - dt.timedelta(days=1)).not_valid_after(NOW + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_usage(key_cert_sign=True), critical=True)
        .sign(above.key, hashes.SHA256())
    )  # fmt: skip
    made = Forge(authority).leaf(Issued(below, key), above=[above.certificate])
    assert verify(engine, made, authority.root.certificate) == "not_from_root"
