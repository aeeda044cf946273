from django.urls import URLPattern, URLResolver, path

from fleet.telemetry import api

api_urlpatterns: list[URLPattern | URLResolver] = [
    path("devices/<str:device>/events/", api.DeviceEvents.as_view(), name="device-events"),
]
page_urlpatterns: list[URLPattern | URLResolver] = []
