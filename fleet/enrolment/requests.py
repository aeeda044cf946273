"""Signing requests: their key, proved to be held, and nothing else of them."""

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from django.utils.translation import gettext as _

from fleet.core.errors import Invalid


def read_pem(pem: str) -> ec.EllipticCurvePublicKey:
    """The public key of a PKCS #10 request, whose holder has proved to have the private one.

    Whatever else the request asks for (name, CA, other names) is not looked at. Raises Invalid.
    """
    try:
        request = x509.load_pem_x509_csr(pem.encode())
    except Exception as error:  # the parser's errors are many, and all mean the same here
        raise _unreadable() from error
    return _proved(request)


def read_der(der: bytes) -> ec.EllipticCurvePublicKey:
    """The same from DER, as it comes over the wire. Raises Invalid."""
    try:
        request = x509.load_der_x509_csr(der)
    except Exception as error:
        raise _unreadable() from error
    return _proved(request)


def _proved(request: x509.CertificateSigningRequest) -> ec.EllipticCurvePublicKey:
    try:
        key = request.public_key()
        proved = request.is_signature_valid
    except Exception as error:
        raise _unreadable() from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
        raise Invalid(_("The key must be P-256. Make a new one and ask again."))
    if not proved:
        raise Invalid(_("The signing request is not signed by its own key. Make it again."))
    return key


def _unreadable() -> Invalid:
    return Invalid(_("The signing request cannot be read. Send a PKCS #10 request in PEM."))
