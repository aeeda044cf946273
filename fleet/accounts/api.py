"""Who the caller is."""

from typing import cast

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import api_view
from rest_framework.request import Request
from rest_framework.response import Response

from fleet.accounts.models import Role, User


class PersonSerializer(serializers.ModelSerializer[User]):
    name = serializers.CharField(source="display_name")
    role = serializers.ChoiceField(choices=[role.value for role in Role])
    organisation = serializers.CharField(source="organisation.name")

    class Meta:
        model = User
        fields = ["username", "name", "role", "organisation", "language"]


@extend_schema(responses=PersonSerializer, summary="The person behind the token")
@api_view(["GET"])
def me(request: Request) -> Response:
    return Response(PersonSerializer(cast(User, request.user)).data)
