"""Audit chains: one per organisation here, a chain of heads over all, and what devices sent."""

from django.db import models


class Entry(models.Model):
    """One link of an organisation's chain. `entry` is what is hashed; the rest is for finding."""

    organisation = models.ForeignKey(
        "accounts.Organisation", on_delete=models.PROTECT, related_name="audit_entries"
    )
    index = models.PositiveBigIntegerField()
    entry = models.JSONField()
    hash = models.CharField(max_length=64)
    previous = models.CharField(max_length=64)
    at = models.DateTimeField(db_index=True)
    action = models.CharField(max_length=64)
    session = models.CharField(max_length=32, blank=True, db_index=True)
    execution = models.CharField(max_length=32, blank=True, db_index=True)
    device = models.CharField(max_length=64, blank=True, db_index=True)

    class Meta:
        ordering = ["organisation", "index"]
        constraints = [
            models.UniqueConstraint(fields=["organisation", "index"], name="audit_index_unique")
        ]

    def __str__(self) -> str:
        return f"{self.organisation_id} {self.index}"


class HeadLink(models.Model):
    """The chain of heads: a link per entry of any organisation, so none can be rewritten alone."""

    index = models.PositiveBigIntegerField(primary_key=True)
    entry = models.JSONField()  # chain, chain_index, chain_hash, at, previous, index, hash
    hash = models.CharField(max_length=64)

    class Meta:
        ordering = ["index"]

    def __str__(self) -> str:
        return str(self.index)


class DeviceEntry(models.Model):
    """One link of a device's own chain, as it sent it."""

    device = models.ForeignKey(
        "inventory.Device", on_delete=models.CASCADE, related_name="audit_entries"
    )
    # The owner of its moment; None when nobody can tell (fleet.inventory.placing).
    organisation = models.ForeignKey(
        "accounts.Organisation", on_delete=models.PROTECT, null=True, blank=True
    )
    index = models.PositiveBigIntegerField()
    entry = models.JSONField()
    hash = models.CharField(max_length=64)
    at = models.DateTimeField()  # by the device's clock
    received_at = models.DateTimeField()
    action = models.CharField(max_length=64)
    session = models.CharField(max_length=32, blank=True, db_index=True)
    execution = models.CharField(max_length=32, blank=True, db_index=True)

    class Meta:
        ordering = ["device", "index"]
        constraints = [
            models.UniqueConstraint(fields=["device", "index"], name="device_audit_index_unique")
        ]

    def __str__(self) -> str:
        return f"{self.device_id} {self.index}"


class DeviceHead(models.Model):
    """A head that a device signed: proof of what its chain was when it said so."""

    device = models.ForeignKey(
        "inventory.Device", on_delete=models.CASCADE, related_name="audit_heads"
    )
    index = models.PositiveBigIntegerField()
    hash = models.CharField(max_length=64)
    at = models.DateTimeField()
    signature = models.BinaryField(max_length=64)
    received_at = models.DateTimeField()

    class Meta:
        ordering = ["device", "index"]
        constraints = [
            models.UniqueConstraint(fields=["device", "index", "hash"], name="device_head_unique")
        ]

    def __str__(self) -> str:
        return f"{self.device_id} {self.index}"
