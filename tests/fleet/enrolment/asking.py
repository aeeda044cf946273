"""What a device sends to /enrol/v1."""

import base64
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding


class Applicant:
    """An injector with its keys and a claim."""

    def __init__(self, claim: str, serial: str = "SN-NEW", product_line: str = "ct-dual") -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.audit_key = Ed25519PrivateKey.generate()
        self.claim = claim
        self.serial = serial
        self.product_line = product_line

    def body(self, **changes: Any) -> dict[str, Any]:
        return {
            "v": 1,
            "claim": self.claim,
            "serial": self.serial,
            "product_line": self.product_line,
            "csr": pem(self.builder().sign(self.key, SHA256())),
            "audit_key": base64.b64encode(self.audit_key.public_key().public_bytes_raw()).decode(),
            **changes,
        }

    @staticmethod
    def builder(name: str = "") -> x509.CertificateSigningRequestBuilder:
        names = [x509.NameAttribute(x509.NameOID.COMMON_NAME, name)] if name else []
        return x509.CertificateSigningRequestBuilder().subject_name(x509.Name(names))


def pem(request: x509.CertificateSigningRequest) -> str:
    return request.public_bytes(Encoding.PEM).decode()
