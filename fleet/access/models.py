"""Access sessions and the rosters that devices check specialists against."""

from django.conf import settings
from django.db import models
from django.utils.functional import Promise

from agent.wire.catalogue import Level, RequestReason, SessionReason, SessionState
from fleet.access import labels
from fleet.core.ids import new_hex32

OPEN_STATES = [state.value for state in SessionState if not state.over]


class Session(models.Model):
    """A person's request to reach a device, and the connection that follows.

    The device decides; this row is what the portal knows of it. What was signed or digested is kept
    as the exact bytes that travelled.
    """

    id = models.CharField(primary_key=True, max_length=32, default=new_hex32, editable=False)
    device = models.ForeignKey(
        "inventory.Device", on_delete=models.PROTECT, related_name="sessions"
    )
    # Whose the device was when access was asked for: the hospital.
    organisation = models.ForeignKey("accounts.Organisation", on_delete=models.PROTECT)
    specialist = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="sessions"
    )
    level = models.CharField(max_length=16)
    services = models.JSONField(default=list)
    reason = models.CharField(max_length=16)
    ticket = models.CharField(max_length=32, blank=True)  # empty: to follow
    note = models.CharField(max_length=200, blank=True)
    life_s = models.PositiveIntegerField()

    state = models.CharField(max_length=16, default=SessionState.REQUESTED.value)
    state_reason = models.CharField(max_length=32, blank=True)
    version = models.PositiveIntegerField(default=1)
    # When the portal gives up on the present state; the device keeps its own, shorter time.
    expires_at = models.DateTimeField(null=True, blank=True)

    request = models.BinaryField()
    request_digest = models.CharField(max_length=64)  # SHA-256, hex
    accepted_at = models.DateTimeField(null=True, blank=True)  # the device holds the request

    challenge = models.BinaryField(null=True, blank=True)
    challenge_signature = models.BinaryField(null=True, blank=True)
    certificates = models.JSONField(default=list)  # DER, base64, leaf first
    presence = models.BooleanField(default=False)  # whether a person at the injector is asked

    client_key = models.BinaryField(null=True, blank=True)
    proof = models.BinaryField(null=True, blank=True)  # as the answer carries it, JSON
    answered_at = models.DateTimeField(null=True, blank=True)
    answer_accepted_at = models.DateTimeField(null=True, blank=True)

    end_reason = models.CharField(max_length=32, blank=True)  # an End is owed to the device
    end_accepted_at = models.DateTimeField(null=True, blank=True)

    receipt = models.BinaryField(null=True, blank=True)
    receipt_signature = models.BinaryField(null=True, blank=True)
    approver = models.PositiveSmallIntegerField(null=True, blank=True)  # a local number, no name

    created_at = models.DateTimeField()
    active_at = models.DateTimeField(null=True, blank=True)
    ends_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)
    ended_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    # Sealed bytes that passed the portal, and plain bytes as the device counted them.
    bytes_up = models.PositiveBigIntegerField(default=0)
    bytes_down = models.PositiveBigIntegerField(default=0)
    device_bytes_up = models.PositiveBigIntegerField(default=0)
    device_bytes_down = models.PositiveBigIntegerField(default=0)

    # What whoever comes next must know: free text, which stays here and goes to no injector.
    handover = models.TextField(blank=True, max_length=2000)
    handover_at = models.DateTimeField(null=True, blank=True)

    # How far the hospital has been given notice: a notices.Stage, or empty.
    told = models.CharField(max_length=16, blank=True)

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["specialist", "device"],
                condition=models.Q(state__in=OPEN_STATES),
                name="session_one_open",
            ),
            models.CheckConstraint(
                name="session_state_known",
                condition=models.Q(state__in=[state.value for state in SessionState]),
            ),
        ]
        indexes = [
            models.Index(fields=["organisation", "-created_at"]),
            models.Index(
                fields=["expires_at"],
                condition=models.Q(state__in=OPEN_STATES),
                name="session_open_expiry",
            ),
            models.Index(
                fields=["device"],
                condition=~models.Q(end_reason="") & models.Q(end_accepted_at__isnull=True),
                name="session_end_owed",
            ),
            models.Index(
                fields=["-created_at"], condition=models.Q(ticket=""), name="session_no_ticket"
            ),
            models.Index(
                fields=["created_at"], condition=~models.Q(told="ended"), name="session_to_tell"
            ),
        ]

    def __str__(self) -> str:
        return self.id

    @property
    def over(self) -> bool:
        return SessionState(self.state).over

    @property
    def ticket_owed(self) -> bool:
        """A ticket was to follow and has not; one that never began needs none."""
        return not self.ticket and (not self.over or self.active_at is not None)

    @property
    def state_label(self) -> str | Promise:
        return labels.STATES[SessionState(self.state)]

    @property
    def state_reason_label(self) -> str | Promise:
        """Why it is in this state, in words; empty when there is nothing to say."""
        return labels.STATE_REASONS[SessionReason(self.state_reason)] if self.state_reason else ""

    @property
    def level_label(self) -> str | Promise:
        return labels.LEVELS[Level(self.level)]

    @property
    def reason_label(self) -> str | Promise:
        return labels.REASONS[RequestReason(self.reason)]


class Roster(models.Model):
    """A signed list of specialists, as the trust key's keeper handed it over. Never edited here."""

    version = models.PositiveBigIntegerField(primary_key=True)
    roster = models.BinaryField()  # canonical bytes
    signature = models.BinaryField(max_length=64)
    members = models.PositiveIntegerField()
    issued_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    imported_at = models.DateTimeField()

    class Meta:
        ordering = ["-version"]

    def __str__(self) -> str:
        return str(self.version)


class BrowserPass(models.Model):
    """A link to the browser client, and the pass it was given up for: `fleet.access.passes`."""

    session = models.ForeignKey(Session, on_delete=models.CASCADE, related_name="passes")
    ticket_digest = models.CharField(max_length=64, unique=True)  # SHA-256, hex
    token_digest = models.CharField(max_length=64, unique=True, null=True, blank=True)
    created_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["created_at"]

    def __str__(self) -> str:
        return f"{self.session_id} {self.created_at:%Y-%m-%d %H:%M}"


class NoticeSettings(models.Model):
    """How an organisation is told of access to its injectors, beside its pages."""

    organisation = models.OneToOneField("accounts.Organisation", on_delete=models.CASCADE)
    email = models.BooleanField(default=False)  # to each of its people who has an address
    webhook_url = models.URLField(max_length=500, blank=True)
    webhook_secret = models.CharField(max_length=300, blank=True)  # sealed
    failures = models.PositiveSmallIntegerField(default=0)  # one after the other
    trouble = models.CharField(max_length=32, blank=True)  # why the last one failed; a code
    disabled_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return self.organisation_id


class Notice(models.Model):
    """One notice on its way: the outbox. Kept a while after it was sent or given up."""

    organisation = models.ForeignKey("accounts.Organisation", on_delete=models.CASCADE)
    session = models.ForeignKey(Session, on_delete=models.CASCADE, related_name="notices")
    stage = models.CharField(max_length=16)
    # Whom an e-mail is for; None: the webhook.
    person = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, null=True, related_name="+"
    )
    created_at = models.DateTimeField()
    due_at = models.DateTimeField()
    attempts = models.PositiveSmallIntegerField(default=0)
    sent_at = models.DateTimeField(null=True, blank=True)
    given_up_at = models.DateTimeField(null=True, blank=True)
    trouble = models.CharField(max_length=32, blank=True)

    class Meta:
        ordering = ["due_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["session", "stage", "person"], name="notice_once", nulls_distinct=False
            )
        ]
        indexes = [
            models.Index(
                fields=["due_at"],
                condition=models.Q(sent_at__isnull=True, given_up_at__isnull=True),
                name="notice_due",
            )
        ]

    def __str__(self) -> str:
        return f"{self.session_id} {self.stage}"
