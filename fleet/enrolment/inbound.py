"""What devices say of their credentials (R-CON-6, R-CON-8)."""

from collections.abc import Iterable
from datetime import datetime

from cryptography.hazmat.primitives.serialization import Encoding

from agent.wire.catalogue import RefusalReason
from agent.wire.messages import Certificate, Hello, Message, Renewal
from fleet.core import ports
from fleet.core.errors import Invalid, MessageRefused
from fleet.enrolment import alarms, credentials, requests
from fleet.enrolment.clones import Boots
from fleet.enrolment.models import AlarmKind, Credential, Issued
from fleet.inventory.models import Device

REFUSED = "credential:renew"  # the audit's name of a renewal that was turned down
MOST_UNUSED = 4  # certificates for keys that a device has asked for and never shown


_boots = Boots()


def hello(device: Device, message: Hello, received_at: datetime) -> None:
    """Notice a boot that cannot be this machine's."""
    if _boots.heard(device.pk, message.boot):
        alarms.sound(device, AlarmKind.CLONED, now=received_at)


def renewal(device: Device, message: Renewal, received_at: datetime) -> None:
    """Certify the device's next key: name, life and powers are ours to say, whatever the request
    asks for. The same key gets the same certificate again. Raises MessageRefused."""
    try:
        key = requests.read_der(message.csr)
    except Invalid:
        raise MessageRefused(RefusalReason.MALFORMED, alarm=REFUSED) from None
    fingerprint = credentials.fingerprint(key)
    held = Credential.objects.filter(public_key=fingerprint).first()
    if held is None:
        unused = Credential.objects.filter(
            device=device, used_at=None, revoked_at=None, not_after_at__gt=received_at
        )
        if unused.count() >= MOST_UNUSED:
            raise MessageRefused(RefusalReason.ILLEGAL_TRANSITION, alarm=REFUSED)
        held = credentials.issue(device, key, issued=Issued.RENEWAL, now=received_at)
    elif held.device_id != device.pk:
        raise MessageRefused(RefusalReason.KEY_CONFLICT, alarm=REFUSED)
    elif _over(held, received_at):
        raise MessageRefused(RefusalReason.ILLEGAL_TRANSITION, alarm=REFUSED)
    ports.send_down(device.pk, _message(held))


def _over(credential: Credential, now: datetime) -> bool:
    over = credential.revoked_at is not None or credential.superseded_at is not None
    return over or credential.not_after_at <= now


def _message(credential: Credential) -> Certificate:
    return Certificate(
        certificates=[each.public_bytes(Encoding.DER) for each in credentials.chain(credential)]
    )


def pending(device: Device) -> Iterable[Message]:
    """The newest certificate that the device asked for and has not shown yet."""
    newest = credentials.current(device)
    if newest is not None and newest.issued == Issued.RENEWAL and newest.used_at is None:
        return [_message(newest)]
    return []
