"""The API of devices and their events."""

from typing import Any

from django.db.models import QuerySet
from django.utils.translation import gettext as _
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import (
    OpenApiParameter,
    extend_schema,
    extend_schema_field,
    extend_schema_view,
)
from rest_framework import generics, serializers

from agent.wire.catalogue import ClinicalState, ProductLineCode
from fleet.accounts.permissions import Action, require, restrict
from fleet.core.errors import Invalid
from fleet.inventory.models import Device
from fleet.inventory.search import DeviceFilter, find

_YES_NO = {"true": "yes", "1": "yes", "yes": "yes", "false": "no", "0": "no", "no": "no"}
_STATES = [state.value for state in ClinicalState]


class DeviceSerializer(serializers.ModelSerializer[Device]):
    """One injector. `state` is null until the device has said what it is in."""

    device = serializers.CharField(source="pk")
    product_line = serializers.ChoiceField(
        choices=[line.value for line in ProductLineCode], source="product_line_id"
    )
    organisation = serializers.CharField(source="organisation.name")
    site = serializers.CharField(source="site.name")
    state = serializers.SerializerMethodField()

    class Meta:
        model = Device
        fields = [
            "serial", "device", "product_line", "organisation", "site", "online", "state",
            "software_version", "last_seen_at", "asset_number", "room",
        ]  # fmt: skip

    @extend_schema_field(serializers.ChoiceField(choices=_STATES, allow_null=True))
    def get_state(self, device: Device) -> str | None:
        return device.clinical_state or None


class DeviceDetailSerializer(DeviceSerializer):
    """With what the device offers: service name to the level it needs."""

    services = serializers.DictField(child=serializers.CharField())

    class Meta(DeviceSerializer.Meta):
        fields = [
            *DeviceSerializer.Meta.fields, "agent_version", "online_since", "access_server",
            "services", "roster_version", "outbox_depth", "remote_enabled", "retired_at",
        ]  # fmt: skip


def visible(user: Any) -> QuerySet[Device]:
    """The devices that the user may see. Raises NotAllowed."""
    rows = Device.objects.select_related("site", "organisation")
    return restrict(rows, require(user, Action.DEVICE_VIEW), Action.DEVICE_VIEW)


def visible_once(user: Any) -> QuerySet[Device]:
    """The devices that the user's organisation has had at some time; only with rows of that time.
    Raises NotAllowed."""
    reader = require(user, Action.DEVICE_VIEW)
    rows = Device.objects.select_related("site", "organisation")
    return rows.filter(ownerships__organisation=reader.organisation_id)


def _parameter(name: str, description: str, **fields: Any) -> OpenApiParameter:
    return OpenApiParameter(name, OpenApiTypes.STR, description=description, **fields)


@extend_schema_view(
    get=extend_schema(
        summary="Devices that you may see, by serial",
        parameters=[
            _parameter("q", "Words of serial, room, asset number, site or city; all must match"),
            _parameter("product_line", "Code of a product line"),
            _parameter("site", "Id of a site"),
            _parameter("state", "Clinical state", enum=_STATES),
            _parameter(
                "online", "Only those on line, or only those off line", enum=["true", "false"]
            ),
        ],
    )
)
class DeviceList(generics.ListAPIView[Device]):
    serializer_class = DeviceSerializer

    def get_queryset(self) -> QuerySet[Device]:
        user = require(self.request.user, Action.DEVICE_VIEW)
        asked = {name: str(text) for name, text in self.request.query_params.items()}
        online = asked.get("online", "").lower()
        if online and online not in _YES_NO:
            raise Invalid(_("“online” is true or false."))
        wanted = DeviceFilter.checked({**asked, "online": _YES_NO.get(online, "")}, user)
        return find(visible(user), wanted).order_by("serial", "pk")


@extend_schema_view(get=extend_schema(summary="One device"))
class DeviceDetail(generics.RetrieveAPIView[Device]):
    serializer_class = DeviceDetailSerializer
    lookup_url_kwarg = "device"

    def get_queryset(self) -> QuerySet[Device]:
        return visible(self.request.user)
