"""People, the organisation each belongs to, and what they authenticate with."""

from enum import StrEnum

from django.contrib.auth.models import AbstractUser
from django.core.validators import RegexValidator
from django.db import models
from django.utils.translation import gettext_lazy as _

from fleet.core.ids import new_short_id


class OrganisationKind(models.TextChoices):
    VENDOR = "vendor", _("Vendor")
    HOSPITAL = "hospital", _("Hospital")


class Language(models.TextChoices):
    EN = "en", "English"
    FR_CA = "fr-ca", "Français (Canada)"


class Role(StrEnum):
    ADMINISTRATOR = "administrator"
    SPECIALIST = "specialist"
    HOSPITAL = "hospital"


ROLE_LABELS = {
    Role.ADMINISTRATOR: _("Administrator"),
    Role.SPECIALIST: _("Support specialist"),
    Role.HOSPITAL: _("Hospital IT"),
}


class Organisation(models.Model):
    id = models.CharField(primary_key=True, max_length=64, default=new_short_id, editable=False)
    name = models.CharField(max_length=80, unique=True)
    kind = models.CharField(max_length=16, choices=OrganisationKind.choices)
    language = models.CharField(max_length=8, choices=Language.choices, default=Language.EN)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class User(AbstractUser):
    """A person. `username` is also the person's id on the wire and in the roster."""

    username = models.CharField(
        _("user name"),
        max_length=64,
        unique=True,
        validators=[
            RegexValidator(
                r"^[A-Za-z0-9_-]{1,64}\Z",
                _("Use letters without accents, digits, “-” and “_” only, at most 64."),
            )
        ],
    )
    organisation = models.ForeignKey(Organisation, on_delete=models.PROTECT, related_name="users")
    role = models.CharField(max_length=16, choices=[(r.value, ROLE_LABELS[r]) for r in Role])
    language = models.CharField(max_length=8, choices=Language.choices, default=Language.EN)

    REQUIRED_FIELDS = ["organisation", "role"]

    # Of the token that speaks for the person in this request; None: they speak themselves.
    token_scopes: frozenset[str] | None = None

    class Meta(AbstractUser.Meta):
        ordering = ["username"]
        constraints = [
            models.CheckConstraint(
                name="user_role_known", condition=models.Q(role__in=[r.value for r in Role])
            )
        ]

    @property
    def display_name(self) -> str:
        """The name shown at the injector's panel: never empty, at most 80 characters."""
        return (self.get_full_name() or self.username)[:80]


class IdentityProvider(models.Model):
    """An OpenID provider of one organisation, whose people it signs in and nobody else's.

    The issuer never changes: with the provider's id it says whose subjects those are that people
    are linked to. Another issuer is another row.
    """

    id = models.CharField(primary_key=True, max_length=64, default=new_short_id, editable=False)
    organisation = models.ForeignKey(
        Organisation, on_delete=models.PROTECT, related_name="identity_providers"
    )
    name = models.CharField(max_length=40)  # as people know it
    issuer = models.CharField(max_length=200)
    client_id = models.CharField(max_length=191)
    secret = models.TextField()  # sealed (accounts.sealing)
    domains = models.CharField(max_length=400)  # of its people's e-mail, with spaces between
    enabled = models.BooleanField(default=True)
    required = models.BooleanField(default=False)  # its people sign in no other way
    trusts_mfa = models.BooleanField(default=False)  # its word for a second factor counts
    created_at = models.DateTimeField()

    class Meta:
        ordering = ["created_at"]

    def __str__(self) -> str:
        return self.name


class SpecialistKey(models.Model):
    """An Ed25519 key of a specialist, as proposed for the roster. The roster decides, not this."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="keys")
    public_key = models.BinaryField(max_length=32, unique=True)  # raw, 32 bytes
    fingerprint = models.CharField(max_length=64)  # SHA256:… as ssh-keygen -l prints it
    created_at = models.DateTimeField()

    class Meta:
        ordering = ["created_at"]

    def __str__(self) -> str:
        return self.fingerprint


class ApiToken(models.Model):
    """A bearer token for the API. Only its digest is kept. `scopes`: permissions.Scope, with
    spaces between."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="tokens")
    digest = models.CharField(max_length=64, unique=True)  # SHA-256, hex
    name = models.CharField(max_length=80)
    scopes = models.CharField(max_length=64, default="read access jobs admin")
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    last_used_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["created_at"]

    def __str__(self) -> str:
        return self.name

    def person(self) -> User:
        """The owner, who may do through this token what its scopes say and no more."""
        self.user.token_scopes = frozenset(self.scopes.split())
        return self.user


class DeviceCode(models.Model):
    """A command line that waits to be signed in (RFC 8628): it holds the secret whose digest this
    is, and shows its person `user_code` to type in the browser. See accounts.device_codes."""

    digest = models.CharField(max_length=64, unique=True)  # SHA-256 of the device code, hex
    user_code = models.CharField(max_length=8, unique=True)  # as typed, without the hyphen
    name = models.CharField(max_length=80)  # what the command says of itself and its machine
    scopes = models.CharField(max_length=64)
    address = models.CharField(max_length=64)
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField(db_index=True)
    interval_s = models.PositiveIntegerField()
    asked_at = models.DateTimeField(null=True, blank=True)
    state = models.CharField(max_length=16, default="waiting")
    user = models.ForeignKey(User, on_delete=models.CASCADE, null=True, related_name="+")
    token_life = models.DurationField(null=True)

    class Meta:
        ordering = ["created_at"]

    def __str__(self) -> str:
        return self.user_code


class SignInFailure(models.Model):
    """One failed sign-in; counted to slow guessing down, forgotten after a while."""

    username = models.CharField(max_length=64)
    address = models.CharField(max_length=64)
    kind = models.CharField(max_length=16, default="password")  # services.Guess
    at = models.DateTimeField(db_index=True)

    class Meta:
        indexes = [
            models.Index(fields=["username", "at"]),
            models.Index(fields=["address", "at"]),
        ]

    def __str__(self) -> str:
        return f"{self.username} {self.at:%Y-%m-%d %H:%M}"
