"""What an enrolled device is told, and what a bundle holds."""

import base64
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from django.conf import settings
from django.utils.translation import gettext as _

from fleet.audit import keys as audit_keys
from fleet.core import clock
from fleet.core.addresses import Address
from fleet.core.errors import Conflict
from fleet.enrolment import ca
from fleet.servers import selectors as servers


def address(where: Address) -> dict[str, Any]:
    """As {"host", "port"}."""
    return {"host": where.host, "port": where.port}


def access_servers() -> list[dict[str, Any]]:
    """Where devices connect, in order of preference."""
    return [address(each) for each in servers.for_devices(clock.now().date())]


def provisioning_bundle(
    *, serial: str, product_line: str, claim: str, trust_key: bytes
) -> dict[str, Any]:
    """The content of provision.json, version 1. `trust_key` is the raw Ed25519 key that signs the
    roster. Raises Conflict before `ca init`."""
    audit_key = audit_keys.server_public_key()
    if audit_key is None:
        raise Conflict(
            _("There are no certificate authorities yet. Make them with: manage.py ca init")
        )
    return {
        "v": 1,
        "serial": serial,
        "product_line": product_line,
        "claim": claim,
        "enrol": address(servers.public_address()),
        "anchors": {
            "server_ca": ca.pem("server-ca"),
            "device_root": ca.pem("device-root"),
            "trust_key": base64.b64encode(trust_key).decode(),
            "server_audit_key": base64.b64encode(
                audit_key.public_bytes(Encoding.Raw, PublicFormat.Raw)
            ).decode(),
            **access_origin(),
        },
    }


def access_origin() -> dict[str, str]:
    """The anchor of the browser client's origin, where there is one."""
    origin = settings.PATENCY_ACCESS_ORIGIN
    return {"access_origin": origin} if origin else {}
