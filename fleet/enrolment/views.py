"""POST /enrol/v1: a device's first contact, over the listener whose certificate it has pinned."""

import logging
from typing import Annotated, Literal

import msgspec
from django.http import HttpRequest, JsonResponse
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from agent.wire.catalogue import ProductLineCode
from agent.wire.messages import Key32
from fleet.core import clock
from fleet.core.errors import Invalid, PortalError, TooMany
from fleet.enrolment import limits, selectors, services

MAX_BODY = 16 * 1024  # bytes

log = logging.getLogger(__name__)


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a device sends; a closed schema like those of the wire."""

    v: Literal[1]
    claim: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]{8,256}$")]
    serial: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
    product_line: ProductLineCode
    csr: Annotated[str, msgspec.Meta(min_length=64, max_length=8192)]
    audit_key: Key32


_decoder = msgspec.json.Decoder(Request)


@csrf_exempt  # no cookie is looked at: the claim is the authority
@never_cache
@require_POST
def enrol(request: HttpRequest) -> JsonResponse:
    address = str(request.META.get("REMOTE_ADDR", ""))
    try:
        if not limits.enrolments.take(address):
            raise TooMany(
                _("Too many enrolments from this address. Wait a minute, then try again.")
            )
        asked = _read(request)
        granted = services.enrol(
            claim=asked.claim,
            serial=asked.serial,
            product_line=asked.product_line.value,
            csr=asked.csr,
            audit_key=asked.audit_key,
            now=clock.now(),
        )
    except PortalError as error:
        return _refuse(error, address)
    return JsonResponse(
        {
            "v": 1,
            "device": granted.device.pk,
            "certificates": list(granted.certificates),
            "access_servers": selectors.access_servers(),
        }
    )


def _read(request: HttpRequest) -> Request:
    if int(request.headers.get("Content-Length") or 0) > MAX_BODY:
        raise Invalid(_("The request is too long: at most %(most)d bytes.") % {"most": MAX_BODY})
    body = request.read(MAX_BODY + 1)
    if len(body) > MAX_BODY:
        raise Invalid(_("The request is too long: at most %(most)d bytes.") % {"most": MAX_BODY})
    try:
        return _decoder.decode(body)
    except (
        msgspec.DecodeError,
        msgspec.ValidationError,
        UnicodeDecodeError,
        RecursionError,
    ) as error:
        raise Invalid(
            _("The request cannot be read. Send JSON as docs/protocol.md describes it.")
        ) from error


def _refuse(error: PortalError, address: str) -> JsonResponse:
    log.warning("enrolment from %s refused: %s", address, error.code)
    if not isinstance(error, TooMany) and not limits.failures.take(address):
        error = TooMany(_("Too many failed enrolments from this address. Wait, then try again."))
    return JsonResponse({"error": error.code, "detail": error.message}, status=error.status)
