"""A certificate authority in memory: what the portal's CA makes, and what it never would.

authority = Authority()
device = authority.device("device-0001")          # leaf, key, chain
paths = authority.write(tmp_path)                  # PEM files for a gate
context = device.client_context(authority)         # ssl.SSLContext that a device would use
"""

import datetime as dt
import ipaddress
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SPIFFE = "spiffe://patency/device/"
MINUTE = dt.timedelta(minutes=1)
DAY = dt.timedelta(days=1)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _pem_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


@dataclass(frozen=True)
class Issued:
    """A certificate with its key and the intermediates behind it."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    chain: tuple[x509.Certificate, ...] = ()

    @property
    def chain_pem(self) -> bytes:
        return b"".join(_pem(each) for each in (self.certificate, *self.chain))

    @property
    def key_pem(self) -> bytes:
        return _pem_key(self.key)

    def load(self, context: ssl.SSLContext) -> None:
        """Load into a context; OpenSSL takes files only."""
        with tempfile.TemporaryDirectory() as folder:
            chain, key = Path(folder, "chain.pem"), Path(folder, "key.pem")
            chain.write_bytes(self.chain_pem)
            key.write_bytes(self.key_pem)
            context.load_cert_chain(chain, key)

    def write_key(self, path: Path) -> None:
        """Write the key as PEM that nobody else may read."""
        path.touch(mode=0o600)
        path.write_bytes(self.key_pem)

    def write(self, folder: Path, name: str) -> tuple[Path, Path]:
        """Write chain and key as PEM. Returns their paths."""
        chain, key = folder / f"{name}.pem", folder / f"{name}.key"
        chain.write_bytes(self.chain_pem)
        key.write_bytes(self.key_pem)
        key.chmod(0o600)
        return chain, key


@dataclass(frozen=True)
class Files:
    """What a gate is configured with."""

    server_chain: Path
    server_key: Path
    server_ca: Path
    device_root: Path
    device_intermediate: Path

    @property
    def device_ca(self) -> tuple[Path, ...]:
        return (self.device_root, self.device_intermediate)


class Authority:
    """Device root, device intermediate, server CA, server certificate; all P-256."""

    def __init__(self, name: str = "test") -> None:
        self.root = _ca(f"{name} device root", None)
        self.intermediate = _ca(f"{name} device intermediate", self.root)
        self.server_ca = _ca(f"{name} server CA", None)
        self.server = self._server()

    def _server(self) -> Issued:
        return self.server_at(-5 * MINUTE)

    def server_at(self, starts: dt.timedelta) -> Issued:
        """A server certificate of this authority whose 30 days begin so long from now."""
        names = x509.SubjectAlternativeName(
            [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        )
        return _issue(
            _name("localhost"),
            names,
            ExtendedKeyUsageOID.SERVER_AUTH,
            self.server_ca,
            chain=(),
            starts=starts,
        )

    def device(
        self,
        device: str,
        *,
        san: str | None = None,
        life: dt.timedelta = 30 * DAY,
        starts: dt.timedelta = -5 * MINUTE,
    ) -> Issued:
        """A leaf as the portal issues it; `san` names somebody else, `life` may be over."""
        names = x509.SubjectAlternativeName(
            [x509.UniformResourceIdentifier(san if san is not None else SPIFFE + device)]
        )
        return _issue(
            _name(device),
            names,
            ExtendedKeyUsageOID.CLIENT_AUTH,
            self.intermediate,
            chain=(self.intermediate.certificate,),
            starts=starts,
            life=life,
        )

    def write(self, folder: Path) -> Files:
        """PEM files for a gate's options."""
        chain, key = self.server.write(folder, "server")
        files = Files(
            chain,
            key,
            folder / "server-ca.pem",
            folder / "device-root.pem",
            folder / "device-intermediate.pem",
        )
        files.server_ca.write_bytes(_pem(self.server_ca.certificate))
        files.device_root.write_bytes(_pem(self.root.certificate))
        files.device_intermediate.write_bytes(_pem(self.intermediate.certificate))
        return files

    def client_context(
        self, identity: Issued | None, *, alpn: tuple[str, ...] = ("mqtt",)
    ) -> ssl.SSLContext:
        """What an agent uses: trusts the server CA alone, shows `identity`, offers `alpn`."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_verify_locations(cadata=_pem(self.server_ca.certificate).decode())
        if alpn:
            context.set_alpn_protocols(list(alpn))
        if identity is not None:
            identity.load(context)
        return context


class LinkAuthority:
    """The authority of the portal's links, as the portal makes it."""

    def __init__(self) -> None:
        self.ca = _ca("test link CA", None)

    def server(self, name: str) -> Issued:
        """What the access server `name` shows to the portal."""
        return self._leaf(
            name, f"spiffe://patency/access-server/{name}", ExtendedKeyUsageOID.SERVER_AUTH
        )

    def portal(self, *, san: str = "spiffe://patency/portal") -> Issued:
        return self._leaf("portal", san, ExtendedKeyUsageOID.CLIENT_AUTH)

    def _leaf(self, name: str, san: str, purpose: x509.ObjectIdentifier) -> Issued:
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(san)])
        return _issue(_name(name), names, purpose, self.ca, chain=())

    def write(self, folder: Path) -> Path:
        path = folder / "link-ca.pem"
        path.write_bytes(_pem(self.ca.certificate))
        return path


def _ca(name: str, issuer: Issued | None) -> Issued:
    key = ec.generate_private_key(ec.SECP256R1())
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(issuer.certificate.subject if issuer else _name(name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 30 * DAY)
        .not_valid_after(now + 365 * DAY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0 if issuer else 1), True)
        .add_extension(_usage(ca=True), True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
    )
    if issuer is not None:
        builder = builder.add_extension(_authority(issuer), False)
    signer = issuer.key if issuer else key
    return Issued(builder.sign(signer, hashes.SHA256()), key)


def _issue(
    subject: x509.Name,
    names: x509.SubjectAlternativeName,
    purpose: x509.ObjectIdentifier,
    issuer: Issued,
    *,
    chain: tuple[x509.Certificate, ...],
    starts: dt.timedelta = -5 * MINUTE,
    life: dt.timedelta = 30 * DAY,
) -> Issued:
    key = ec.generate_private_key(ec.SECP256R1())
    begins = dt.datetime.now(dt.UTC) + starts
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + life)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        .add_extension(_usage(ca=False), True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), False)
        .add_extension(names, False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .add_extension(_authority(issuer), False)
        .sign(issuer.key, hashes.SHA256())
    )
    return Issued(certificate, key, chain)


def _authority(issuer: Issued) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )
