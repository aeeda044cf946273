from django.urls import URLPattern, URLResolver, path

from fleet.accounts import api

api_urlpatterns: list[URLPattern | URLResolver] = [path("me/", api.me, name="me")]
page_urlpatterns: list[URLPattern | URLResolver] = []
