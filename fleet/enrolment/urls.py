from django.urls import URLPattern, URLResolver, path

from fleet.enrolment import api

api_urlpatterns: list[URLPattern | URLResolver] = [
    path("devices/<str:device>/identity/", api.identity, name="device-identity"),
    path("devices/<str:device>/revoke/", api.revoke, name="device-revoke"),
    path("devices/<str:device>/acknowledge/", api.acknowledge, name="device-acknowledge"),
    path("devices/<str:device>/move/", api.move, name="device-move"),
    path("devices/<str:device>/retire/", api.retire, name="device-retire"),
]
