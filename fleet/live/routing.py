"""Websockets that Channels serves; the origin and the sign-in are checked around them in asgi."""

from typing import Any

from django.urls import path

from fleet.live.consumers import LiveConsumer

websocket_urlpatterns: list[Any] = [path("ws/live/", LiveConsumer.as_asgi())]
