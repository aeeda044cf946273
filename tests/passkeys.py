"""A passkey in software: what a browser and its authenticator answer to the portal's options.

    key = Passkey(origin="http://testserver")
    key.make(options["publicKey"]), key.use(options["publicKey"])

Its mistakes are attributes: another origin, no user verification, another key.
"""

import hashlib
import json
import os
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.hashes import SHA256
from fido2 import cbor
from fido2.cose import ES256
from fido2.utils import websafe_decode, websafe_encode

PRESENT, VERIFIED, ATTESTED = 0x01, 0x04, 0x40


def _private() -> EllipticCurvePrivateKey:
    return generate_private_key(SECP256R1())


@dataclass
class Passkey:
    origin: str
    verified: bool = True
    key: EllipticCurvePrivateKey = field(default_factory=_private)
    id: bytes = field(default_factory=lambda: os.urandom(16))
    user: bytes = b""

    def make(self, asked: dict[str, Any]) -> dict[str, Any]:
        """As `navigator.credentials.create`."""
        self.user = websafe_decode(asked["user"]["id"])
        public = cbor.encode(dict(ES256.from_cryptography_key(self.key.public_key())))
        attested = bytes(16) + len(self.id).to_bytes(2, "big") + self.id + public
        data = self._authenticator_data(asked["rp"]["id"], ATTESTED) + attested
        attestation = cbor.encode({"fmt": "none", "attStmt": {}, "authData": data})
        return self._credential(
            {
                "clientDataJSON": self._client_data("webauthn.create", asked),
                "attestationObject": attestation,
            }
        ) | {"clientExtensionResults": {"credProps": {"rk": True}}}

    def use(self, asked: dict[str, Any]) -> dict[str, Any]:
        """As `navigator.credentials.get`."""
        client = self._client_data("webauthn.get", asked)
        data = self._authenticator_data(asked["rpId"], 0)
        signed = self.key.sign(data + hashlib.sha256(client).digest(), ECDSA(SHA256()))
        return self._credential(
            {
                "clientDataJSON": client,
                "authenticatorData": data,
                "signature": signed,
                "userHandle": self.user,
            }
        )

    def _client_data(self, kind: str, asked: dict[str, Any]) -> bytes:
        said = {"type": kind, "challenge": asked["challenge"], "origin": self.origin}
        return json.dumps(said).encode()

    def _authenticator_data(self, rp: str, flags: int) -> bytes:
        flags |= PRESENT | (VERIFIED if self.verified else 0)
        return hashlib.sha256(rp.encode()).digest() + bytes([flags]) + bytes(4)

    def _credential(self, response: dict[str, bytes]) -> dict[str, Any]:
        return {
            "type": "public-key",
            "id": websafe_encode(self.id),
            "rawId": websafe_encode(self.id),
            "response": {name: websafe_encode(value) for name, value in response.items()},
            "clientExtensionResults": {},
        }
