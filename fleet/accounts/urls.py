from django.urls import URLPattern, URLResolver, path

from fleet.accounts import api, device_views

api_urlpatterns: list[URLPattern | URLResolver] = [
    path("me/", api.me, name="me"),
    path("sign-in/device/", device_views.authorize, name="sign-in-device"),
    path("sign-in/token/", device_views.token, name="sign-in-token"),
]
page_urlpatterns: list[URLPattern | URLResolver] = []
