"""Whether to believe a challenge. Pure: the caller brings bytes, anchors and the time.

Everything here comes through the portal, which is not trusted for it. The rules, in order:

1. the leaf's key signed the exact bytes of the challenge;
2. the certificates are in date and lead to the device root, which the client has out of band;
3. the leaf's common name is the device in the challenge, and the device that was asked for;
4. the challenge's `request` is the digest of the request's exact bytes;
5. the fields of that request, and the terms of the challenge, are what the specialist asked for.
"""

import hashlib
from collections.abc import Sequence
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from agent.wire import challenge, messages
from agent.wire.challenge import Terms
from fleet.client.errors import NotBelieved
from fleet.client.i18n import _
from fleet.client.profile import Asked


def _no(what: str) -> NotBelieved:
    advice = _("Nothing was signed. Report this to cybersecurity support before you try again.")
    return NotBelieved(f"{what} {advice}")


def _device_of(leaf: x509.Certificate) -> str:
    names = leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if len(names) != 1:
        raise _no(_("The injector's certificate names no injector."))
    return str(names[0].value)


def read_certificates(
    certificates: Sequence[bytes], roots: Sequence[x509.Certificate], now: datetime
) -> x509.Certificate:
    """The leaf, when its chain leads to one of the roots. Raises NotBelieved."""
    try:
        leaf, *others = [x509.load_der_x509_certificate(der) for der in certificates]
    except ValueError:
        raise _no(_("The injector's certificates cannot be read.")) from None
    verifier = PolicyBuilder().store(Store(list(roots))).time(now).build_client_verifier()
    try:
        verifier.verify(leaf, others)
    except VerificationError as error:
        raise _no(
            _(
                "The injector's certificate does not lead to your device root, or is out of date "
                "({error})."
            ).format(error=error)
        ) from error
    return leaf


def read_request(payload: bytes) -> messages.AccessRequest:
    """Raises NotBelieved."""
    try:
        request = messages.decode_down("access-request", 1, payload)
    except messages.MessageError as error:
        raise _no(_("The portal's request cannot be read: {error}.").format(error=error)) from None
    if not isinstance(request, messages.AccessRequest):
        raise TypeError("the wire's schema of access-request is another one")
    return request


def asked_in(request: messages.AccessRequest, serial: str) -> Asked:
    """A request's fields as something to compare with, or to show a person."""
    return Asked(
        device=request.device,
        serial=serial,
        specialist=request.specialist,
        level=request.level.value,
        services=request.services,
        reason=request.reason.value,
        ticket=request.ticket,
        note=request.note,
        life_s=request.life_s,
    )


def verify(
    *,
    data: bytes,
    signature: bytes,
    certificates: Sequence[bytes],
    request: bytes,
    session: str,
    asked: Asked,
    roots: Sequence[x509.Certificate],
    now: datetime,
) -> Terms:
    """The terms, when every rule above holds. Raises NotBelieved, which names the rule broken."""
    leaf = read_certificates(certificates, roots, now)
    key = leaf.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise _no(_("The injector's certificate has a key of the wrong kind."))
    try:
        key.verify(signature, data, ec.ECDSA(SHA256()))
    except InvalidSignature:
        raise _no(_("The challenge is not signed by the injector.")) from None
    try:
        terms = challenge.decode(data)
    except challenge.ChallengeError:
        raise _no(_("The challenge is not in the form that this program knows.")) from None
    if not _device_of(leaf) == terms.device == asked.device:
        raise _no(_("The challenge is from another injector than the one you asked for."))
    if terms.session != session:
        raise _no(_("The challenge is for another session."))
    if terms.request != hashlib.sha256(request).hexdigest():
        raise _no(_("The injector received another request than the portal shows."))
    sent = read_request(request)
    if sent.session != session or asked_in(sent, asked.serial) != asked:
        raise _no(_("The portal sent the injector another request than you made."))
    granted = (terms.specialist, terms.level.value, terms.services, terms.life_s)
    if granted != (asked.specialist, asked.level, asked.services, asked.life_s):
        raise _no(_("The challenge has other terms than you asked for."))
    return terms
