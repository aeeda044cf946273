"""The API of access servers, for administrators of the vendor."""

from typing import Any

from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import generics, serializers, status
from rest_framework.decorators import api_view
from rest_framework.request import Request
from rest_framework.response import Response

from broker.link.wire import Trouble
from fleet.core import clock
from fleet.core.serializers import Strict, StrictSerializer
from fleet.servers import services
from fleet.servers.models import AccessServer


class ServerSerializer(Strict, serializers.ModelSerializer[AccessServer]):
    """An access server and how its link is. `trouble` is empty while it is linked."""

    trouble = serializers.ChoiceField(
        choices=["", *(trouble.value for trouble in Trouble)], read_only=True
    )

    class Meta:
        model = AccessServer
        fields = [
            "name", "host", "address", "port", "place", "region", "link", "position", "enabled",
            "listed_on", "unlisted_on", "linked", "trouble", "devices", "last_seen_at",
            "certificates_end_at",
        ]  # fmt: skip
        read_only_fields = [
            "enabled", "unlisted_on", "linked", "devices", "last_seen_at", "certificates_end_at",
        ]  # fmt: skip
        extra_kwargs: dict[str, Any] = {"name": {"validators": []}}
        validators: list[Any] = []  # the service says it with the remedy


class ChangeSerializer(StrictSerializer):
    """What may change without another row."""

    place = serializers.CharField(max_length=80, required=False)
    region = serializers.CharField(max_length=32, required=False)
    link = serializers.CharField(max_length=270, required=False)
    position = serializers.IntegerField(min_value=0, max_value=32767, required=False)
    enabled = serializers.BooleanField(required=False)
    unlisted_on = serializers.DateField(required=False)


@extend_schema_view(
    get=extend_schema(summary="Access servers, in order of preference"),
    post=extend_schema(summary="Add an access server", responses={201: ServerSerializer}),
)
class ServerList(generics.ListAPIView[AccessServer]):
    serializer_class = ServerSerializer

    def get_queryset(self) -> Any:
        services.manager(self.request.user)
        return AccessServer.objects.all()

    def post(self, request: Request) -> Response:
        actor = services.manager(request.user)
        asked = ServerSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        fields = dict(asked.validated_data)
        row = services.add(
            actor=actor, listed_on=fields.pop("listed_on"), fields=fields, now=clock.now()
        )
        return Response(ServerSerializer(row).data, status=status.HTTP_201_CREATED)


@extend_schema(methods=["GET"], summary="One access server", responses=ServerSerializer)
@extend_schema(
    methods=["PATCH"],
    summary="Change, enable, disable or retire an access server",
    request=ChangeSerializer,
    responses=ServerSerializer,
)
@api_view(["GET", "PATCH"])
def server(request: Request, name: str) -> Response:
    actor = services.manager(request.user)
    row = services.get(name)
    if request.method == "PATCH":
        asked = ChangeSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        row = services.update(actor=actor, name=name, asked=asked.validated_data, now=clock.now())
    return Response(ServerSerializer(row).data)
