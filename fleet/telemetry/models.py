"""What devices report: samples, events, and the conditions that stand now."""

from django.db import models


class Sample(models.Model):
    """Metrics of one device at one time; the keys of `values` are catalogue metrics with units."""

    device = models.ForeignKey("inventory.Device", on_delete=models.CASCADE, related_name="samples")
    # The owner of its moment; None when nobody can tell (fleet.inventory.placing).
    organisation = models.ForeignKey(
        "accounts.Organisation", on_delete=models.PROTECT, null=True, blank=True
    )
    at = models.DateTimeField()  # by the device's clock
    received_at = models.DateTimeField(db_index=True)
    state = models.CharField(max_length=16)
    values = models.JSONField()

    class Meta:
        ordering = ["at"]
        indexes = [models.Index(fields=["device", "at"])]

    def __str__(self) -> str:
        return f"{self.device_id} {self.at:%Y-%m-%d %H:%M:%S}"


class Event(models.Model):
    """A discrete fact with a code, exactly once."""

    # Neither has an index of its own: those below begin with them, and each costs every event of a
    # storm.
    device = models.ForeignKey(
        "inventory.Device", on_delete=models.CASCADE, related_name="events", db_index=False
    )
    # The owner of its moment; None when nobody can tell (fleet.inventory.placing).
    organisation = models.ForeignKey(
        "accounts.Organisation", on_delete=models.PROTECT, null=True, blank=True, db_index=False
    )
    code = models.PositiveSmallIntegerField()
    priority = models.CharField(max_length=4)  # H, M, L, info
    phase = models.CharField(max_length=8)  # raised, cleared
    syringe = models.CharField(max_length=1, blank=True)
    value = models.FloatField(null=True, blank=True)
    at = models.DateTimeField()  # by the device's clock
    received_at = models.DateTimeField()
    outbox = models.CharField(max_length=32)
    seq = models.PositiveBigIntegerField()

    class Meta:
        ordering = ["-received_at", "-seq"]
        constraints = [
            models.UniqueConstraint(fields=["device", "outbox", "seq"], name="event_key_unique")
        ]
        indexes = [
            models.Index(fields=["device", "-received_at"]),
            models.Index(fields=["organisation", "-received_at"]),
        ]

    def __str__(self) -> str:
        return f"{self.device_id} {self.code} {self.phase}"


class Condition(models.Model):
    """An event that was raised and not cleared: something is wrong now."""

    device = models.ForeignKey(
        "inventory.Device", on_delete=models.CASCADE, related_name="conditions"
    )
    organisation = models.ForeignKey("accounts.Organisation", on_delete=models.PROTECT)
    code = models.PositiveSmallIntegerField()
    syringe = models.CharField(max_length=1, blank=True)
    priority = models.CharField(max_length=4)
    value = models.FloatField(null=True, blank=True)
    raised_at = models.DateTimeField()

    class Meta:
        ordering = ["-raised_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["device", "code", "syringe"], name="condition_once_per_syringe"
            )
        ]

    def __str__(self) -> str:
        return f"{self.device_id} {self.code}"
