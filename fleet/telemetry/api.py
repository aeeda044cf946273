"""The API of events."""

from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import generics, serializers

from agent.wire.catalogue import EventPhase, EventPriority
from fleet.accounts.permissions import Action, require
from fleet.inventory.api import visible, visible_once
from fleet.telemetry import selectors
from fleet.telemetry.models import Event


class EventSerializer(serializers.ModelSerializer[Event]):
    device = serializers.CharField(source="device_id")
    priority = serializers.ChoiceField(choices=[each.value for each in EventPriority])
    phase = serializers.ChoiceField(choices=[each.value for each in EventPhase])
    syringe = serializers.SerializerMethodField()

    class Meta:
        model = Event
        fields = ["device", "code", "priority", "phase", "syringe", "value", "at", "received_at"]

    def get_syringe(self, event: Event) -> str | None:
        return event.syringe or None


@extend_schema_view(get=extend_schema(summary="Events of a device, newest first"))
class DeviceEvents(generics.ListAPIView[Event]):
    serializer_class = EventSerializer

    def get_queryset(self) -> QuerySet[Event]:
        user = require(self.request.user, Action.EVENT_VIEW)
        # A former owner, too, reads what happened while the device was theirs, and no more.
        rows = visible(user) | visible_once(user)
        device = get_object_or_404(rows.distinct(), pk=self.kwargs["device"])
        return selectors.events(user, device)
