"""Jobs for many devices, and the execution of one on each."""

from django.conf import settings
from django.db import models
from django.utils.functional import Promise

from agent.wire.catalogue import ExecutionState, JobKind, JobReason
from fleet.core.ids import new_hex32
from fleet.jobs import labels

OPEN_STATES = [state.value for state in ExecutionState if not state.over]


class Job(models.Model):
    """One instruction. Belongs to no single organisation: its executions do."""

    id = models.CharField(primary_key=True, max_length=32, default=new_hex32, editable=False)
    kind = models.CharField(max_length=32)
    hours = models.PositiveSmallIntegerField()
    filter = models.JSONField(default=dict, blank=True)  # how the devices were chosen, as asked
    # Of the form that made it: a form sent twice makes one job.
    once = models.CharField(max_length=32, null=True, blank=True, unique=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="jobs"
    )
    created_at = models.DateTimeField()
    not_after = models.DateTimeField()

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return self.id

    @property
    def kind_label(self) -> str | Promise:
        return labels.KINDS[JobKind(self.kind)]


class Execution(models.Model):
    """A job's run on one device. SUCCEEDED only with the bundle checked and stored."""

    id = models.CharField(primary_key=True, max_length=32, default=new_hex32, editable=False)
    job = models.ForeignKey(Job, on_delete=models.PROTECT, related_name="executions")
    device = models.ForeignKey(
        "inventory.Device", on_delete=models.PROTECT, related_name="executions"
    )
    organisation = models.ForeignKey("accounts.Organisation", on_delete=models.PROTECT)
    state = models.CharField(max_length=16, default=ExecutionState.QUEUED.value)
    reason = models.CharField(max_length=32, blank=True)
    version = models.PositiveIntegerField(default=1)

    message = models.BinaryField()  # the exact payload of the job message
    message_digest = models.CharField(max_length=64)  # SHA-256, hex; binds the bundle's seal
    private_key = models.BinaryField(max_length=32, blank=True)  # X25519; erased when it is over
    accepted_at = models.DateTimeField(null=True, blank=True)  # the device holds the job

    device_key = models.BinaryField(max_length=32, blank=True)
    bundle_digest = models.CharField(max_length=64, blank=True)  # as announced; SHA-256, hex
    bundle_size = models.PositiveBigIntegerField(null=True, blank=True)
    bundle_path = models.CharField(
        max_length=80, blank=True
    )  # under PATENCY_DATA; set once checked
    attempt = models.PositiveIntegerField(default=0)  # number of the bundle's stream

    cancel_owed = models.BooleanField(default=False)  # the device must be told that it is over
    created_at = models.DateTimeField()
    started_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)
    not_after = models.DateTimeField()

    class Meta:
        ordering = ["-created_at", "id"]
        constraints = [
            models.UniqueConstraint(fields=["job", "device"], name="execution_once_a_device"),
            models.CheckConstraint(
                name="execution_state_known",
                condition=models.Q(state__in=[state.value for state in ExecutionState]),
            ),
            models.CheckConstraint(
                name="execution_succeeds_with_bundle",
                condition=~models.Q(state=ExecutionState.SUCCEEDED.value)
                | ~models.Q(bundle_path=""),
            ),
        ]
        indexes = [
            models.Index(fields=["organisation", "-created_at"]),
            models.Index(
                fields=["not_after"],
                condition=models.Q(state__in=OPEN_STATES),
                name="execution_open_deadline",
            ),
            models.Index(
                fields=["device"],
                condition=models.Q(state__in=OPEN_STATES) | models.Q(cancel_owed=True),
                name="execution_owed",
            ),
        ]

    def __str__(self) -> str:
        return self.id

    @property
    def over(self) -> bool:
        return ExecutionState(self.state).over

    @property
    def state_label(self) -> str | Promise:
        return labels.STATES[ExecutionState(self.state)]

    @property
    def reason_label(self) -> str | Promise:
        """Why it is where it is, in words; empty when there is nothing to say."""
        return labels.REASONS[JobReason(self.reason)] if self.reason else ""
