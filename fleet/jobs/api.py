"""The API of jobs, executions and bundles."""

from typing import Any

from django.db.models import QuerySet
from django.http import FileResponse
from django.shortcuts import get_object_or_404
from django.utils.translation import gettext as _
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import generics, serializers, status
from rest_framework.decorators import api_view
from rest_framework.request import Request
from rest_framework.response import Response

from agent.wire.catalogue import ClinicalState, ExecutionState, JobKind
from fleet.accounts.permissions import Action, require, restrict
from fleet.core import clock
from fleet.core.errors import Invalid
from fleet.core.serializers import StrictSerializer
from fleet.inventory.models import Device
from fleet.inventory.search import MAX_QUERY, DeviceFilter, find
from fleet.jobs import bundles, selectors, services
from fleet.jobs.models import Execution, Job


class ExecutionSerializer(serializers.ModelSerializer[Execution]):
    execution = serializers.CharField(source="pk")
    job = serializers.CharField(source="job_id")
    device = serializers.CharField(source="device_id")
    serial = serializers.CharField(source="device.serial")
    state = serializers.ChoiceField(choices=[state.value for state in ExecutionState])
    reason = serializers.SerializerMethodField()
    bundle = serializers.SerializerMethodField(help_text="Whether a bundle can be downloaded.")

    class Meta:
        model = Execution
        fields = [
            "execution", "job", "device", "serial", "state", "reason", "bundle", "bundle_size",
            "bundle_digest", "created_at", "started_at", "ended_at", "not_after", "version",
        ]  # fmt: skip

    def get_reason(self, execution: Execution) -> str | None:
        return execution.reason or None

    def get_bundle(self, execution: Execution) -> bool:
        return bool(execution.bundle_path)


class JobSerializer(serializers.ModelSerializer[Job]):
    job = serializers.CharField(source="pk")
    kind = serializers.ChoiceField(choices=[kind.value for kind in JobKind])
    created_by = serializers.CharField(source="created_by.username")
    executions = ExecutionSerializer(source="visible_executions", many=True)

    class Meta:
        model = Job
        fields = ["job", "kind", "hours", "created_by", "created_at", "not_after", "executions"]


class FilterSerializer(StrictSerializer):
    """The filters of the device list; all that are given must hold."""

    q = serializers.CharField(required=False, allow_blank=True, max_length=MAX_QUERY)
    product_line = serializers.CharField(required=False, allow_blank=True, max_length=32)
    site = serializers.CharField(required=False, allow_blank=True, max_length=64)
    state = serializers.ChoiceField(
        required=False, allow_blank=True, choices=[state.value for state in ClinicalState]
    )
    online = serializers.ChoiceField(required=False, allow_blank=True, choices=["yes", "no"])


class NewJobSerializer(StrictSerializer):
    """Either `devices` or `filter`, which may be empty: every injector that you may see."""

    kind = serializers.ChoiceField(choices=[kind.value for kind in JobKind])
    hours = serializers.IntegerField(default=24, min_value=1, max_value=services.MAX_HOURS)
    devices = serializers.ListField(
        child=serializers.CharField(max_length=64), required=False, max_length=services.MAX_DEVICES
    )
    filter = FilterSerializer(required=False)


@extend_schema_view(
    get=extend_schema(summary="Jobs of which you may see an execution, newest first"),
    post=extend_schema(
        summary="Queue a job for devices", request=NewJobSerializer, responses={201: JobSerializer}
    ),
)
class JobList(generics.ListAPIView[Job]):
    serializer_class = JobSerializer

    def get_queryset(self) -> QuerySet[Job]:
        user = require(self.request.user, Action.JOB_VIEW)
        return selectors.with_executions(selectors.jobs_for(user), user)

    def post(self, request: Request) -> Response:
        actor = require(request.user, Action.JOB_CREATE)
        asked = NewJobSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        data = asked.validated_data
        chosen, devices = _devices(request, data)
        job = services.create(
            actor=actor,
            kind=data["kind"],
            hours=data["hours"],
            devices=devices,
            chosen=chosen,
            now=clock.now(),
        )
        return Response(_job_json(request, job.pk), status=status.HTTP_201_CREATED)


def _devices(request: Request, data: dict[str, Any]) -> tuple[dict[str, str], list[Device]]:
    """The filter as asked, and the devices that it or the list means."""
    allowed = restrict(
        Device.objects.select_related("organisation"), request.user, Action.JOB_CREATE
    )
    if ("devices" in data) == ("filter" in data):
        raise Invalid(_("Choose the injectors: send either “devices” or “filter”."))
    if "devices" in data:
        named = set(data["devices"])
        found = list(allowed.filter(pk__in=named))
        if len(found) != len(named):
            get_object_or_404(allowed.none())
        return {}, found
    actor = require(request.user, Action.JOB_CREATE)
    wanted = DeviceFilter.checked(data["filter"], actor)
    return wanted.chosen(), list(find(allowed, wanted)[: services.MAX_DEVICES + 1])


def _job_json(request: Request, pk: str) -> Any:
    user = require(request.user, Action.JOB_VIEW)
    jobs = selectors.with_executions(selectors.jobs_for(user), user)
    return JobSerializer(get_object_or_404(jobs, pk=pk)).data


@extend_schema(summary="One job and its executions", responses=JobSerializer)
@api_view(["GET"])
def job(request: Request, pk: str) -> Response:
    return Response(_job_json(request, pk))


def _execution(request: Request, pk: str, action: Action = Action.JOB_VIEW) -> Execution:
    rows = selectors.executions_for(require(request.user, Action.JOB_VIEW))
    found = get_object_or_404(rows, pk=pk)
    require(request.user, action)
    return found


@extend_schema(summary="One execution", responses=ExecutionSerializer)
@api_view(["GET"])
def execution(request: Request, pk: str) -> Response:
    return Response(ExecutionSerializer(_execution(request, pk)).data)


@extend_schema(summary="Cancel an execution", request=None, responses=ExecutionSerializer)
@api_view(["POST"])
def cancel(request: Request, pk: str) -> Response:
    found = _execution(request, pk, Action.JOB_CANCEL)
    actor = require(request.user, Action.JOB_CANCEL)
    cancelled = services.cancel(actor=actor, execution=found, now=clock.now())
    return Response(ExecutionSerializer(cancelled).data)


@extend_schema(
    summary="Download an execution's bundle",
    responses={(200, "application/zip"): OpenApiTypes.BINARY},
)
@api_view(["GET"])
def bundle(request: Request, pk: str) -> FileResponse:
    found = _execution(request, pk, Action.BUNDLE_DOWNLOAD)
    actor = require(request.user, Action.BUNDLE_DOWNLOAD)
    return bundles.response(services.download(actor=actor, execution=found, now=clock.now()), found)
