from django.urls import URLPattern, URLResolver, path

from fleet.servers import api

api_urlpatterns: list[URLPattern | URLResolver] = [
    path("servers/", api.ServerList.as_view(), name="servers"),
    path("servers/<str:name>/", api.server, name="server"),
]
