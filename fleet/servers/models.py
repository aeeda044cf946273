"""Access servers. A row is never deleted: what hospitals were told to allow stays on record."""

from django.core.validators import RegexValidator
from django.db import models
from django.utils.translation import gettext_lazy as _

NAME = RegexValidator(
    r"^[a-z][a-z0-9-]{0,31}\Z", _("Lower-case letters, digits and “-”, at most 32.")
)
HOST = RegexValidator(r"^[A-Za-z0-9.:-]{1,253}\Z", _("A host name or an address, without a port."))


class AccessServer(models.Model):
    """One MQTT endpoint that devices connect to.

    Host, address and port are what firewalls let through, from `listed_on` until `unlisted_on`;
    they do not change: that would be another row, with notice. `enabled` says whether we use it.
    """

    name = models.CharField(primary_key=True, max_length=32, validators=[NAME])
    host = models.CharField(max_length=253, validators=[HOST])
    address = models.GenericIPAddressField()
    port = models.PositiveIntegerField(default=443)
    place = models.CharField(max_length=80)
    region = models.CharField(max_length=32)
    link = models.CharField(max_length=270)  # host:port, where the portal reaches its link
    position = models.PositiveSmallIntegerField(default=100)  # lowest first
    enabled = models.BooleanField(default=True)
    listed_on = models.DateField()
    unlisted_on = models.DateField(null=True, blank=True)
    created_at = models.DateTimeField()
    # How it is, as the portal's link says.
    linked = models.BooleanField(default=False)
    trouble = models.CharField(max_length=16, blank=True)  # broker.link.wire.Trouble
    devices = models.PositiveIntegerField(default=0)
    last_seen_at = models.DateTimeField(null=True, blank=True)
    # When the first of the certificates ends that it has loaded, as it last told.
    certificates_end_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["position", "name"]
        constraints = [
            models.UniqueConstraint(fields=["host", "port"], name="access_server_place_unique"),
            models.CheckConstraint(
                condition=models.Q(port__gte=1, port__lte=65535), name="access_server_port"
            ),
            models.CheckConstraint(
                condition=models.Q(unlisted_on__isnull=True)
                | models.Q(unlisted_on__gt=models.F("listed_on")),
                name="access_server_listed_before_unlisted",
            ),
        ]

    def __str__(self) -> str:
        return self.name
