"""Jobs: make one, follow its executions as they change, download what came back."""

from collections import Counter
from typing import Any

from django.http import FileResponse, HttpRequest, HttpResponse, QueryDict
from django.shortcuts import get_object_or_404, redirect
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from agent.wire.catalogue import ClinicalState, ExecutionState
from fleet.accounts.models import User
from fleet.accounts.permissions import Action, allowed, require, restrict
from fleet.core import clock
from fleet.core.errors import Conflict, Invalid
from fleet.inventory.models import Device, ProductLine, Site
from fleet.inventory.search import DeviceFilter, find
from fleet.jobs import bundles, selectors, services
from fleet.jobs.forms import SENT, JobForm
from fleet.jobs.labels import STATES
from fleet.jobs.models import Execution
from fleet.pages.http import page, paginate, person, show, watch_groups
from fleet.telemetry.labels import CLINICAL_STATES

_PREVIEW = 12  # devices named before a job is made


@page
@require_safe
def jobs(request: HttpRequest) -> HttpResponse:
    user = person(request)
    context = {
        "page": paginate(request, selectors.jobs_for(user)),
        "may_create": allowed(user, Action.JOB_CREATE),
        "watch": watch_groups(user),
    }
    return show(request, "jobs/list.html", context, fragments={"list": "jobs/table.html"})


@page
@require_http_methods(["GET", "POST"])
def job_new(request: HttpRequest) -> HttpResponse:
    user = require(person(request), Action.JOB_CREATE)
    params = request.POST if request.method == "POST" else request.GET
    chosen, filtered = _chosen(user, params)
    status = 200
    form = JobForm()
    if request.method == "POST":
        form = JobForm(request.POST)
        if form.is_valid():
            try:
                _check(user, request.POST)
                job = services.create(
                    actor=user,
                    **form.cleaned(),
                    devices=chosen,
                    chosen=filtered.chosen(),
                    now=clock.now(),
                )
            except (Conflict, Invalid) as error:
                form.add_error(None, error.message)
                status = error.status
            else:
                return redirect("job", job.pk)
        else:
            status = 400
    context: dict[str, Any] = {
        "form": form,
        "one": chosen[0] if "device" in params and chosen else None,
        "devices": chosen[:_PREVIEW],
        "count": len(chosen),
        "chosen": filtered,
        "product_lines": ProductLine.objects.all(),
        "sites": restrict(Site.objects.select_related("organisation"), user, Action.DEVICE_VIEW),
        "states": [(state.value, CLINICAL_STATES[state]) for state in ClinicalState],
    }
    return show(
        request,
        "jobs/new.html",
        context,
        fragments={"targets": "jobs/targets.html"},
        status=status,
    )


def _check(user: User, sent: QueryDict) -> None:
    """A mistake only shows too much when it is looked at; here, too much would be done.

    Raises Invalid."""
    if unknown := sorted(set(sent) - SENT):
        raise Invalid(
            _("This form has no “%(name)s”. Open “New job” again.") % {"name": unknown[0][:64]}
        )
    DeviceFilter.checked(sent, user)


def _chosen(user: User, params: QueryDict) -> tuple[list[Device], DeviceFilter]:
    """The devices that the form names; a stranger's are not among them."""
    rows = restrict(
        Device.objects.select_related("site", "product_line", "organisation"),
        user,
        Action.JOB_CREATE,
    )
    filtered = DeviceFilter.read(params)
    if device := params.get("device"):
        return list(rows.filter(pk=device)), filtered
    return list(find(rows, filtered)[: services.MAX_DEVICES + 1]), filtered


@page
@require_safe
def job(request: HttpRequest, job: str) -> HttpResponse:
    user = person(request)
    row = get_object_or_404(selectors.jobs_for(user), pk=job)
    executions = selectors.executions_for(user).filter(job=row).order_by("device__serial")
    states = Counter(executions.order_by().values_list("state", flat=True))
    shown = paginate(request, executions)
    context = {
        "job": row,
        "page": shown,
        "summary": [(s.value, STATES[s], states[s]) for s in ExecutionState if states[s]],
        # The page's own rows; each tells of itself, and the count of them is bounded.
        "watch": [f"execution.{execution.pk}" for execution in shown],
        "may_cancel": allowed(user, Action.JOB_CANCEL),
        "may_download": allowed(user, Action.BUNDLE_DOWNLOAD),
    }
    return show(request, "jobs/job.html", context, fragments={"job": "jobs/job_body.html"})


def _execution(request: HttpRequest, execution: str, action: Action) -> Execution:
    return get_object_or_404(selectors.executions_for(person(request), action), pk=execution)


@page
@require_POST
def execution_cancel(request: HttpRequest, execution: str) -> HttpResponse:
    row = _execution(request, execution, Action.JOB_CANCEL)
    services.cancel(actor=person(request), execution=row, now=clock.now())
    return redirect("job", row.job_id)


@page
@require_POST
def bundle(request: HttpRequest, execution: str) -> FileResponse:
    """A POST, since a download is recorded in the audit."""
    row = _execution(request, execution, Action.BUNDLE_DOWNLOAD)
    path = services.download(actor=person(request), execution=row, now=clock.now())
    return bundles.response(path, row)
