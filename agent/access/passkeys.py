"""Whether an access passkey signed this (R-ACC-4). Pure.

An access passkey belongs to the access origin, an anchor of the provisioning bundle: a page that
the portal serves, or any other, cannot use it, since the browser writes its origin into what is
signed. The authenticator must have verified its user. A counter that does not go up means that
there are two of this passkey.

Source: W3C Web Authentication Level 3, section 7.2; the checks are python-fido2's.
"""

from urllib.parse import urlsplit

from fido2 import cbor
from fido2.cose import CoseKey
from fido2.server import Fido2Server
from fido2.utils import websafe_encode
from fido2.webauthn import (
    AttestedCredentialData,
    AuthenticationResponse,
    AuthenticatorAssertionResponse,
    AuthenticatorData,
    CollectedClientData,
    PublicKeyCredentialRpEntity,
    UserVerificationRequirement,
)

from agent.wire.downward import PasskeyProof
from agent.wire.roster import Passkey

_NO_AAGUID = bytes(16)


class PasskeyError(ValueError):
    """Not signed by this passkey, at this origin, by a verified user."""


def verify(
    proof: PasskeyProof, passkey: Passkey, *, origin: str, challenge: bytes, counter: int
) -> int:
    """The counter of this use. `counter` is that of the last one, 0 when there was none.

    Raises PasskeyError.
    """
    try:
        data = AuthenticatorData(proof.authenticator_data)
        client = CollectedClientData(proof.client_data)
        if client.cross_origin:
            raise PasskeyError("the page that asked was inside another page")
        server = Fido2Server(
            PublicKeyCredentialRpEntity(id=urlsplit(origin).hostname or "", name="Patency"),
            verify_origin=lambda given: given == origin,
        )
        server.authenticate_complete(
            {
                "challenge": websafe_encode(challenge),
                "user_verification": UserVerificationRequirement.REQUIRED,
            },
            [_credential(passkey)],
            AuthenticationResponse(
                raw_id=proof.id,
                response=AuthenticatorAssertionResponse(
                    client_data=client, authenticator_data=data, signature=proof.signature
                ),
            ),
        )
    except PasskeyError:
        raise
    except Exception as error:  # whatever a library makes of bytes that anyone may have written
        raise PasskeyError(str(error) or type(error).__name__) from None
    if (data.counter or counter) and data.counter <= counter:
        raise PasskeyError("its counter did not go up: there may be two of this passkey")
    return data.counter


def _credential(passkey: Passkey) -> AttestedCredentialData:
    key = CoseKey.parse(_cose(passkey.key))
    return AttestedCredentialData.create(_NO_AAGUID, passkey.id, key)


def _cose(key: bytes) -> dict[int, object]:
    decoded = cbor.decode(key)
    if not isinstance(decoded, dict) or decoded.get(3) not in (-7, -8):
        raise PasskeyError("a passkey's key must be ES256 or EdDSA")
    return {int(k): v for k, v in decoded.items()}
