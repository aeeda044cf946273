"""What remote service each injector is entitled to, as the trust key's keeper handed it over."""

from django.db import models

from agent.wire.catalogue import Level


class Entitlement(models.Model):
    """A signed entitlement of one serial of one product line. Never edited here; the newest counts.

    It outlives the device's row: an injector that is enrolled anew is entitled as before.
    """

    product_line = models.ForeignKey("inventory.ProductLine", on_delete=models.PROTECT)
    serial = models.CharField(max_length=64)
    version = models.PositiveBigIntegerField()
    level = models.CharField(max_length=16, choices=[(it.value, it.value) for it in Level])
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField()
    lasts_until = models.DateTimeField()  # with its grace
    entitlement = models.BinaryField()  # canonical bytes
    signature = models.BinaryField(max_length=64)
    imported_at = models.DateTimeField()

    class Meta:
        ordering = ["-version"]
        constraints = [
            models.UniqueConstraint(
                fields=["product_line", "serial", "version"], name="entitlement_version_unique"
            )
        ]

    def __str__(self) -> str:
        return f"{self.product_line_id} {self.serial} {self.version}"
