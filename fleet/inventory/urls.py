from django.urls import URLPattern, URLResolver, path

from fleet.inventory import api

api_urlpatterns: list[URLPattern | URLResolver] = [
    path("devices/", api.DeviceList.as_view(), name="devices"),
    path("devices/<str:device>/", api.DeviceDetail.as_view(), name="device"),
]
page_urlpatterns: list[URLPattern | URLResolver] = []
