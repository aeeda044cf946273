"""Reads about jobs, scoped to who asks. A job is seen by whoever sees one of its executions."""

from django.contrib.auth.models import AnonymousUser
from django.db.models import Count, Exists, OuterRef, Prefetch, Q, QuerySet

from agent.wire.catalogue import ExecutionState
from fleet.accounts.models import User
from fleet.accounts.permissions import Action, restrict
from fleet.jobs.models import OPEN_STATES, Execution, Job


def executions_for(
    user: User | AnonymousUser, action: Action = Action.JOB_VIEW
) -> QuerySet[Execution]:
    """The executions that the user may see (or do `action` to), newest first."""
    rows = Execution.objects.select_related(
        "job", "job__created_by", "device", "device__product_line", "device__site", "organisation"
    ).defer("private_key", "message")
    return restrict(rows, user, action)


def jobs_for(user: User | AnonymousUser) -> QuerySet[Job]:
    """The jobs of which the user may see an execution, newest first, with counts of those:
    `total`, `open`, `succeeded`."""
    visible = executions_for(user)
    mine = Q(executions__in=visible.values("pk"))
    return (
        Job.objects.filter(Exists(visible.filter(job=OuterRef("pk")).values("pk")))
        .select_related("created_by")
        .annotate(
            total=Count("executions", filter=mine),
            open=Count("executions", filter=mine & Q(executions__state__in=OPEN_STATES)),
            succeeded=Count(
                "executions", filter=mine & Q(executions__state=ExecutionState.SUCCEEDED.value)
            ),
        )
        .order_by("-created_at", "pk")  # grouping drops the model's own order
    )


def with_executions(jobs: QuerySet[Job], user: User | AnonymousUser) -> QuerySet[Job]:
    """The same jobs with `visible_executions`, a list of those that the user may see."""
    return jobs.prefetch_related(
        Prefetch("executions", queryset=executions_for(user), to_attr="visible_executions")
    )
