"""Claims, which are used once, the credentials that come of them, and what is wrong with those."""

from django.conf import settings
from django.db import models
from django.utils.translation import gettext_lazy as _


class Claim(models.Model):
    """A one-time right to enrol one serial of one product line. Only its digest is kept.

    With a device before it is used, it is for that very device to come back with another key."""

    digest = models.CharField(max_length=64, unique=True)  # SHA-256 of the claim, hex
    serial = models.CharField(max_length=32)
    product_line = models.ForeignKey("inventory.ProductLine", on_delete=models.PROTECT)
    site = models.ForeignKey("inventory.Site", on_delete=models.PROTECT)
    organisation = models.ForeignKey("accounts.Organisation", on_delete=models.PROTECT)
    asset_number = models.CharField(max_length=32, blank=True)
    room = models.CharField(max_length=32, blank=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True
    )
    created_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True, blank=True)
    used_at = models.DateTimeField(null=True, blank=True)
    device = models.ForeignKey(
        "inventory.Device", on_delete=models.PROTECT, null=True, blank=True, related_name="claims"
    )
    public_key = models.CharField(max_length=64, blank=True)  # SHA-256 of the key it was used with

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"{self.product_line_id} {self.serial}"


class Issued(models.TextChoices):
    """How a credential came to be."""

    ENROLMENT = "enrolment", _("at enrolment")
    RENEWAL = "renewal", _("by renewal")
    RETURN = "return", _("on coming back")


class Revoked(models.TextChoices):
    """Why a credential was revoked."""

    BY_HAND = "by_hand", _("revoked by an administrator")
    MOVED = "moved", _("moved to another site")
    TRANSFERRED = "transferred", _("transferred to another organisation")
    RETIRED = "retired", _("retired")
    REPLACED = "replaced", _("enrolled again with another key")


class Credential(models.Model):
    """A certificate that was issued to a device.

    It lets the device in until it ends, is revoked, or is superseded by a newer one that was used.
    """

    device = models.ForeignKey(
        "inventory.Device", on_delete=models.CASCADE, related_name="credentials"
    )
    serial_number = models.CharField(max_length=40, unique=True)  # hex
    public_key = models.CharField(max_length=64)  # SHA-256 of the SubjectPublicKeyInfo, hex
    certificate = models.BinaryField()  # DER
    not_before_at = models.DateTimeField()
    not_after_at = models.DateTimeField()
    issued = models.CharField(max_length=16, choices=Issued.choices, default=Issued.ENROLMENT)
    used_at = models.DateTimeField(null=True, blank=True)  # first connection with it
    superseded_at = models.DateTimeField(null=True, blank=True, db_index=True)
    revoked_at = models.DateTimeField(null=True, blank=True, db_index=True)
    revoked_because = models.CharField(max_length=16, choices=Revoked.choices, blank=True)
    created_at = models.DateTimeField()

    class Meta:
        ordering = ["-created_at", "-pk"]

    def __str__(self) -> str:
        return self.serial_number


class AlarmKind(models.TextChoices):
    CLONED = "cloned", _("The same credential is in use in two places")
    SUPERSEDED = "superseded", _("A certificate was shown that had been renewed already")
    CLAIM = "claim", _("Somebody else showed this injector’s claim")
    UNKNOWN = "unknown", _("A certificate was shown of which this portal has no record")


class Alarm(models.Model):
    """Something is wrong with a device's credential; stands until a person has seen to it."""

    device = models.ForeignKey(
        "inventory.Device", on_delete=models.CASCADE, related_name="credential_alarms"
    )
    organisation = models.ForeignKey("accounts.Organisation", on_delete=models.PROTECT)
    kind = models.CharField(max_length=16, choices=AlarmKind.choices)
    raised_at = models.DateTimeField()
    closed_at = models.DateTimeField(null=True, blank=True)
    closed_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True
    )

    class Meta:
        ordering = ["-raised_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["device", "kind"],
                condition=models.Q(closed_at__isnull=True),
                name="alarm_once_while_open",
            )
        ]

    def __str__(self) -> str:
        return f"{self.device_id} {self.kind}"
