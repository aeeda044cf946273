"""The API of access sessions: what the specialist's command and an integrator's programs use."""

from datetime import timedelta
from typing import Any

import msgspec
from django.db.models import Q, QuerySet
from django.shortcuts import get_object_or_404
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from drf_spectacular.utils import (
    OpenApiParameter,
    extend_schema,
    extend_schema_field,
    extend_schema_view,
)
from rest_framework import generics, serializers, status
from rest_framework.decorators import api_view
from rest_framework.request import Request
from rest_framework.response import Response

from agent.wire.catalogue import Level, RequestReason, SessionState
from agent.wire.messages import Proof
from fleet.access import afterwards, selectors, services
from fleet.access.asking import MAX_SERVICES
from fleet.access.models import Session
from fleet.accounts.models import User
from fleet.accounts.permissions import Action, allowed, require, restrict
from fleet.core import clock
from fleet.core.errors import Invalid, NotAllowed
from fleet.core.fields import Base64Field
from fleet.core.serializers import StrictSerializer
from fleet.inventory.models import Device

_STATES = [state.value for state in SessionState]


class SessionSerializer(serializers.ModelSerializer[Session]):
    """`request` is the exact payload that the device gets; `challenge`, the exact bytes that the
    specialist signs. A client checks both, and believes nothing else in here."""

    session = serializers.CharField(source="pk")
    device = serializers.CharField(source="device_id")
    serial = serializers.CharField(source="device.serial")
    specialist = serializers.CharField(source="specialist.username")
    level = serializers.ChoiceField(choices=[level.value for level in Level])
    services = serializers.ListField(child=serializers.CharField())
    reason = serializers.ChoiceField(choices=[reason.value for reason in RequestReason])
    ticket = serializers.SerializerMethodField()
    state = serializers.ChoiceField(choices=[state.value for state in SessionState])
    ticket_owed = serializers.BooleanField(help_text="The ticket was to follow, and has not yet.")
    state_reason = serializers.SerializerMethodField()
    challenge = Base64Field(allow_null=True)
    challenge_signature = Base64Field(allow_null=True)
    certificates = serializers.ListField(child=serializers.CharField())
    request = Base64Field()
    online = serializers.BooleanField(
        source="device.online",
        help_text="Whether the device is on line. If not, the request waits until `expires_at`.",
    )

    class Meta:
        model = Session
        fields = [
            "session", "device", "serial", "specialist", "level", "services", "reason", "ticket",
            "note", "life_s", "state", "state_reason", "challenge", "challenge_signature",
            "certificates", "request", "online", "created_at", "expires_at", "active_at",
            "ends_at", "ended_at", "version", "ticket_owed", "handover", "handover_at",
        ]  # fmt: skip

    def get_ticket(self, session: Session) -> str | None:
        return session.ticket or None

    def get_state_reason(self, session: Session) -> str | None:
        return session.state_reason or None


class RequestSerializer(StrictSerializer):
    """Name the device by its id, or by a serial number that only one device has."""

    device = serializers.CharField(required=False, max_length=64)
    serial = serializers.CharField(required=False, max_length=32)
    level = serializers.ChoiceField(choices=[level.value for level in Level])
    services = serializers.ListField(
        child=serializers.CharField(max_length=32), max_length=MAX_SERVICES
    )
    reason = serializers.ChoiceField(choices=[reason.value for reason in RequestReason])
    ticket = serializers.CharField(required=False, allow_null=True, allow_blank=True)
    note = serializers.CharField(required=False, allow_blank=True, default="")
    life_s = serializers.IntegerField(default=1800, min_value=60, max_value=8 * 3600)


@extend_schema_field(
    {
        "type": "object",
        "properties": {
            "kind": {"enum": ["ssh", "passkey"]},
            "signature": {"type": "string", "format": "byte"},
            "id": {"type": "string", "format": "byte", "description": "of a passkey"},
            "authenticator_data": {"type": "string", "format": "byte"},
            "client_data": {"type": "string", "format": "byte"},
        },
        "required": ["kind", "signature"],
    }
)
class ProofField(serializers.Field[Proof, Any, Any, Any]):
    """As the wire has it: an SSH signature, or what a passkey signed. Bytes in base64."""

    default_error_messages = {
        "invalid": gettext_lazy(
            "This is no proof. Send an SSH signature (“kind”: “ssh”) or what an access passkey "
            "signed (“kind”: “passkey”); bytes in base64."
        )
    }

    def to_internal_value(self, data: Any) -> Proof:
        try:
            proof: Proof = msgspec.convert(data, Proof)
        except msgspec.ValidationError:
            self.fail("invalid")
        return proof

    def to_representation(self, value: Proof) -> Any:
        return msgspec.to_builtins(value)


class AnswerSerializer(StrictSerializer):
    client_key = Base64Field(max_length=32, help_text="X25519, 32 bytes, made for this session")
    proof = ProofField()


class TicketSerializer(StrictSerializer):
    ticket = serializers.CharField(max_length=32)


class HandoverSerializer(StrictSerializer):
    """Nothing about a patient or about staff of the hospital; the hospital reads it."""

    text = serializers.CharField(max_length=afterwards.MAX_HANDOVER, trim_whitespace=False)


class EntrySerializer(serializers.Serializer[selectors.TimelineEntry]):
    side = serializers.ChoiceField(choices=["server", "device"])
    index = serializers.IntegerField()
    at = serializers.DateTimeField()
    action = serializers.CharField()
    actor = serializers.CharField()
    outcome = serializers.CharField()
    reason = serializers.CharField(allow_null=True)
    digest = serializers.CharField(allow_null=True)
    hash = serializers.CharField()


class TimelineSerializer(serializers.Serializer[selectors.Timeline]):
    entries = EntrySerializer(many=True)
    agree = serializers.BooleanField()
    server_bad = serializers.IntegerField(allow_null=True)
    device_bad = serializers.IntegerField(allow_null=True)
    complete = serializers.BooleanField()
    differences = serializers.ListField(child=serializers.CharField())


class ReportSerializer(serializers.Serializer[selectors.Report]):
    session = SessionSerializer()
    timeline = TimelineSerializer()
    asked_at = serializers.DateTimeField()
    waited_s = serializers.SerializerMethodField()
    lasted_s = serializers.SerializerMethodField()
    approved_by = serializers.CharField(allow_null=True)
    presence_proved = serializers.BooleanField()
    bytes_up = serializers.IntegerField(source="session.bytes_up")
    bytes_down = serializers.IntegerField(source="session.bytes_down")

    def get_waited_s(self, report: selectors.Report) -> float | None:
        return report.waited.total_seconds() if report.waited is not None else None

    def get_lasted_s(self, report: selectors.Report) -> float | None:
        return report.lasted.total_seconds() if report.lasted is not None else None


@extend_schema_view(
    get=extend_schema(
        summary="Sessions that you may see, newest first",
        parameters=[
            OpenApiParameter("state", enum=_STATES),
            OpenApiParameter(
                "ticket", enum=["to_follow"], description="Only those that wait for your ticket."
            ),
        ],
    ),
    post=extend_schema(
        summary="Ask for access to a device",
        request=RequestSerializer,
        responses={201: SessionSerializer},
    ),
)
class SessionList(generics.ListAPIView[Session]):
    serializer_class = SessionSerializer

    def get_queryset(self) -> QuerySet[Session]:
        user = require(self.request.user, Action.ACCESS_VIEW)
        rows = selectors.sessions_for(user)
        state = self.request.query_params.get("state")
        if state and state not in _STATES:
            raise Invalid(
                _("There is no such state. The states are: %(states)s.")
                % {"states": ", ".join(_STATES)}
            )
        if self.request.query_params.get("ticket") == "to_follow":
            rows = rows.filter(pk__in=selectors.tickets_owed(user).values("pk"))
        return rows.filter(state=state) if state else rows

    def post(self, request: Request) -> Response:
        user = require(request.user, Action.ACCESS_VIEW)
        asked = RequestSerializer(data=request.data)
        if not allowed(user, Action.ACCESS_REQUEST):
            seen = _seen(user, asked.validated_data) if asked.is_valid() else None
            services.refused(actor=user, device=seen, reason=NotAllowed.code, now=clock.now())
        actor = require(user, Action.ACCESS_REQUEST)
        asked.is_valid(raise_exception=True)
        data = asked.validated_data
        session = services.request(
            actor=actor,
            device=_device(request, data),
            level=data["level"],
            services=data["services"],
            reason=data["reason"],
            ticket=data.get("ticket"),
            note=data["note"],
            life=timedelta(seconds=data["life_s"]),
            now=clock.now(),
        )
        return Response(SessionSerializer(session).data, status=status.HTTP_201_CREATED)


def _seen(user: User, data: dict[str, Any]) -> Device | None:
    """The device that was named, if the user may at least see it."""
    rows = restrict(Device.objects.select_related("organisation"), user, Action.DEVICE_VIEW)
    named = Q(pk=data.get("device")) | Q(serial=data.get("serial"))
    return rows.filter(named).first()


def _device(request: Request, data: dict[str, Any]) -> Device:
    devices = restrict(
        Device.objects.select_related("organisation"), request.user, Action.ACCESS_REQUEST
    )
    if data.get("device"):
        return get_object_or_404(devices, pk=data["device"])
    if not data.get("serial"):
        raise Invalid(_("Name the injector: send “device” or “serial”."))
    found = list(devices.filter(serial=data["serial"], retired_at=None)[:2])
    if len(found) > 1:
        raise Invalid(_("Several product lines have this serial number. Send “device” instead."))
    return found[0] if found else get_object_or_404(devices.none())


def _session(request: Request, pk: str, action: Action = Action.ACCESS_VIEW) -> Session:
    rows = selectors.sessions_for(require(request.user, Action.ACCESS_VIEW))
    return get_object_or_404(restrict(rows, request.user, action), pk=pk)


@extend_schema(summary="One session", responses=SessionSerializer)
@api_view(["GET"])
def session(request: Request, pk: str) -> Response:
    return Response(SessionSerializer(_session(request, pk)).data)


@extend_schema(
    summary="Pass the specialist's signature to the device",
    request=AnswerSerializer,
    responses=SessionSerializer,
)
@api_view(["POST"])
def answer(request: Request, pk: str) -> Response:
    found = _session(request, pk)
    actor = require(request.user, Action.ACCESS_VIEW)  # who may answer is the service's to say
    given = AnswerSerializer(data=request.data)
    given.is_valid(raise_exception=True)
    answered = services.answer(
        actor=actor,
        session=found,
        client_key=given.validated_data["client_key"],
        proof=given.validated_data["proof"],
        now=clock.now(),
    )
    return Response(SessionSerializer(answered).data)


@extend_schema(
    summary="Give the ticket that was to follow",
    request=TicketSerializer,
    responses=SessionSerializer,
)
@api_view(["POST"])
def ticket(request: Request, pk: str) -> Response:
    found = _session(request, pk)
    actor = require(request.user, Action.ACCESS_REQUEST)
    given = TicketSerializer(data=request.data)
    given.is_valid(raise_exception=True)
    named = afterwards.give_ticket(
        actor=actor, session=found, ticket=given.validated_data["ticket"], now=clock.now()
    )
    return Response(SessionSerializer(named).data)


@extend_schema(
    summary="Write the handover note of a session of yours",
    request=HandoverSerializer,
    responses=SessionSerializer,
)
@api_view(["POST"])
def handover(request: Request, pk: str) -> Response:
    found = _session(request, pk)
    actor = require(request.user, Action.ACCESS_REQUEST)
    given = HandoverSerializer(data=request.data)
    given.is_valid(raise_exception=True)
    written = afterwards.write_handover(
        actor=actor, session=found, text=given.validated_data["text"], now=clock.now()
    )
    return Response(SessionSerializer(written).data)


@extend_schema(
    summary="Ask for the same access as a session of yours that is over",
    request=None,
    responses={201: SessionSerializer},
)
@api_view(["POST"])
def again(request: Request, pk: str) -> Response:
    found = _session(request, pk)
    actor = require(request.user, Action.ACCESS_REQUEST)
    asked = afterwards.again(actor=actor, session=found, now=clock.now())
    return Response(SessionSerializer(asked).data, status=status.HTTP_201_CREATED)


@extend_schema(summary="End a session", request=None, responses=SessionSerializer)
@api_view(["POST"])
def end(request: Request, pk: str) -> Response:
    found = _session(request, pk)
    actor = require(request.user, Action.ACCESS_VIEW)
    ended = services.end(actor=actor, session=found, now=clock.now())
    return Response(SessionSerializer(ended).data)


@extend_schema(
    summary="What the server and the device each recorded, and whether they agree",
    responses=TimelineSerializer,
)
@api_view(["GET"])
def audit(request: Request, pk: str) -> Response:
    found = _session(request, pk, Action.AUDIT_VIEW)
    return Response(TimelineSerializer(selectors.timeline(found)).data)


@extend_schema(summary="The session's service report", responses=ReportSerializer)
@api_view(["GET"])
def report(request: Request, pk: str) -> Response:
    found = _session(request, pk, Action.AUDIT_VIEW)
    return Response(ReportSerializer(selectors.report(found, now=clock.now())).data)
