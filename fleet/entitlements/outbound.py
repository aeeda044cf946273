"""What an injector is told of its entitlement: when it says hello, and when a newer one comes."""

import hashlib
from collections.abc import Iterable, Iterator

from agent.wire import messages
from agent.wire.messages import EntitlementUpdate, Message
from fleet.entitlements import selectors
from fleet.entitlements.models import Entitlement
from fleet.inventory.models import Device


def pending(device: Device) -> Iterator[Message]:
    """The newest, if the device has an older one."""
    found = selectors.newest(device)
    if found is not None and found.version > device.entitlement_version:
        yield message(found)


def message(row: Entitlement) -> EntitlementUpdate:
    return EntitlementUpdate(entitlement=bytes(row.entitlement), signature=bytes(row.signature))


def digest(row: Entitlement) -> str:
    """SHA-256 (hex) of the payload, as the device sees it."""
    return hashlib.sha256(messages.encode(message(row))).hexdigest()


def digest_of(documents: Iterable[bytes]) -> str:
    """SHA-256 (hex) of the documents' own digests, in their order."""
    return hashlib.sha256(b"".join(hashlib.sha256(it).digest() for it in documents)).hexdigest()
