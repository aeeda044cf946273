"""Devices, where they stand and whose they are."""

from django.db import models
from django.utils.translation import gettext_lazy as _

from fleet.core.ids import new_device_id, new_short_id


class ProductLine(models.Model):
    """A family of devices with one driver; the code is what travels on the wire."""

    code = models.CharField(primary_key=True, max_length=32)
    name = models.CharField(max_length=80)
    modality = models.CharField(max_length=8, choices=[("CT", _("CT")), ("MR", _("MR"))])

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class Site(models.Model):
    id = models.CharField(primary_key=True, max_length=64, default=new_short_id, editable=False)
    organisation = models.ForeignKey(
        "accounts.Organisation", on_delete=models.PROTECT, related_name="sites"
    )
    name = models.CharField(max_length=80)
    city = models.CharField(max_length=80, blank=True)

    class Meta:
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(fields=["organisation", "name"], name="site_name_unique")
        ]

    def __str__(self) -> str:
        return self.name


class Device(models.Model):
    """One managed injector: a random id, with the serial as an attribute."""

    id = models.CharField(primary_key=True, max_length=64, default=new_device_id, editable=False)
    serial = models.CharField(max_length=32)
    product_line = models.ForeignKey(ProductLine, on_delete=models.PROTECT, related_name="devices")
    asset_number = models.CharField(max_length=32, blank=True)
    room = models.CharField(max_length=32, blank=True)
    site = models.ForeignKey(Site, on_delete=models.PROTECT, related_name="devices")
    organisation = models.ForeignKey(
        "accounts.Organisation", on_delete=models.PROTECT, related_name="devices"
    )
    # As reported by the device. Empty until its first hello.
    clinical_state = models.CharField(max_length=16, blank=True)
    software_version = models.CharField(max_length=20, blank=True)
    agent_version = models.CharField(max_length=20, blank=True)
    services = models.JSONField(default=dict, blank=True)  # name -> level
    knows = models.JSONField(default=dict, blank=True)  # message type -> versions it reads
    roster_version = models.PositiveBigIntegerField(default=0)
    entitlement_version = models.PositiveBigIntegerField(default=0)
    outbox_depth = models.PositiveBigIntegerField(default=0)
    # Presence, as the gate and the heartbeat say.
    online = models.BooleanField(default=False)
    online_since = models.DateTimeField(null=True, blank=True)
    last_seen_at = models.DateTimeField(null=True, blank=True)
    access_server = models.CharField(max_length=64, blank=True)
    remote_enabled = models.BooleanField(default=True)
    audit_key = models.BinaryField(max_length=32, blank=True)  # raw Ed25519, from enrolment
    created_at = models.DateTimeField()
    # When its present owner got it from another; None for one that never changed hands.
    transferred_at = models.DateTimeField(null=True, blank=True)
    # Retired: it stays for those whose data it carries; its serial may be enrolled anew.
    retired_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["serial"]
        constraints = [
            models.UniqueConstraint(
                fields=["product_line", "serial"],
                condition=models.Q(retired_at__isnull=True),
                name="device_serial_unique",
            )
        ]
        indexes = [models.Index(fields=["online", "last_seen_at"])]

    def __str__(self) -> str:
        return self.serial


class Ownership(models.Model):
    """An organisation has a device from `starts_at` until `ends_at` (None: still)."""

    device = models.ForeignKey(Device, on_delete=models.CASCADE, related_name="ownerships")
    organisation = models.ForeignKey("accounts.Organisation", on_delete=models.PROTECT)
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["starts_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["device"],
                condition=models.Q(ends_at__isnull=True),
                name="ownership_one_at_a_time",
            )
        ]

    def __str__(self) -> str:
        return f"{self.device_id} {self.starts_at:%Y-%m-%d}"


class Boot(models.Model):
    """What hellos told of a boot of the device's machine (fleet.inventory.placing)."""

    device = models.ForeignKey(Device, on_delete=models.CASCADE, related_name="boots")
    boot = models.CharField(max_length=32)
    started_at = models.DateTimeField()  # by our clock, the earliest that was heard
    heard_at = models.DateTimeField()
    ahead_ms = models.BigIntegerField()  # our clock less the device's

    class Meta:
        ordering = ["pk"]
        constraints = [models.UniqueConstraint(fields=["device", "boot"], name="boot_once")]

    def __str__(self) -> str:
        return f"{self.device_id} {self.boot}"
