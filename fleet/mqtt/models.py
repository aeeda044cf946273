"""What has been decided about devices' messages: the memory behind PUBACK."""

from django.db import models


class Outbox(models.Model):
    """One outbox of a device: `high` is the highest sequence number decided, `floor` the highest
    whose decision has been forgotten (everything up to it counts as decided)."""

    device = models.ForeignKey(
        "inventory.Device", on_delete=models.CASCADE, related_name="outboxes"
    )
    outbox = models.CharField(max_length=32)
    high = models.PositiveBigIntegerField(default=0)
    floor = models.PositiveBigIntegerField(default=0)

    class Meta:
        ordering = ["device", "outbox"]
        constraints = [models.UniqueConstraint(fields=["device", "outbox"], name="outbox_unique")]

    def __str__(self) -> str:
        return f"{self.device_id} {self.outbox} {self.high}"


class Decision(models.Model):
    """One message decided: applied (no reason) or refused. Never its payload."""

    # No index of its own: the unique key begins with it.
    device = models.ForeignKey(
        "inventory.Device", on_delete=models.CASCADE, related_name="decisions", db_index=False
    )
    # Both None when the payload could not be read far enough to know its key.
    outbox = models.CharField(max_length=32, null=True, blank=True)  # noqa: DJ001
    seq = models.PositiveBigIntegerField(null=True, blank=True)
    type = models.CharField(max_length=40)  # type/version
    digest = models.CharField(max_length=64)  # SHA-256 of the payload, hex
    length = models.PositiveIntegerField()  # bytes
    reason = models.CharField(max_length=32, blank=True)
    decided_at = models.DateTimeField(db_index=True)

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(fields=["device", "outbox", "seq"], name="decision_key_unique")
        ]

    def __str__(self) -> str:
        return f"{self.device_id} {self.outbox} {self.seq}"
