"""Claims, which are used once, and the credentials that come of them."""

from django.conf import settings
from django.db import models


class Claim(models.Model):
    """A one-time right to enrol one serial of one product line. Only its digest is kept."""

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


class Credential(models.Model):
    """A certificate that was issued to a device."""

    device = models.ForeignKey(
        "inventory.Device", on_delete=models.CASCADE, related_name="credentials"
    )
    serial_number = models.CharField(max_length=40, unique=True)  # hex
    public_key = models.CharField(max_length=64)  # SHA-256 of the SubjectPublicKeyInfo, hex
    certificate = models.BinaryField()  # DER
    not_before_at = models.DateTimeField()
    not_after_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField()

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return self.serial_number
