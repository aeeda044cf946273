"""Who the caller is."""

from typing import cast

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import api_view
from rest_framework.request import Request
from rest_framework.response import Response

from fleet.accounts.models import Role, User
from fleet.accounts.permissions import scopes_of


class PersonSerializer(serializers.ModelSerializer[User]):
    name = serializers.CharField(source="display_name")
    role = serializers.ChoiceField(choices=[role.value for role in Role])
    organisation = serializers.CharField(source="organisation.name")
    scopes = serializers.SerializerMethodField(help_text="What this token may be used for.")

    class Meta:
        model = User
        fields = ["username", "name", "role", "organisation", "language", "scopes"]

    def get_scopes(self, user: User) -> list[str]:
        return [
            s.value
            for s in scopes_of(Role(user.role))
            if user.token_scopes is None or s in user.token_scopes
        ]


@extend_schema(responses=PersonSerializer, summary="The person behind the token")
@api_view(["GET"])
def me(request: Request) -> Response:
    return Response(PersonSerializer(cast(User, request.user)).data)
