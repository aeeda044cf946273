"""The API of credentials: what a device holds, and an administrator's revocation."""

from datetime import datetime
from typing import Any

from django.shortcuts import get_object_or_404
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import api_view
from rest_framework.request import Request
from rest_framework.response import Response

from fleet.accounts.models import User
from fleet.accounts.permissions import Action, require
from fleet.core import clock
from fleet.core.serializers import StrictSerializer
from fleet.enrolment import alarms, credentials
from fleet.enrolment.models import Alarm, AlarmKind, Credential, Issued
from fleet.inventory import departures
from fleet.inventory.api import DeviceDetailSerializer, visible
from fleet.inventory.models import Device, Site

_SHOWN = 50


class CredentialSerializer(serializers.ModelSerializer[Credential]):
    """One certificate. `revoked_because` is null unless it was revoked."""

    issued = serializers.ChoiceField(choices=Issued.values)
    revoked_because = serializers.SerializerMethodField()

    class Meta:
        model = Credential
        fields = [
            "serial_number", "issued", "created_at", "not_before_at", "not_after_at", "used_at",
            "superseded_at", "revoked_at", "revoked_because",
        ]  # fmt: skip

    def get_revoked_because(self, credential: Credential) -> str | None:
        return credential.revoked_because or None


class AlarmSerializer(serializers.ModelSerializer[Alarm]):
    kind = serializers.ChoiceField(choices=AlarmKind.values)

    class Meta:
        model = Alarm
        fields = ["kind", "raised_at"]


class IdentitySerializer(serializers.Serializer[Any]):
    """Alarms that stand, and certificates, newest first."""

    alarms = AlarmSerializer(many=True)
    credentials = CredentialSerializer(many=True)


class RevokedSerializer(serializers.Serializer[Any]):
    revoked = serializers.IntegerField()


class ClosedSerializer(serializers.Serializer[Any]):
    closed = serializers.IntegerField()


class MoveSerializer(StrictSerializer):
    """`site` is the id of one; another organisation's makes it a transfer."""

    site = serializers.CharField(max_length=64)
    room = serializers.CharField(max_length=32, allow_blank=True, default="")
    asset_number = serializers.CharField(max_length=32, allow_blank=True, default="")


def _act(request: Request, device: str, action: Action) -> tuple[User, Device, datetime]:
    """Who acts on which device. The role is looked at first: it says nothing of any device."""
    actor = require(request.user, action)
    return actor, get_object_or_404(visible(actor), pk=device), clock.now()


@extend_schema(summary="Alarms and certificates of a device", responses=IdentitySerializer)
@api_view(["GET"])
def identity(request: Request, device: str) -> Response:
    user, row, _now = _act(request, device, Action.DEVICE_VIEW)
    shown = {
        "alarms": alarms.standing(user, row),
        "credentials": Credential.objects.filter(device=row)[:_SHOWN],
    }
    return Response(IdentitySerializer(shown).data)


@extend_schema(
    summary="Revoke whatever lets a device in; it is cut off", request=None,
    responses=RevokedSerializer,
)  # fmt: skip
@api_view(["POST"])
def revoke(request: Request, device: str) -> Response:
    actor, row, now = _act(request, device, Action.DEVICE_REVOKE)
    return Response({"revoked": credentials.revoke(actor=actor, device=row, now=now)})


@extend_schema(
    summary="Close the alarms about a device's credential", request=None, responses=ClosedSerializer
)
@api_view(["POST"])
def acknowledge(request: Request, device: str) -> Response:
    actor, row, now = _act(request, device, Action.DEVICE_REVOKE)
    return Response({"closed": alarms.acknowledge(actor=actor, device=row, now=now)})


@extend_schema(
    summary="Move a device to another site, or transfer it to another organisation",
    request=MoveSerializer,
    responses=DeviceDetailSerializer,
)
@api_view(["POST"])
def move(request: Request, device: str) -> Response:
    actor, row, now = _act(request, device, Action.DEVICE_MOVE)
    asked = MoveSerializer(data=request.data)
    asked.is_valid(raise_exception=True)
    data = asked.validated_data
    site = get_object_or_404(Site.objects.select_related("organisation"), pk=data["site"])
    moved = departures.move(
        actor=actor,
        device=row,
        site=site,
        room=data["room"],
        asset_number=data["asset_number"],
        now=now,
    )
    return Response(DeviceDetailSerializer(moved).data)


@extend_schema(summary="Retire a device for good", request=None, responses=DeviceDetailSerializer)
@api_view(["POST"])
def retire(request: Request, device: str) -> Response:
    actor, row, now = _act(request, device, Action.DEVICE_MOVE)
    return Response(
        DeviceDetailSerializer(departures.retire(actor=actor, device=row, now=now)).data
    )
